"""From a translated and compiled policy to programs in the kernel, attached but switched off.

`SharedMaps` owns the maps that all policies use; `Installed` owns one revision's programs, maps and
links. A policy is installed while its mode word is off; `SharedMaps.set_mode` switches all of its
hooks with one store. Attaching and closing block: up to 130 ms a hook, so never in the event loop.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path

from collector.bpf import links, maps, programs
from collector.bpf.bytecode import ProgramCode, ProgramPlan, relocate, relocations
from collector.bpf.links import Link, Uprobe
from collector.bpf.maps import BpfMap
from collector.bpf.mmap_events import MmapEvents
from collector.bpf.module_btf import open_module
from collector.bpf.programs import BOUND_BY_BTF, Kind, Program, ProgramSpec
from collector.errors import ProbeError, VerifierError
from collector.policies.dispatch import Dispatcher
from collector.policies.enforcement import Enforcement
from collector.policies.frequent import FrequentCalls
from collector.policies.groups import Group, Groups
from collector.policies.images import BinaryList, Images
from collector.policies.maps import (
    CALLS,
    CGROUPS,
    LOSS_COUNTS,
    LOSS_REASONS,
    LOST,
    MODES,
    POLICIES_MAX,
    SYSCALL_LEVELS_MAP,
    SYSCALLS_ENTER,
    SYSCALLS_EXIT,
    THROTTLES,
    late_specs,
    shared_specs,
    throttle_specs,
)
from collector.policies.numbers import GROUP, LIST, Number, bind
from collector.policies.plan import Mechanism, Target
from collector.policies.scope import Scope, WatchedContainers
from collector.policies.translation import Generated, Translation

KINDS: Mapping[Mechanism, Kind] = {
    Mechanism.FENTRY: Kind.FENTRY,
    Mechanism.FEXIT: Kind.FEXIT,
    Mechanism.FMOD_RET: Kind.FMOD_RET,
    Mechanism.LSM: Kind.LSM,
    Mechanism.KPROBE: Kind.KPROBE,
    Mechanism.KRETPROBE: Kind.KRETPROBE,
    Mechanism.KPROBE_MULTI: Kind.KPROBE_MULTI,
    Mechanism.KRETPROBE_MULTI: Kind.KRETPROBE_MULTI,
    Mechanism.SYS_ENTER: Kind.TAIL_CALL,
    Mechanism.SYS_EXIT: Kind.TAIL_CALL,
    Mechanism.CALL_FUNCTIONS: Kind.KPROBE_MULTI,
    Mechanism.RAW_TRACEPOINT: Kind.RAW_TRACEPOINT,
    Mechanism.TP_BTF: Kind.TP_BTF,
    Mechanism.TRACEPOINT: Kind.TRACEPOINT,
    Mechanism.UPROBE: Kind.UPROBE,
    Mechanism.URETPROBE: Kind.URETPROBE,
    Mechanism.UPROBE_MULTI: Kind.UPROBE_MULTI,
    Mechanism.URETPROBE_MULTI: Kind.URETPROBE_MULTI,
}
_UPROBES = (
    Mechanism.UPROBE, Mechanism.URETPROBE, Mechanism.UPROBE_MULTI, Mechanism.URETPROBE_MULTI
)  # fmt: skip
_RETURNS = (
    Mechanism.FEXIT, Mechanism.KRETPROBE, Mechanism.KRETPROBE_MULTI, Mechanism.SYS_EXIT,
    Mechanism.URETPROBE, Mechanism.URETPROBE_MULTI,
)  # fmt: skip


class ModeWord(IntEnum):
    """``enum policy_mode`` of bpf/tracing/maps.h."""

    OFF = 0
    MONITOR = 1
    ENFORCE = 2


@dataclass(slots=True)
class SharedMaps:
    """Owns the maps of all policies; those of the base programs belong to their owner."""

    fds: dict[str, int]
    dispatcher: Dispatcher
    images: Images
    groups: Groups
    _own: dict[str, BpfMap]
    _modes: memoryview
    _lock: threading.Lock = field(default_factory=threading.Lock)  # policies come in threads
    mmap_events: MmapEvents = field(default_factory=MmapEvents)
    _scope: Scope | None = None
    enforcement: Enforcement = field(default_factory=Enforcement)
    _acting: dict[int, Installed] = field(default_factory=dict)  # by slot
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def create(
        cls,
        events: int,
        processes: int,
        procfs: Path = Path("/proc"),
        containers: WatchedContainers | None = None,
        enforcement: Enforcement | None = None,
        *,
        throttled: bool = False,
    ) -> SharedMaps:
        """Create them; raise `ProbeError`. Without ``containers`` no filter selects one.

        ``throttled``: events are withheld above a rate.
        """
        specs = (*shared_specs(), *(throttle_specs() if throttled else ()))
        own = {spec.name: maps.create(spec) for spec in specs}
        fds = {"events": events, "processes": processes}
        fds |= {name: one.fd for name, one in own.items()}
        levels = own[SYSCALL_LEVELS_MAP]
        dispatcher = Dispatcher(
            own[SYSCALLS_ENTER], own[SYSCALLS_EXIT], levels, memoryview(levels.mapped())
        )
        modes = memoryview(own[MODES].mapped())[: 4 * POLICIES_MAX].cast("I")
        groups = Groups()
        scope = Scope(groups, own[CGROUPS], containers, procfs) if containers else None
        if scope is not None:
            groups.changed = scope.update
        return cls(
            fds, dispatcher, Images(procfs), groups, own, modes, _scope=scope,
            enforcement=enforcement or Enforcement(),
        )  # fmt: skip

    def provide(self, names: Collection[str]) -> None:
        """Create those of the maps named that no policy has needed before; raise `ProbeError`."""
        with self._lock:
            for spec in late_specs():
                if spec.name in names and spec.name not in self.fds:
                    self._own[spec.name] = made = maps.create(spec)
                    self.fds[spec.name] = made.fd

    def set_mode(self, slot: int, mode: ModeWord) -> None:
        """Switch every hook of a loaded revision."""
        self.enforcement.reset_signals(slot)
        self._modes[slot] = mode

    def mode(self, slot: int) -> ModeWord:
        """Return the mode of a loaded revision."""
        return ModeWord(self._modes[slot])

    def keep(self, slot: int, installed: Installed | None) -> None:
        """Note a policy that acts, or that it goes, for what outlives the collector."""
        # A descriptor that another thread closed meanwhile would name some other file.
        with self._keeping, self.dispatcher.lock, self.enforcement.gates.lock:
            if installed is not None:
                self._acting[slot] = installed
            else:
                self._acting.pop(slot, None)
            if self.enforcement.kept is not None:
                self.enforcement.kept.keep(self._to_keep())

    def _to_keep(self) -> dict[str, int]:
        """Return the descriptors that policies that act need, by a name for each."""
        acting = self._acting
        found = {
            f"policy-{slot}-{number}": link.fd
            for slot, one in acting.items()
            for number, link in enumerate(one.links)
            if not link.by_ioctl
        }
        if any(one.jumps or one.everywhere for one in acting.values()):
            found |= self.dispatcher.kept()
        if any(one.lists is not None for one in acting.values()):
            found |= self.images.kept()
        return found | self.enforcement.gates.links

    def rates(self) -> BpfMap | None:
        """Return the rates by cgroup and policy; None where no events are withheld."""
        return self._own.get(THROTTLES)

    def lost(self, slot: int) -> dict[str, int]:
        """Return how many records a loaded revision lost, by reason."""
        counts = memoryview(self._own[LOST].lookup(slot.to_bytes(4, "little")) or b"").cast("Q")
        return {
            reason: sum(counts[number::LOSS_COUNTS]) for number, reason in enumerate(LOSS_REASONS)
        }

    def close(self) -> None:
        """Close the maps and the dispatcher's programs."""
        self.dispatcher.close()
        self.images.close()
        if self._scope is not None:
            self._scope.close()
        self.enforcement.close()
        for one in self._own.values():
            one.close()


@dataclass(slots=True)
class Installed:
    """Owns the programs, maps and links of one revision of a policy."""

    maps: dict[str, BpfMap] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    lists: tuple[BinaryList, ...] | None = None  # None: the policy needs no images
    groups: tuple[Group, ...] = ()
    jumps: list[tuple[bool, int, int]] = field(default_factory=list)  # at return, number, level
    everywhere: list[int] = field(default_factory=list)  # levels at every system call's entry
    gates: list[tuple[Kind, int]] = field(default_factory=list)
    frequent: list[FrequentCalls] = field(default_factory=list)
    _dispatcher: Dispatcher | None = None
    _images: Images | None = None
    _groups: Groups | None = None
    _mmap_events: MmapEvents | None = None
    _enforcement: Enforcement | None = None

    def close(self) -> None:
        """Detach, then close programs and maps; the policy must be off."""
        for at_return, number, level in self.jumps:
            assert self._dispatcher is not None
            self._dispatcher.remove(number, level, at_return=at_return)
        for level in self.everywhere:
            assert self._dispatcher is not None
            self._dispatcher.remove_everywhere(level)
        for calls in self.frequent:
            calls.close()
        self.frequent = []
        for link in self.links:
            link.close()
        for gate in self.gates:  # behind the programs that leave verdicts
            assert self._enforcement is not None
            self._enforcement.gates.release(*gate)
        self.gates = []
        for program in self.programs:
            program.close()
        for one in self.maps.values():
            one.close()
        self.links, self.programs, self.maps, self.jumps, self.everywhere = [], [], {}, [], []
        if self._images is not None and self.lists is not None:
            self._images.release(self.lists)
            self.lists = None
        if self._groups is not None:
            self._groups.release(self.groups)
            self._groups = None


# Yield a program that has to be loaded, and get it back.
_Steps = Generator[ProgramSpec, Program, None]
InstallSteps = Generator[ProgramSpec, Program, Installed]


def install_together(
    all_steps: Sequence[InstallSteps], images: Images
) -> list[Installed | Exception]:
    """Install revisions, loading programs of all of them at a time; one that fails has an error.

    Processes that run are looked at meanwhile. Raises what is no error of one revision: then
    nothing of any is left.
    """
    found: dict[int, Installed | Exception] = {}
    wanted: dict[int, ProgramSpec] = {}

    def advance(number: int, got: Program | VerifierError | None) -> None:
        steps = all_steps[number]
        try:
            if isinstance(got, VerifierError):
                wanted[number] = steps.throw(got)
            else:
                wanted[number] = next(steps) if got is None else steps.send(got)
        except StopIteration as end:
            found[number] = end.value
            undo.callback(end.value.close)
        except Exception as error:
            found[number] = error

    with contextlib.ExitStack() as undo:
        for steps in all_steps:
            undo.callback(steps.close)
        for number in range(len(all_steps)):
            advance(number, None)
        while wanted:
            numbers, specs = [*wanted], [*wanted.values()]
            wanted.clear()
            for number, got in zip(
                numbers, programs.load_all(specs, partial(_enter_running, images)), strict=True
            ):
                advance(number, got)
        undo.pop_all()
    return [found[number] for number in range(len(all_steps))]


def _enter_running(images: Images) -> None:
    with contextlib.suppress(OSError, ProbeError):  # each revision tries it again
        images.enter_running()


def install_steps(
    translation: Translation,
    codes: Mapping[str, bytes],
    shared: SharedMaps,
    *,
    slot: int,
    policy: int,
    revision: int,
) -> InstallSteps:
    """Create maps, attach what is loaded; an error leaves nothing of it."""
    shared.dispatcher.direct = translation.direct
    installed = Installed(
        _dispatcher=shared.dispatcher,
        _mmap_events=shared.mmap_events,
        _enforcement=shared.enforcement,
    )
    numbers: dict[int, int] = {
        Number.SLOT: slot, Number.POLICY: policy, Number.REVISION: revision,
        Number.SIGNALS_MAX: shared.enforcement.signals_max,
    }  # fmt: skip
    try:
        for own in translation.own:
            installed.maps[own.spec.name] = created = maps.create(own.spec)
            created.update_batch(own.items)
        shared.provide(translation.maps)
        fds = shared.fds | {name: one.fd for name, one in installed.maps.items()}
        masks = shared.groups.acquire(translation.groups)
        installed.groups, installed._groups = translation.groups, shared.groups
        numbers |= {GROUP + n: mask for n, mask in enumerate(masks)}
        if translation.images is not None:
            masks = shared.images.acquire(
                translation.lists, codes, translation.images.maps, shared.fds
            )
            installed.lists, installed._images = translation.lists, shared.images
            numbers |= {LIST + n: mask for n, mask in enumerate(masks)}
            fds |= {name: one.fd for name, one in shared.images.maps.items()}
        if translation.acting:
            shared.enforcement.start()
            fds |= {name: one.fd for name, one in shared.enforcement.maps.items()}
            _attach_gates(translation, shared.enforcement, installed)
        numbered = [fds[name] for name in translation.maps]
        for one in sorted(translation.programs, key=_order):
            yield from _install_function(one, _relocated(one, codes, numbered), numbers, installed)
        if translation.images is not None:
            shared.images.enter_running()
    except BaseException:
        installed.close()
        raise
    return installed


def _order(one: Generated) -> int:
    """Returns first: an entry whose return is not hooked would wait for it.

    Enforcers before hooks: of several programs at a function's entry the newest runs first
    (hlist_add_head() in kernel/bpf/trampoline.c), and a notification comes before its enforcer.
    """
    if one.mechanism in _RETURNS:
        return 0
    return 1 if one.function.startswith("enforcer") else 2


def _attach_gates(translation: Translation, enforcement: Enforcement, installed: Installed) -> None:
    for one in translation.programs:
        if one.gate is None:
            continue
        kind = Kind(one.gate.value)
        for target in one.targets:
            enforcement.gates.acquire(kind, target.btf_id, target.attach, enforcement.verdicts)
            installed.gates.append((kind, target.btf_id))


def _relocated(one: Generated, codes: Mapping[str, bytes], fds: list[int]) -> bytes:
    code = codes[one.function]
    plan = ProgramPlan(one.function, KINDS[one.mechanism])
    return relocate(ProgramCode(plan, code, relocations(code, len(fds))), fds)


def _install_function(
    one: Generated, code: bytes, numbers: dict[int, int], installed: Installed
) -> _Steps:
    if one.by_cookie:
        values = numbers | {Number.HOOK: 0, Number.FUNCTION: one.targets[0].btf_id}
        yield from _install_multi(one, bind(code, values), installed)
        return
    if one.mechanism in (Mechanism.SYS_ENTER, Mechanism.SYS_EXIT):
        yield from _install_jumps(one, code, numbers, installed)
        return
    if one.every_syscall:
        yield from _install_everywhere(one, code, numbers, installed)
        return
    for hook, target in zip(one.hooks, one.targets, strict=True):
        values = numbers | {Number.HOOK: hook, Number.FUNCTION: target.btf_id}
        program = yield from _load(one, bind(code, values), target, installed)
        if one.mechanism is Mechanism.CALL_FUNCTIONS:
            calls = FrequentCalls(
                program, target.functions, target.calls, installed.maps[CALLS].mapped()
            )
            calls.start()
            installed.frequent.append(calls)
        elif one.mechanism in _UPROBES:
            installed.links.append(links.attach_uprobe(program, _place(target)))
        else:
            installed.links.append(links.attach(program, _attach_name(one, target)))
        if target.mmap_events:
            assert installed._mmap_events is not None
            installed.links.append(installed._mmap_events.acquire())


def _install_jumps(
    one: Generated, code: bytes, numbers: dict[int, int], installed: Installed
) -> _Steps:
    dispatcher, at_return = installed._dispatcher, one.mechanism is Mechanism.SYS_EXIT
    assert dispatcher is not None
    for hook, target in zip(one.hooks, one.targets, strict=True):
        assert target.syscall is not None
        number = target.syscall.number
        level = dispatcher.take_level(number, at_return=at_return)
        installed.jumps.append((at_return, number, level))
        values = numbers | {Number.HOOK: hook, Number.LEVEL: level}
        program = yield from _load(one, bind(code, values), target, installed)
        dispatcher.add(number, level, program.fd, at_return=at_return)


def _install_everywhere(
    one: Generated, code: bytes, numbers: dict[int, int], installed: Installed
) -> _Steps:
    dispatcher = installed._dispatcher
    assert dispatcher is not None
    for hook, target in zip(one.hooks, one.targets, strict=True):
        level = dispatcher.take_level_everywhere()
        installed.everywhere.append(level)
        values = numbers | {
            Number.HOOK: hook, Number.FUNCTION: target.btf_id, Number.LEVEL: level
        }  # fmt: skip
        program = yield from _load(one, bind(code, values), target, installed)
        dispatcher.add_everywhere(level, program.fd)


def _install_multi(one: Generated, code: bytes, installed: Installed) -> _Steps:
    program = yield from _load(one, code, one.targets[0], installed)
    if one.mechanism in _UPROBES:
        places = [_place(target) for target in one.targets]
        installed.links.append(links.attach_uprobes(program, places, one.hooks))
    else:
        names = [target.attach for target in one.targets]
        installed.links.append(links.attach_kprobes(program, names, one.hooks))


def _load(
    one: Generated, code: bytes, target: Target, installed: Installed
) -> Generator[ProgramSpec, Program, Program]:
    kind = Kind.TAIL_CALL if one.every_syscall else KINDS[one.mechanism]
    btf_fd = 0
    if kind not in BOUND_BY_BTF:
        spec = ProgramSpec(one.function, kind, code, sleepable=one.sleepable)
    else:
        btf_fd = open_module(target.module) if target.module else 0
        spec = ProgramSpec(one.function, kind, code, target.btf_id, btf_fd, one.sleepable)
    try:
        program = yield spec
    finally:
        if btf_fd:
            os.close(btf_fd)
    installed.programs.append(program)
    return program


def _place(target: Target) -> Uprobe:
    return Uprobe(Path(target.path), target.offset, target.ref_ctr_offset)


def _attach_name(one: Generated, target: Target) -> str:
    if one.mechanism is Mechanism.TRACEPOINT:
        return f"{target.subsystem}/{target.attach}"
    return target.attach
