"""Checks a document against this kernel: all its mistakes, or its plan.

`tracingpolicy` finds mistakes in the document alone; here the kernel's types, functions,
tracepoints and the supported mechanisms are added. All mistakes are reported together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from collector.bpf.btf import Btf, BtfKind, FuncProto
from collector.bpf.features import Features
from collector.bpf.programs import Kind
from collector.errors import BtfError
from collector.policies.acting_features import ActingFeatures, Anything, KernelActions
from collector.policies.host import may_misread_code
from collector.policies.plan import Mechanism
from collector.policies.syscalls import SyscallTable
from tracingpolicy.model import Hook, Loader, Policy
from tracingpolicy.position import Place
from tracingpolicy.reading.report import Report

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
KALLSYMS = Path("/proc/kallsyms")
_KINDS = {
    Mechanism.SYS_ENTER: Kind.RAW_TRACEPOINT,
    Mechanism.SYS_EXIT: Kind.RAW_TRACEPOINT,
    Mechanism.CALL_FUNCTIONS: Kind.KPROBE_MULTI,
}

WhyNot = Callable[[Mechanism, bool], str]
WhyNotArguments = Callable[[int, tuple[int, ...]], str]


def why_not(features: Features) -> WhyNot:
    """Return the function that says why a mechanism does not work here; "" if it does."""

    def ask(mechanism: Mechanism, sleepable: bool) -> str:
        kind = _KINDS.get(mechanism) or Kind(mechanism.value)
        return features.why_not(kind, sleepable=sleepable)

    return ask


@dataclass(frozen=True, slots=True)
class Function:
    """A function that programs can be attached to, with the types that describe it."""

    name: str
    proto: FuncProto
    btf: Btf
    module: str = ""


@dataclass(slots=True)
class Host:
    """The kernel and the machine as plans depend on them."""

    btf: Btf
    why_not: WhyNot
    machine: str = field(default_factory=lambda: os.uname().machine)
    tracefs_places: tuple[Path, ...] = TRACEFS
    kallsyms: Path = KALLSYMS
    module_btf: Path = Path("/sys/kernel/btf")
    modules: Path = Path("/proc/modules")
    misreads_code: bool = field(default_factory=may_misread_code)
    acting: ActingFeatures = field(default_factory=Anything)
    why_not_arguments: WhyNotArguments = lambda _function, _positions: ""
    request_hosts: frozenset[str] | None = None  # of GetUrl and DnsLookup; None: not checked
    syscalls: SyscallTable = field(init=False)
    tracefs: Path | None = field(init=False)  # None: not mounted
    _modules: dict[str, Btf] = field(default_factory=dict)
    _names: frozenset[str] | None = None
    _symbols: bytes | None = None
    _modules_read: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        self.syscalls = SyscallTable.of(self.machine)
        # os.path: without rights the folder of tracefs cannot be entered, and counts as absent.
        mounted = (one for one in self.tracefs_places if os.path.isdir(one / "events"))
        self.tracefs = next(mounted, None)

    @classmethod
    def of(cls, features: Features) -> Host:
        """Return the running host."""
        return cls(
            features.btf, why_not(features), acting=KernelActions(features),
            why_not_arguments=features.why_not_arguments,
        )  # fmt: skip

    def without_trampolines(self) -> Host:
        """Return the host as if fentry and fexit did not work here."""

        def ask(mechanism: Mechanism, sleepable: bool) -> str:
            if mechanism in (Mechanism.FENTRY, Mechanism.FEXIT):
                return "refused by the kernel for a function of the policy"
            return self.why_not(mechanism, sleepable)

        return replace(self, why_not=ask)

    @property
    def functions(self) -> frozenset[str]:
        """Return the names of all functions in the kernel's BTF."""
        if self._names is None:
            self._names = frozenset(self.btf.names(BtfKind.FUNC))
        return self._names

    def has_function(self, name: str) -> bool:
        """Return whether the kernel's BTF has a function; cheap for a few names."""
        if self._names is not None:
            return name in self._names
        return self.btf.find_func(name) is not None

    def function(self, name: str) -> Function | None:
        """Return a function of the kernel or of a loaded module; None if there is none."""
        number = self.btf.find_func(name)
        if number is not None:
            return Function(name, self.btf.func_proto(number), self.btf)
        module = self.module_of(name)
        if not module:
            return None
        try:
            types = self.module(module)
            return Function(name, types.func_proto(name), types, module)
        except BtfError:
            return None

    def module(self, name: str) -> Btf:
        """Return the types of a loaded module; raise `BtfError`."""
        if name not in self._modules:
            self._modules[name] = Btf.module(name, self.btf, self.module_btf)
        return self._modules[name]

    def nearest_functions(self, name: str) -> tuple[str, ...]:
        """Return functions with names like this one."""
        return self.btf.nearest_names(name, BtfKind.FUNC)

    def module_of(self, name: str) -> str:
        """Return the module that has a function, from a line "ADDRESS t NAME\\t[MODULE]"."""
        symbols = self._kernel_symbols()
        at = symbols.find(f" {name}\t[".encode())
        if at < 0:
            return ""
        start = symbols.index(b"[", at) + 1
        return symbols[start : symbols.index(b"]", start)].decode(errors="replace")

    def _kernel_symbols(self) -> bytes:
        """Return kallsyms, read again when a module has come or gone, as its types are."""
        modules = frozenset(line.split()[0] for line in _read(self.modules).splitlines())
        if self._symbols is None or modules != self._modules_read:
            self._symbols, self._modules_read = _read(self.kallsyms), modules
            self._modules.clear()
        return self._symbols


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@dataclass(slots=True)
class Checker:
    """One policy while it is planned: collects mistakes, and answers questions of its hooks."""

    host: Host
    policy: Policy
    report: Report
    sound: bool  # the document alone has no mistakes, so positions of operands are right
    doubts: dict[str, None] = field(default_factory=dict)  # what is hardly meant, in order

    def fail(
        self, place: Place, path: str, message: str, allowed: str = "", *key: str | int
    ) -> None:
        """Note a mistake at the value of a key."""
        shown = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in key)
        self.report.add(place.of(*key), f"{path}{shown}: {message}", allowed)

    def doubt(self, path: str, message: str) -> None:
        """Note what is no mistake, and hardly what the author meant."""
        self.doubts[f"{path}: {message}"] = None

    def choose(
        self,
        hook: Hook,
        pairs: list[tuple[Mechanism, Mechanism | None]],
        what: str,
        sleepable: bool = False,
        refused: Mapping[Mechanism, str] = MappingProxyType({}),
    ) -> tuple[Mechanism, Mechanism | None, str] | None:
        """Return the first pair that works here, and why not the ones before it.

        ``refused``: why mechanisms do not work for this hook. None after a mistake: no pair works.
        """
        reasons: list[str] = []
        for entry, leave in pairs:
            why = self.host.why_not(entry, sleepable) or refused.get(entry, "")
            if not why and leave is not None:
                why = self.host.why_not(leave, False)
            if not why:
                return entry, leave, "; ".join(reasons)
            reasons.append(f"{entry.value}: {why}")
        message = f"{what} cannot be hooked here: {'; '.join(reasons) or 'no mechanism'}"
        self.fail(hook.place, path_of(hook), message)
        return None


def path_of(hook: Hook) -> str:
    """Return where a hook stands in the document."""
    name = f"spec.{hook.kind.value}"
    return name if isinstance(hook, Loader) else f"{name}[{hook.index}]"
