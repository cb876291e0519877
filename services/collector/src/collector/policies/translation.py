"""What translating a policy gives, apart from what translates: a kept policy needs only this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from collector.policies.counters import Counters
from collector.policies.groups import Group
from collector.policies.images import BinaryList
from collector.policies.maps import OwnMap
from collector.policies.plan import Mechanism, OverrideBy, Target


@dataclass(frozen=True, slots=True)
class Generated:
    """A function of the text, and what it is attached to.

    ``hooks`` are indexes of hooks in the record, one for each target. Where ``by_cookie``, one
    program serves all targets and the index is the attach cookie; else each target has a program
    with its own number.
    """

    function: str
    mechanism: Mechanism
    targets: tuple[Target, ...]
    hooks: tuple[int, ...]
    by_cookie: bool = False
    sleepable: bool = False
    gate: OverrideBy | None = None  # what has to stand behind it at each target
    every_syscall: bool = False  # a level of the dispatcher at all system calls


class DirectReads(NamedTuple):
    """What plain loads of kernel memory need, by numbers in the kernel's BTF."""

    function: int  # bpf_rdonly_cast
    type: int  # of what an address is cast to

    def definitions(self) -> str:
        """Return them as C, for bpf/tracing/program.h."""
        return f"#define CAST_FUNCTION {self.function}\n#define CAST_TYPE {self.type}\n"


class Text(NamedTuple):
    """C that is compiled on its own."""

    text: str
    functions: tuple[str, ...]
    maps: tuple[str, ...]  # names in the order of their numbers


@dataclass(frozen=True, slots=True)
class Translation:
    """The C text of a policy."""

    text: str  # what the compiler gets
    shown: str  # without the headers: what a user reads
    programs: tuple[Generated, ...]
    maps: tuple[str, ...]  # names in the order of their numbers, the shared ones first
    own: tuple[OwnMap, ...]
    counters: Counters
    lists: tuple[BinaryList, ...]
    groups: tuple[Group, ...]
    images: Text | None  # the programs of images.h, where the policy needs them
    acting: bool  # it uses the maps of `enforcement.Enforcement`
    selectors: tuple[int, ...]  # of each planned hook: the number of its first selector
    direct: DirectReads | None = None  # of the kernel that it is for

    @property
    def texts(self) -> tuple[Text, ...]:
        """What has to be compiled."""
        own = Text(self.text, tuple(one.function for one in self.programs), self.maps)
        return (own, self.images) if self.images is not None else (own,)

    def without_texts(self) -> Translation:
        """Return what is needed when everything is compiled."""
        images = self.images._replace(text="") if self.images is not None else None
        return replace(self, text="", shown="", images=images)
