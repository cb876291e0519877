"""What is common to all families of arguments: how a value is fetched, read, compared, written.

A family's reader turns an argument into C. Lines that cost little and need no memory are part of
`fetch`; `read` makes what filters compare and may already write the item into the record; `write`
writes it otherwise. A family registers itself by types in `READERS` of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from collector.policies.ctext import Lines
from collector.policies.groups import Group
from collector.policies.images import BinaryList
from collector.policies.maps import MapNumbers
from collector.policies.plan import PlannedArgument, RecordField, Resolved
from collector.policies.sources import Frame, expression
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import TYPES, ArgumentType
from tracingpolicy.values import Namespace

POSITION_DATA = 16  # enum item_position of bpf/tracing/record.h
POSITION_RETURN = 32


class Cost(IntEnum):
    """In which order filters are evaluated: cheap ones first."""

    NUMBER = 0
    PROCESS = 1
    SHORT_TEXT = 2
    SIGHT = 3
    OBJECT = 4
    TEXT = 5
    PATH = 6
    CHANGE = 7


@dataclass(slots=True)
class Arg:
    """One argument of one program."""

    planned: PlannedArgument
    name: str  # in the C text: arg0, data1, returned
    position: int  # in the record
    what: str  # in comments: args[0]
    # All of its section, by the numbers that filters have for their operands.
    section: Sequence[Arg] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls, planned: Sequence[PlannedArgument], name: str, position: int, what: str
    ) -> list[Arg]:
        """Return the arguments of a section; ``position`` is that of the first."""
        section = [
            cls(one, f"{name}{n}", position + n, f"{what}[{n}]") for n, one in enumerate(planned)
        ]
        for one in section:
            one.section = section
        return section

    @classmethod
    def of_return(cls, planned: PlannedArgument) -> Arg:
        """Return the returned value, the only argument of its section."""
        made = cls(planned, "returned", POSITION_RETURN, "returnArg")
        made.section = (made,)
        return made

    @property
    def type(self) -> ArgumentType:
        return self.planned.type

    @property
    def number(self) -> int:
        """The item's type in the record."""
        return item_number(self.planned.type)

    @property
    def failed(self) -> str:
        """The C variable that says that the value could not be read: 0, or the depth plus 1."""
        return f"{self.name}_failed"

    @property
    def can_fail(self) -> bool:
        """Whether fetching the value itself reads memory that may be absent."""
        return self.planned.resolved is not None

    @property
    def user(self) -> str:
        """Whether the value points into the program, as a C expression."""
        return self.user_at(self.name)

    def user_at(self, address: str) -> str:
        """Return the same of another address.

        A function of the kernel can be called with pointers of either: do_sys_openat2() has the
        name of the program, vfs_write() its buffer.
        """
        if self.planned.user_memory:
            return "true"
        return f"is_user_address({address})" if self.type in _EITHER else "false"


_EITHER = frozenset(
    {
        ArgumentType.STRING, ArgumentType.CHAR_BUF, ArgumentType.CHAR_IOVEC,
        ArgumentType.SOCKADDR, ArgumentType.SOCKADDR_UN,
    }
)  # fmt: skip
# Item numbers of types that Tetragon has no number for; below 64 like the others.
_EXTRA_NUMBERS = {ArgumentType.BPF_CMD: 45}


def item_number(kind: ArgumentType) -> int:
    """Return the item type that stands for an argument type in a record."""
    number = TYPES[kind].number
    return _EXTRA_NUMBERS[kind] if number is None else number


@dataclass(slots=True)
class Unit:
    """What one text collects beside its functions: headers, helper functions, own maps."""

    maps: MapNumbers
    headers: set[str]
    functions: list[str]
    host_namespaces: Mapping[Namespace, int] = field(default_factory=dict)
    lists: list[BinaryList] = field(default_factory=list)  # masks are NUMBER_LIST and on
    groups: list[Group] = field(default_factory=list)  # masks are NUMBER_GROUP and on
    images: bool = False  # whether a filter needs struct image
    throttled: bool = False  # whether records are withheld above a rate
    counter: int = 0

    def use_throttle(self) -> bool:
        """Bring what withholds records; return whether any are."""
        if self.throttled:
            self.headers.add("throttling.h")
            self.maps.throttles()
        return self.throttled

    def use_images(self) -> None:
        """Bring what filters know of processes beside the process map."""
        self.images = True
        self.headers.add("image.h")
        self.maps.images()

    def list_mask(self, one: BinaryList) -> str:
        """Return the C constant that is the bit of a list of binaries."""
        if one not in self.lists:
            self.lists.append(one)
        return f"NUMBER(NUMBER_LIST + {self.lists.index(one)})"

    def group_mask(self, one: Group) -> str:
        """Return the C constant that is the bit of a filter on containers."""
        if one not in self.groups:
            self.groups.append(one)
        return f"NUMBER(NUMBER_GROUP + {self.groups.index(one)})"

    def unique(self, stem: str) -> str:
        """Return a name that nothing else in the text has."""
        self.counter += 1
        return f"{stem}_{self.counter}"


class Reader(Protocol):
    """How the arguments of one family become C."""

    headers: tuple[str, ...]

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        """Return when its filters are evaluated."""

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        """Declare the variables and get the raw value: registers and `resolve`."""

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        """Make what the filters compare; return whether this wrote the item."""

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        """Return a C condition that is true where ``one`` of the argument's filters matches."""

    def write(self, arg: Arg, out: Lines) -> None:
        """Append the item to the record."""


def fetch_address(arg: Arg, frame: Frame, out: Lines) -> None:
    """Declare the raw value of an argument: a pointer, or through `resolve` an object's address."""
    out.add(f"u64 {arg.name} = {expression(arg.planned.source, frame)};")
    if arg.planned.resolved is not None:
        follow(arg, arg.planned.resolved, out)


def follow(arg: Arg, way: Resolved, out: Lines) -> None:
    """Follow the pointers of `resolve`, then read the value, or leave the object's address."""
    name, user = arg.name, "true" if way.user else "false"
    path = ".".join(map(str, arg.planned.argument.resolve))
    out.comment(f"{arg.what}.resolve: {path}")
    out.add(f"u32 {arg.failed} = 0; /* depth at which a pointer could not be read, plus 1 */")
    out.add(f"{name} += {way.offsets[0]};")
    for depth, offset in enumerate(way.offsets[1:], 1):
        out.add(
            f"if (!{arg.failed} && !follow(&{name}, {offset}, {user}))",
            f"\t{arg.failed} = {depth};",
        )
    if way.size:
        letter = "s" if way.signed else "u"
        read = "bpf_probe_read_user" if way.user else "bpf_probe_read_kernel"
        out.add(
            f"{letter}{8 * way.size} {name}_value = 0;",
            f"if (!{arg.failed} && {read}(&{name}_value, {way.size}, (void *){name}))",
            f"\t{arg.failed} = {len(way.offsets)};",
            f"{name} = {name}_value;",
        )
    out.add(f"{arg.failed} = any_number({arg.failed});")


def write_guarded(arg: Arg, call: str, out: Lines) -> None:
    """Append the statement that writes the item, or the error item if `resolve` failed."""
    if not arg.can_fail:
        out.add(call)
        return
    out.add(
        f"if ({arg.failed})",
        f"\twrite_error(s, {arg.number}, {arg.position}, ERROR_RESOLVE, {arg.failed} - 1);",
        "else",
        f"\t{call}",
    )


def field_of(arg: Arg) -> RecordField | None:
    """Return the tracepoint field that the argument is, if it is one."""
    source = arg.planned.source
    return source if isinstance(source, RecordField) else None
