"""Policies into this kernel: plan, translate, compile or take from the cache, load, attach.

Everything that blocks for long is elsewhere: the compiler in a child without rights, planning,
loading, attaching and detaching in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import structlog

from chassis.errors import ServiceError
from collector.bpf.bytecode import ProgramPlan
from collector.bpf.compiler import Source
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.objects import Built, Objects
from collector.bpf.objects import Plan as ObjectPlan
from collector.bpf.programs import Kind
from collector.errors import AttachError, CompileError, ProbeError, VerifierError
from collector.policies import counters
from collector.policies.install import (
    KINDS,
    Installed,
    InstallSteps,
    ModeWord,
    SharedMaps,
    install_steps,
    install_together,
)
from collector.policies.loaded import loaded_policy
from collector.policies.maps import (
    POLICIES_MAX,
    acting_specs,
    image_specs,
    late_specs,
    shared_specs,
    throttle_specs,
)
from collector.policies.plan import HookStatus, Plan
from collector.policies.planner import Planner
from collector.policies.ready import Ready, ReadyPolicies
from collector.policies.statistics import PolicyCounters, SelectorCounters
from collector.policies.table import LoadedPolicy
from collector.policies.translation import Translation
from tracingpolicy.model import Policy
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

_MODES = {None: ModeWord.OFF, Mode.MONITOR: ModeWord.MONITOR, Mode.ENFORCE: ModeWord.ENFORCE}
# Of maps that the base programs own: objects are keyed by names, so nothing else of them matters.
_BASE_MAPS = (
    MapSpec("events", MapType.RINGBUF, 0, 0, 4096),
    MapSpec("processes", MapType.HASH, 4, 8, 1),
)

_TRAMPOLINES = (Kind.FENTRY, Kind.FEXIT)
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_LIBC = ctypes.CDLL(None)
_GRACE_S = 0.05
_TOGETHER = 32  # texts that one child compiles: its start costs as much as two of them

log = structlog.get_logger()


class _Slots:
    """Places of mode words and losses; each loaded revision has its own."""

    def __init__(self) -> None:
        self._free = list(range(POLICIES_MAX - 1, -1, -1))
        self._used: set[int] = set()

    def take(self) -> int:
        if not self._free:
            raise ProbeError(f"policies: {POLICIES_MAX} are loaded already: remove some")
        return self._free.pop()

    def give(self, slot: int) -> None:
        self._used.add(slot)
        self._free.insert(0, slot)  # reused as late as possible

    def is_new(self, slot: int) -> bool:
        """Return whether no revision had this slot before."""
        return slot not in self._used


@dataclass(slots=True)
class KernelInstallation:
    """Owns one revision in the kernel; see `manager.Installation`."""

    loaded: LoadedPolicy
    statuses: tuple[HookStatus, ...]
    _plan: Plan
    _translation: Translation
    _installed: Installed
    _shared: SharedMaps
    _slot: int
    _slots: _Slots
    _lost_before: dict[str, int]  # of earlier revisions in this slot
    _counted: mmap.mmap | None = None
    _removed: bool = False
    _memory_bytes: int | None = None

    def switch(self, mode: Mode | None) -> None:
        """Set the mode of all hooks with one store."""
        self._shared.set_mode(self._slot, _MODES[mode])

    @property
    def mode(self) -> Mode | None:
        """The mode as the programs see it: a limit can have switched it to monitor."""
        return {word: mode for mode, word in _MODES.items()}[self._shared.mode(self._slot)]

    def counters(self) -> PolicyCounters:
        """Return what the programs counted."""
        runs = run_time_ns = missed = 0
        for program in self._installed.programs:
            info = program.info()
            runs += info.run_count
            run_time_ns += info.run_time_ns
            missed += info.recursion_misses
        if self._memory_bytes is None:  # reading it costs 0.1 ms
            self._memory_bytes = sum(map(_charged, _descriptors(self._installed)))
        return PolicyCounters(
            filtered=self._filtered(),
            selectors=self._selectors(),
            lost=self.lost(),
            missed=missed,
            runs=runs,
            run_time_ns=run_time_ns,
            memory_bytes=self._memory_bytes,
            sampled_calls=sum(len(one.sampled) for one in self._installed.frequent),
        )

    def lost(self) -> Counter[str]:
        """Return the lost records by reason."""
        lost = Counter(self._shared.lost(self._slot))
        lost.subtract(self._lost_before)
        return lost

    async def remove(self) -> None:
        """Detach and free everything, in a thread; the mode is off."""
        self._removed = True
        memory, self._counted = self._counted, None
        await asyncio.to_thread(self.close)
        if memory is not None:
            memory.close()
        self._slots.give(self._slot)

    def close(self) -> None:
        """Detach and free the programs; blocks."""
        _detach(self._installed, self._shared, self._slot, acting=self._translation.acting)

    def _memory(self) -> mmap.mmap | None:
        """Return what the programs count into, mapped when it is first read."""
        own = self._installed.maps.get(counters.NAME)
        if self._counted is None and own is not None and not self._removed:
            self._counted = own.mapped()
        return self._counted

    def _filtered(self) -> int:
        memory = self._memory()
        return self._translation.counters.filtered(memory) if memory else 0

    def _selectors(self) -> dict[tuple[int, int], SelectorCounters]:
        """Indexed like the document's hooks, each of which can have become several."""
        memory = self._memory()
        if memory is None:
            return {}
        hooks = enumerate(self._plan.policy.hooks())
        places = {(hook.kind, hook.index): place for place, hook in hooks}
        found: dict[tuple[int, int], SelectorCounters] = {}
        for planned, first in zip(self._plan.hooks, self._translation.selectors, strict=True):
            place = places[planned.hook.kind, planned.hook.index]
            for selector in range(max(1, len(planned.hook.selectors))):
                counts = self._translation.counters.of_selector(memory, first + selector)
                key = place, selector
                found[key] = found.get(key, SelectorCounters()) + counts
        return found


class _Waiting(NamedTuple):
    """A revision that waits to be installed."""

    ready: Ready
    slot: int
    number: int
    revision: int
    done: asyncio.Future[KernelInstallation]


@dataclass(slots=True)
class KernelBackend:
    """Installs policies; see `manager.Backend`."""

    planner: Planner
    shared: SharedMaps
    objects: Objects
    ready: ReadyPolicies
    _slots: _Slots = field(default_factory=_Slots)
    _prepared: dict[int, Ready] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _installing: asyncio.Task[None] | None = None
    _planning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prepare(self, policies: Sequence[Policy]) -> None:
        """Make policies ready, compiling as many at a time as there are CPUs."""
        self._prepared.clear()
        for policy, kept in await asyncio.to_thread(self._kept, policies):
            self._prepared[id(policy)] = kept
        missing = [policy for policy in policies if id(policy) not in self._prepared]
        if len(policies) == 1 or not missing:
            return  # `install` makes a single one ready
        translated: list[tuple[Policy, Plan, Translation]] = []
        for policy in missing:
            with contextlib.suppress(PolicyErrors, ServiceError):  # `install` reports it
                translated.append((policy, *await self.planner.translated(policy)))
        cpus = os.cpu_count() or 1
        size = min(_TOGETHER, -(-len(translated) // cpus))
        limit = asyncio.Semaphore(cpus)

        async def compile_part(part: list[tuple[Policy, Plan, Translation]]) -> None:
            async with limit:
                await self._compile_together(part)

        parts = (translated[n : n + size] for n in range(0, len(translated), size or 1))
        await asyncio.gather(*map(compile_part, parts))

    async def _compile_together(self, part: Sequence[tuple[Policy, Plan, Translation]]) -> None:
        """Compile policies in one child; `install` reports what cannot be compiled."""
        plans = [_object_plans(translation) for _, _, translation in part]
        built = iter(await self.objects.get_all([one for some in plans for one in some]))
        for (policy, plan, translation), some in zip(part, plans, strict=True):
            with contextlib.suppress(CompileError):
                codes = _codes([next(built) for _ in some])
                ready = self._prepared[id(policy)] = Ready(plan, translation, codes)
                await asyncio.to_thread(self.ready.write, policy, ready)

    async def settle(self) -> None:
        """Wait until no program runs that began before."""
        await asyncio.to_thread(_wait_for_grace_period)

    async def install(self, policy: Policy, number: int, revision: int) -> KernelInstallation:
        """Load and attach, switched off; raise `PolicyErrors` or `ServiceError`."""
        kept = self._prepared.pop(id(policy), None)
        if kept is None:
            kept = await asyncio.to_thread(self.ready.read, policy)
        if kept is not None:
            try:
                return await self._load(kept, number, revision)
            except ServiceError as error:
                # The conditions of the plan have changed: a right, or a setting of the kernel.
                log.info("planning again", policy=policy.name, reason=str(error))
        return await self._install_first_variant(policy, number, revision)

    async def _install_first_variant(
        self, policy: Policy, number: int, revision: int
    ) -> KernelInstallation:
        """Load the first variant that the kernel accepts: it can refuse a planned variant.

        Raises the error of the first one that was refused.
        """
        wanted, refused = policy, None
        while True:
            try:
                ready = await self._made_ready(wanted, policy)
            except (PolicyErrors, CompileError) as error:
                raise (refused or error) from None
            try:
                return await self._load_planned(wanted, policy, ready, number, revision)
            except (AttachError, VerifierError) as error:
                refused = refused or error
                left = wanted.variants[_variant(wanted, ready.plan) + 1 :]
                if not left:
                    raise refused from None
                log.warning("loading the next variant", policy=policy.name, reason=str(error))
                wanted = replace(wanted, variants=left)

    async def _load_planned(
        self, wanted: Policy, policy: Policy, ready: Ready, number: int, revision: int
    ) -> KernelInstallation:
        """Load; use kprobes for functions that cannot have a trampoline."""
        try:
            return await self._load(ready, number, revision)
        except (AttachError, VerifierError) as error:
            if error.kind not in _TRAMPOLINES:
                raise
            log.info("planning again by kprobes", policy=policy.name, reason=error.reason)
            try:
                ready = await self._made_ready(wanted, policy, by_kprobes=True)
                return await self._load(ready, number, revision)
            except (PolicyErrors, ServiceError):
                raise error from None

    async def _load(self, ready: Ready, number: int, revision: int) -> KernelInstallation:
        slot = self._slots.take()
        done: asyncio.Future[KernelInstallation] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(ready, slot, number, revision, done))
        if self._installing is None:
            self._installing = asyncio.create_task(self._install_waiting())
        try:
            return await done
        except BaseException:
            if done.cancelled():
                pass  # `_discard` gives the slot back when nothing uses it
            elif done.done() and done.exception() is None:  # cancelled after the installation
                await done.result().remove()
            else:
                self._slots.give(slot)
            raise

    async def _install_waiting(self) -> None:
        """Install all revisions that wait for it, together and in one thread, until none does."""
        some: list[_Waiting] = []
        try:
            while self._waiting:
                some, self._waiting = self._waiting, []
                await self._install_some(some)
        except BaseException as error:
            for one in (*some, *self._waiting):
                if not one.done.done():
                    one.done.set_exception(error)
            self._waiting = []
            raise
        finally:
            self._installing = None

    async def _install_some(self, some: Sequence[_Waiting]) -> None:
        results: Sequence[KernelInstallation | ServiceError]
        try:
            results = await asyncio.to_thread(self._install, some)
        except Exception as error:  # such as a thread that cannot be started
            results = [_failure(one, error) for one in some]
        for one, result in zip(some, results, strict=True):
            if one.done.cancelled():
                continue
            if isinstance(result, ServiceError):
                one.done.set_exception(result)
            else:
                one.done.set_result(result)
        for one, result in zip(some, results, strict=True):
            if one.done.cancelled():
                await self._discard(one, result)

    async def _discard(self, one: _Waiting, result: KernelInstallation | ServiceError) -> None:
        """Remove a revision whose load was cancelled meanwhile."""
        if isinstance(result, ServiceError):
            self._slots.give(one.slot)
            return
        try:
            await result.remove()
        except Exception:  # the slot stays in use
            log.exception("policy not detached", policy=one.ready.plan.policy.name)

    def _kept(self, policies: Sequence[Policy]) -> list[tuple[Policy, Ready]]:
        found = ((policy, self.ready.read(policy)) for policy in policies)
        return [(policy, kept) for policy, kept in found if kept is not None]

    async def _made_ready(
        self, wanted: Policy, policy: Policy, *, by_kprobes: bool = False
    ) -> Ready:
        """Plan, translate and compile ``wanted``, which may be ``policy`` with fewer variants.

        It is kept as what ``policy`` needs: what is made last is used first.
        """
        async with self._planning:  # one compiler at a time
            plan, translation = await self.planner.translated(wanted, by_kprobes=by_kprobes)
            built = await self.objects.get_all(_object_plans(translation))
        ready = Ready(plan, translation, _codes(built))
        await asyncio.to_thread(self.ready.write, policy, ready)
        return ready

    def _install(self, some: Sequence[_Waiting]) -> list[KernelInstallation | ServiceError]:
        if all(one.done.done() for one in some):
            # All were cancelled, or have failed: an executor runs later what it had no thread for.
            return [ProbeError("install: nothing waits for it")] * len(some)
        found = install_together([self._steps(one) for one in some], self.shared.images)
        return [self._finished(one, made) for one, made in zip(some, found, strict=True)]

    def _steps(self, one: _Waiting) -> InstallSteps:
        self.shared.set_mode(one.slot, ModeWord.OFF)
        _, translation, codes = one.ready
        return (
            yield from install_steps(
                translation, codes, self.shared,
                slot=one.slot, policy=one.number, revision=one.revision,
            )
        )  # fmt: skip

    def _finished(
        self, one: _Waiting, made: Installed | Exception
    ) -> KernelInstallation | ServiceError:
        if isinstance(made, Exception):
            return _failure(one, made)
        acting = one.ready.translation.acting
        try:
            if acting:
                self.shared.keep(one.slot, made)
            return self._installation(one, made)
        except Exception as error:
            with contextlib.suppress(Exception):
                _detach(made, self.shared, one.slot, acting=acting)
            return _failure(one, error)

    def _installation(self, one: _Waiting, installed: Installed) -> KernelInstallation:
        (plan, translation, _), slot = one.ready, one.slot
        return KernelInstallation(
            loaded=loaded_policy(plan, one.number, one.revision),
            statuses=plan.statuses,
            _plan=plan,
            _translation=translation,
            _installed=installed,
            _shared=self.shared,
            _slot=slot,
            _slots=self._slots,
            _lost_before={} if self._slots.is_new(slot) else self.shared.lost(slot),
        )


def _detach(installed: Installed, shared: SharedMaps, slot: int, *, acting: bool) -> None:
    if acting:  # first: a link with a name stays attached
        shared.keep(slot, None)
    installed.close()
    if acting:  # gates went with it
        shared.keep(slot, None)


def _failure(one: _Waiting, error: Exception) -> ServiceError:
    """Return the error of a revision: an unexpected one must not end the load of others."""
    if isinstance(error, ServiceError):
        return error
    log.error("policy not installed", policy=one.ready.plan.policy.name, exc_info=error)
    return ProbeError(f"install: {type(error).__name__}: {error}")


def _variant(policy: Policy, plan: Plan) -> int:
    """Return the place of the variant that was planned; without variants the last place."""
    return next((n for n, one in enumerate(policy.variants) if one is plan.policy), 0)


def _object_plans(translation: Translation) -> list[ObjectPlan]:
    """Return what has to be compiled: the policy's own text, and that of images."""
    known = {spec.name: spec for spec in (*_BASE_MAPS, *shared_specs(), *late_specs())}
    known |= {spec.name: spec for spec in (*image_specs(), *acting_specs(), *throttle_specs())}
    known |= {own.spec.name: own.spec for own in translation.own}
    kinds = {one.function: KINDS[one.mechanism] for one in translation.programs}
    return [
        ObjectPlan(
            Source(one.text, one.functions),
            tuple(known[name] for name in one.maps),
            tuple(
                ProgramPlan(name, kinds.get(name, Kind.RAW_TRACEPOINT)) for name in one.functions
            ),
        )
        for one in translation.texts
    ]


def _codes(built: Sequence[Built | CompileError]) -> dict[str, bytes]:
    """Return the bytecode of each function; raise `CompileError`."""
    codes: dict[str, bytes] = {}
    for one in built:
        if isinstance(one, CompileError):
            raise one
        codes |= {code.plan.name: code.instructions for code in one.object.programs}
    return codes


def _wait_for_grace_period() -> None:
    """Programs run in RCU read sections; this command waits for those that have begun.

    kernel/sched/membarrier.c: MEMBARRIER_CMD_GLOBAL calls synchronize_rcu().
    """
    number = _MEMBARRIER.get(os.uname().machine)
    if number is None or _LIBC.syscall(number, 1, 0, 0):  # refused on kernels with nohz_full
        time.sleep(_GRACE_S)


def _descriptors(installed: Installed) -> Iterable[int]:
    yield from (program.fd for program in installed.programs)
    yield from (one.fd for one in installed.maps.values())


def _charged(fd: int) -> int:
    """Return the memory that the kernel charges to a map or program."""
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in info.splitlines() if line.startswith("memlock:"))
