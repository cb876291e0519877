"""Whether an argument of a policy's type can be read from a parameter of the kernel's type."""

from __future__ import annotations

import re
from dataclasses import dataclass

from collector.bpf.btf import Btf, BtfKind
from tracingpolicy.types import OF_OBJECTS, OWN_TYPES, TYPES, ArgumentType, Family

_T = ArgumentType
# type -> structs or unions that a pointer may lead to; the first member of another struct counts.
STRUCTS: dict[ArgumentType, tuple[str, ...]] = {
    _T.FILENAME: ("filename",),
    _T.FILE: ("file",),
    _T.KIOCB: ("kiocb",),
    _T.PATH: ("path",),
    _T.DENTRY: ("dentry",),
    _T.LINUX_BINPRM: ("linux_binprm",),
    _T.SOCK: ("sock",),
    _T.SOCKET: ("socket",),
    _T.SKB: ("sk_buff",),
    _T.SOCK_AGE: ("sock",),
    _T.SOCK_SENT: ("sock",),
    _T.SOCK_RECEIVED: ("sock",),
    _T.SOCK_USED: ("sock",),
    _T.UDP_SIZE: ("sk_buff",),
    _T.SKB_PAYLOAD: ("sk_buff",),
    # Newer kernels have a struct sockaddr_unsized for the same memory.
    _T.SOCKADDR: (
        "sockaddr",
        "sockaddr_in",
        "sockaddr_in6",
        "sockaddr_storage",
        "__kernel_sockaddr_storage",
        "sockaddr_unsized",
    ),
    _T.SOCKADDR_UN: ("sockaddr_un", "sockaddr", "sockaddr_storage", "sockaddr_unsized"),
    _T.NET_DEVICE: ("net_device",),
    _T.CRED: ("cred",),
    _T.USER_NAMESPACE: ("user_namespace",),
    _T.BPF_ATTR: ("bpf_attr",),
    _T.BPF_PROG: ("bpf_prog",),
    _T.BPF_MAP: ("bpf_map",),
    _T.PERF_EVENT: ("perf_event",),
    _T.LOAD_INFO: ("load_info",),
    _T.MODULE: ("module",),
    _T.CHAR_IOVEC: ("iovec",),
    _T.IOV_ITER: ("iov_iter",),
}
_BY_STRUCT = {names[0]: kind for kind, names in STRUCTS.items() if kind not in OWN_TYPES}
_CAPABILITIES = "kernel_cap_t"
_TEXTS = (_T.STRING, _T.CHAR_BUF)
_CHARACTERS = {"char", "unsigned char", "signed char", "u8", "__u8", "s8"}
_POINTER = re.compile(
    r"^(?:const |volatile )?(?P<base>.*?)\s*(?P<stars>\*(?:\s*(?:const)?\s*\*)*)$"
)
_WIDE = {"long", "unsigned long", "size_t", "u64", "s64", "__u64", "__s64", "loff_t", "off_t",
         "long long", "unsigned long long", "kernel_ulong_t", "aio_context_t", "__kernel_ulong_t",
         "off64_t", "ssize_t"}  # fmt: skip
# A program's address is passed in one: prctl(PR_SET_NAME, arg2), ioctl(arg), fcntl(arg).
# The second name is the one that GCC writes into BTF.
_ADDRESSES = {"unsigned long", "long unsigned int"}
_OF_PROGRAMS = {_T.STRING, _T.CHAR_BUF, _T.CHAR_IOVEC, _T.SOCKADDR, _T.SOCKADDR_UN, _T.BPF_ATTR}
_SIGNED = {"int", "long", "pid_t", "loff_t", "off_t", "key_serial_t", "clockid_t", "timer_t",
           "mqd_t", "s32", "s64", "short", "key_t", "rwf_t", "ssize_t"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of a parameter that matter for reading it."""

    text: str  # the C type
    size: int  # of the value in its register; 0: nothing that fits one
    signed: bool = False
    pointer: bool = False
    target: str = ""  # struct or union that a pointer leads to, "void", or a scalar's name
    embedded: tuple[str, ...] = ()  # structs at the beginning of that one
    of_program: bool = False  # the pointer leads to memory of the program, not of the kernel


def shape_of(btf: Btf, number: int) -> Shape:
    """Return the shape of a type of the kernel."""
    text = btf.type_name(number)
    target = btf.pointee(number)
    if target is not None:
        named = _named(btf, target)
        return Shape(text, 8, pointer=True, target=named, embedded=_embedded(btf, target))
    found = btf.type(btf.strip(number))
    size = btf.size(number)
    scalar = found.kind in (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64)
    small = found.kind in (BtfKind.STRUCT, BtfKind.UNION) and size <= 8  # kuid_t and the like
    return Shape(text, size if scalar or small else 0, btf.is_signed(number))


def _named(btf: Btf, number: int) -> str:
    """Return the name that says most: kernel_cap_t before the struct behind it."""
    while True:
        found = btf.type(number)
        if found.name == _CAPABILITIES or found.kind not in (
            BtfKind.TYPEDEF,
            BtfKind.CONST,
            BtfKind.VOLATILE,
            BtfKind.RESTRICT,
            BtfKind.TYPE_TAG,
        ):
            return found.name
        if found.kind is BtfKind.TYPEDEF and found.name in _CHARACTERS:
            return found.name
        number = found.value


def _embedded(btf: Btf, number: int) -> tuple[str, ...]:
    """Return the structs that begin where this one begins: sock in tcp_sock."""
    names: list[str] = []
    while len(names) < 6:
        found = btf.type(btf.strip(number))
        if found.kind is not BtfKind.STRUCT:
            break
        first = next(iter(btf.fields(found.id)), None)
        if first is None or first.bit_offset or first.bits:
            break
        number = first.type
        name = btf.type(btf.strip(number)).name
        if name:
            names.append(name)
    return tuple(names)


def shape_of_text(text: str) -> Shape:
    """Return the shape of a system call's parameter, written as in a prototype without its name."""
    text = text.replace("__user ", "").strip()
    match = _POINTER.match(text)
    if match:
        base = match["base"].removeprefix("const ").removesuffix(" const").strip()
        if match["stars"].count("*") > 1:
            base = "*"
        target = base.removeprefix("struct ").removeprefix("union ")
        return Shape(text, 8, pointer=True, target=target, of_program=True)
    size = 8 if text in _WIDE else 2 if text in ("umode_t", "mode_t", "short") else 4
    return Shape(text, size, text in _SIGNED)


def mismatch(shape: Shape, kind: ArgumentType, registers: bool = False) -> str:
    """Return why a parameter cannot be read as a type, or "".

    ``registers``: the value is a whole register of the program, so a wide type reads all of it.
    """
    if kind is _T.NOP:
        return ""
    numbers = TYPES[kind].family in (Family.NUMBER, Family.CAPABILITIES)
    if (numbers and kind not in OF_OBJECTS) or kind in (_T.FD, _T.FD_SOCK):
        return _number_mismatch(shape, kind, registers)
    if shape.text in _ADDRESSES and kind in _OF_PROGRAMS:
        return ""
    if not shape.pointer:
        return f"{shape.text} is not a pointer"
    if shape.of_program and kind in STRUCTS and kind not in _OF_PROGRAMS:
        return f"{shape.text} leads to memory of the program, which has no object of the kernel"
    if shape.target in ("void", ""):
        return ""
    if kind in _TEXTS:
        fits = shape.target in _CHARACTERS or kind is _T.CHAR_BUF
        return "" if fits else f"{shape.text} does not lead to characters"
    wanted = STRUCTS.get(kind, ())
    if not wanted or shape.target in wanted or set(shape.embedded) & set(wanted):
        return ""
    return f"{shape.text} does not lead to a {wanted[0]}"


def _number_mismatch(shape: Shape, kind: ArgumentType, registers: bool) -> str:
    if TYPES[kind].family is Family.CAPABILITIES:
        fits = shape.pointer and shape.target in (_CAPABILITIES, "kernel_cap_struct", "void", "")
        return "" if fits else f"{shape.text} does not lead to a {_CAPABILITIES}"
    if not shape.size:
        return f"{shape.text} does not fit a register"
    if shape.pointer and not TYPES[kind].bits and not registers:
        return f"{shape.text} is a pointer, not a descriptor"
    return ""


def fitting(shape: Shape) -> str:
    """Return types that a parameter can be read as, for a message."""
    if not shape.pointer:
        if not shape.size:
            return "nop"
        word = "int" if shape.signed else "uint"
        name = f"{word}{8 * shape.size}"
        if shape.text in _ADDRESSES:
            return f"{name}, string, char_buf, nop"
        return f"{name}, int" if shape.size == 4 else name
    if shape.target in _CHARACTERS:
        return "string, char_buf, uint64"
    if shape.target == _CAPABILITIES:
        return "kernel_cap_t, cap_effective, cap_inheritable, cap_permitted, uint64"
    names = [
        kind.value
        for kind, structs in STRUCTS.items()
        if kind not in OWN_TYPES
        if shape.target in structs or set(shape.embedded) & set(structs)
    ]
    return ", ".join([*names, "uint64", "nop"])


def type_by_struct(name: str) -> ArgumentType | None:
    """Return the type that has a struct's name in Tetragon's table."""
    return _BY_STRUCT.get(name)


def number_type(size: int, signed: bool) -> ArgumentType | None:
    """Return the type of a whole number."""
    word = "int" if signed else "uint"
    return (
        {f"{one.value}": one for one in _T}.get(f"{word}{8 * size}")
        if size in (1, 2, 4, 8)
        else None
    )
