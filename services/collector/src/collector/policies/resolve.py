"""``resolve``: a way through structures of BTF to offsets, and the type at its end."""

from __future__ import annotations

from dataclasses import dataclass

from collector.bpf.btf import Btf, BtfKind, Member
from collector.errors import BtfError
from collector.policies.check_types import number_type, type_by_struct
from collector.policies.plan import Resolved
from tracingpolicy.model import ResolveStep
from tracingpolicy.types import OF_OBJECTS, OWN_TYPES, TYPES, ArgumentType, Family

MAX_DEPTH = 10  # steps, those through pointers included
_T = ArgumentType
# Numbers with a meaning of their own: what BTF calls int stays what the document says.
_MEANINGS = {_T.FD, _T.CAPABILITY, _T.BPF_CMD, _T.SYSCALL64}
# Numbers that Tetragon types by their name in BTF, whatever the document says. The names of
# the wider ones are clang's: gcc writes "long int" and "long unsigned int", which it does not know.
_BY_NAME = {"int": _T.INT32, "long": _T.INT64, "unsigned long": _T.UINT64}


class ResolveError(Exception):
    """The path is wrong, or ends at a value that the type cannot represent."""

    def __init__(self, message: str, allowed: str = "") -> None:
        super().__init__(message)
        self.message, self.allowed = message, allowed


@dataclass(frozen=True, slots=True)
class Root:
    """Where a path begins: the type that the argument's value is the address of."""

    btf: Btf
    type: int
    user: bool = False


def root_of_parameter(btf: Btf, number: int, what: str) -> Root:
    """Return the root for a parameter, which has to be a pointer; raise `ResolveError`."""
    target = btf.pointee(number)
    if target is None:
        raise ResolveError(f"{what} is {btf.type_name(number)}: no pointer, so it has no members")
    return Root(btf, target)


def resolve(
    root: Root, steps: tuple[ResolveStep, ...], declared: ArgumentType
) -> tuple[Resolved, ArgumentType]:
    """Return the way and the final type; raise `ResolveError`."""
    index, path = _split(steps)
    try:
        if not path:
            member = Member((0,), root.type, root.btf.size(root.type))
        else:
            member = root.btf.struct_member(root.type, _text(path))
    except BtfError as error:
        raise ResolveError(str(error)) from None
    offsets = (member.offsets[0] + index * root.btf.size(root.type), *member.offsets[1:])
    if len(offsets) + len(path) > 2 * MAX_DEPTH or len(offsets) > MAX_DEPTH:
        raise ResolveError(f"the path goes through {len(offsets)} pointers", f"at most {MAX_DEPTH}")
    if member.bits:
        raise ResolveError(f"{_text(path)} is a bit field of {member.bits} bits", "a whole member")
    kind, size = _final(root.btf, member, declared)
    return (
        Resolved(
            offsets,
            size,
            root.btf.is_signed(member.type),
            root.btf.type_name(member.type),
            root.user,
        ),
        kind,
    )


def _split(steps: tuple[ResolveStep, ...]) -> tuple[int, tuple[ResolveStep, ...]]:
    if steps and isinstance(steps[0], int):
        return steps[0], steps[1:]
    return 0, steps


def _text(steps: tuple[ResolveStep, ...]) -> str:
    text = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in steps)
    return text.removeprefix(".")


def _final(btf: Btf, member: Member, declared: ArgumentType) -> tuple[ArgumentType, int]:
    """Return the type at the end of a path, and how many bytes of the value are read."""
    found = btf.type(btf.strip(member.type))
    shown = btf.type_name(member.type)
    if found.kind in (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64):
        kind = number_type(member.size, btf.is_signed(member.type))
        if kind is None or not _number(declared):
            raise ResolveError(
                f"the path ends at {shown}, which is no {declared.value}", "a number"
            )
        if declared in _MEANINGS:
            return declared, member.size
        if found.kind is BtfKind.INT and declared is not _T.AUTO:
            kind = _BY_NAME.get(found.name, declared)
        return kind, member.size
    if found.kind is BtfKind.PTR:
        return _pointer(btf, found.value, declared, shown), 8
    if found.kind is BtfKind.ARRAY:
        if declared in (_T.STRING, _T.CHAR_BUF):
            return declared, 0
        raise ResolveError(f"the path ends at {shown}: an array needs an index, as [0]", "string")
    if found.kind in (BtfKind.STRUCT, BtfKind.UNION):
        return _composite(found.name, member, declared, shown)
    raise ResolveError(f"the path ends at {shown}, which cannot be read")


def _number(kind: ArgumentType) -> bool:
    """Whether a type can be that of a number; those of objects are asked for by address."""
    numbers = TYPES[kind].family is Family.NUMBER and kind not in OF_OBJECTS
    return kind in (_T.AUTO, _T.FD) or numbers


def _pointer(btf: Btf, target: int, declared: ArgumentType, shown: str) -> ArgumentType:
    name = btf.type(btf.strip(target)).name
    derived = type_by_struct(name)
    if derived is not None and declared not in OWN_TYPES:
        return derived
    if declared is _T.AUTO:
        return _T.STRING if name == "char" else _T.UINT64
    return declared


def _composite(
    name: str, member: Member, declared: ArgumentType, shown: str
) -> tuple[ArgumentType, int]:
    derived = type_by_struct(name)
    if derived is not None:
        return derived, 0
    if TYPES[declared].family is Family.CAPABILITIES:
        return declared, 0
    if _number(declared) or declared in (_T.STRING, _T.CHAR_BUF):
        raise ResolveError(f"the path ends at {shown}: name one of its members", "a.b.member")
    return declared, 0
