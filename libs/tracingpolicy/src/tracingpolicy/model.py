"""The typed form of a tracing policy: what `tracingpolicy.parse` returns.

Every default is filled in and every value is converted. Positions do not take part in comparisons:
two documents that mean the same give equal policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from tracingpolicy.actions import ActionKind
from tracingpolicy.position import Place
from tracingpolicy.selectors import LabelSelector, Selector
from tracingpolicy.types import ArgumentType
from tracingpolicy.values import DataSource, ListType, Mode, OverrideMethod

ORIGINAL_API = "cilium.io/v1alpha1"
OWN_API = "tetra.io/v1"


class PolicyKind(Enum):
    """Whether a policy is for everything or for the pods of one namespace."""

    TRACING_POLICY = "TracingPolicy"
    NAMESPACED = "TracingPolicyNamespaced"


class HookKind(Enum):
    """A section of hooks, under its name in documents."""

    KPROBE = "kprobes"
    FENTRY = "fentries"
    TRACEPOINT = "tracepoints"
    UPROBE = "uprobes"
    USDT = "usdts"
    LSM = "lsmhooks"
    LOADER = "loader"


# A member name, or the index of an array or pointer.
ResolveStep = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An element of ``args`` or ``data``, or ``returnArg``."""

    index: int
    type: ArgumentType
    size_arg_index: int = 0  # 1-based position of the length in the function; 0: none
    return_copy: bool = False
    max_data: bool = False
    label: str = ""
    resolve: tuple[ResolveStep, ...] = ()  # for pt_regs the register's name
    source: DataSource | None = None  # in ``data`` only
    btf_type: str = ""
    btf_type_module: str = ""
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What all kinds of hooks have; ``index`` is the position in the document's section."""

    index: int = 0
    args: tuple[Argument, ...] = ()
    data: tuple[Argument, ...] = ()
    message: bytes = b""  # as written, cut to 256 bytes; the event has it quoted
    tags: tuple[bytes, ...] = ()  # each cut to 128 bytes
    selectors: tuple[Selector, ...] = ()  # none: every call matches and is reported
    place: Place = field(default=Place(), compare=False)

    @property
    def kind(self) -> HookKind:
        return _KINDS[type(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kprobe(Hook):
    """A kernel function or system call; ``call`` is a name or ``list:NAME``."""

    call: str
    syscall: bool = True
    returns: bool = False
    return_arg: Argument | None = None
    return_arg_action: ActionKind | None = None  # TRACK_SOCK or UNTRACK_SOCK
    ignore_call_not_found: bool = False

    @property
    def list_name(self) -> str:
        """Return the list that ``call`` names, "" for a function."""
        return self.call.removeprefix("list:") if self.call.startswith("list:") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fentry(Kprobe):
    """The same in section ``fentries``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracepoint(Hook):
    """A tracepoint; raw ones have the arguments of TP_PROTO, others the fields of the format."""

    subsystem: str
    event: str
    raw: bool = False
    sample_frequent: bool = False  # of raw_syscalls/sys_enter: ordinary calls may be missed


@dataclass(frozen=True, slots=True)
class Symbol:
    """``name+offset`` of a program, with the text as written for the event."""

    name: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Digest:
    """What a program's file must be: sha1, sha256, sha384, sha512 or build-id."""

    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Uprobe(Hook):
    """Places in a program: exactly one of symbols, offsets and addresses is not empty."""

    path: str
    symbols: tuple[Symbol, ...] = ()
    offsets: tuple[int, ...] = ()
    addresses: tuple[int, ...] = ()
    ref_ctr_offsets: tuple[int, ...] = ()
    returns: bool = False
    return_arg: Argument | None = None
    btf_path: str = ""
    digests: tuple[Digest, ...] = ()
    ignore_digest_failure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usdt(Hook):
    """A statically defined probe of a program."""

    path: str
    provider: str
    name: str
    btf_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lsm(Hook):
    """An LSM hook, without prefix."""

    hook: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader(Hook):
    """``loader: true``: files that processes map to execute them."""


_KINDS: dict[type, HookKind] = {
    Kprobe: HookKind.KPROBE,
    Fentry: HookKind.FENTRY,
    Tracepoint: HookKind.TRACEPOINT,
    Uprobe: HookKind.UPROBE,
    Usdt: HookKind.USDT,
    Lsm: HookKind.LSM,
    Loader: HookKind.LOADER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolList:
    """An element of ``lists``."""

    name: str
    type: ListType = ListType.FUNCTIONS
    values: tuple[str, ...] = ()
    pattern: str = ""
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcer:
    """An element of ``enforcers``: functions and lists on which a notified thread is stopped."""

    calls: tuple[str, ...]
    place: Place = field(default=Place(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``options`` with the last value of each name."""

    disable_kprobe_multi: bool = False
    disable_uprobe_multi: bool = False
    override_method: OverrideMethod | None = None
    mode: Mode | None = None
    sleepable_preload_size: int | None = None
    ignored: tuple[str, ...] = ()  # names that no option has


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole document; macros are expanded into the selectors that name them."""

    name: str
    kind: PolicyKind = PolicyKind.TRACING_POLICY
    api_version: str = ORIGINAL_API
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    kprobes: tuple[Kprobe, ...] = ()
    fentries: tuple[Fentry, ...] = ()
    tracepoints: tuple[Tracepoint, ...] = ()
    uprobes: tuple[Uprobe, ...] = ()
    usdts: tuple[Usdt, ...] = ()
    lsmhooks: tuple[Lsm, ...] = ()
    loader: bool = False
    pod_selector: LabelSelector | None = None
    container_selector: LabelSelector | None = None
    host_selector: bool = False  # {} in the document; null is False
    node_selector: LabelSelector | None = None
    lists: tuple[SymbolList, ...] = ()
    enforcers: tuple[Enforcer, ...] = ()
    options: Options = Options()
    # Each a policy with the hooks above and its own; the first that this kernel can load counts.
    variants: tuple[Policy, ...] = ()
    doubts: tuple[str, ...] = field(default=(), compare=False)  # of single keys, with their paths
    file: str = field(default="", compare=False)
    place: Place = field(default=Place(), compare=False)
    # SHA-256 of the text that all of this is read from; empty where something was replaced.
    digest: bytes = field(default=b"", init=False, compare=False, repr=False)

    def hooks(self) -> Iterator[Hook]:
        """Return all hooks, section by section."""
        yield from self.kprobes
        yield from self.fentries
        yield from self.tracepoints
        yield from self.uprobes
        yield from self.usdts
        yield from self.lsmhooks
        if self.loader:
            yield Loader(place=Place(self.place.of("spec", "loader")))

    def notices(self) -> list[str]:
        """Return warnings: what is allowed, but probably not intended."""
        found = [f'option "{name}" is unknown and has no effect' for name in self.options.ignored]
        if self.api_version not in (ORIGINAL_API, OWN_API):
            found.append(f"apiVersion {self.api_version} is unknown, and read as {ORIGINAL_API}")
        if not self.variants and next(self.hooks(), None) is None:
            found.append("it has no hooks, and reports nothing")
        return [*found, *self.doubts]

    def list_named(self, name: str) -> SymbolList | None:
        """Return the list of that name, without its ``list:`` prefix."""
        return next((one for one in self.lists if one.name == name), None)
