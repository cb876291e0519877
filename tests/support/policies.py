"""Policies on the running kernel, without a collector: plan in, decoded records out."""

from __future__ import annotations

import asyncio
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from collector.bpf import compiler, maps
from collector.bpf.btf import Btf
from collector.bpf.features import Features
from collector.bpf.maps import BpfMap, MapSpec, MapType, possible_cpus
from collector.bpf.ring import Ring
from collector.errors import VerifierError
from collector.metadata.containers.catalog import Catalog
from collector.policies.check import Host
from collector.policies.direct_reads import direct_reads
from collector.policies.install import (
    Installed,
    ModeWord,
    SharedMaps,
    install_steps,
    install_together,
)
from collector.policies.plan import (
    Mechanism,
    Plan,
    PlannedArgument,
    PlannedHook,
    Source,
    Syscall,
    SyscallArgument,
    Target,
)
from collector.policies.plan_policy import check_document
from collector.policies.statistics import SelectorCounters
from collector.policies.translate import Kernel, translate
from collector.policies.translation import Translation
from collector.records.tracing import decode_tracing
from collector.records.values import TracingRecord
from support.calls import ABI, PREFIX
from tracingpolicy.model import Argument, Kprobe, Policy
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import ArgumentType

BPF = Path(__file__).parents[2] / "bpf"
RING_BYTES = 4 << 20  # other processes fill it too while a child runs
POLICY, REVISION = 7, 3


@cache
def btf() -> Btf:
    """The running kernel's types, read once."""
    return Btf.vmlinux()


@cache
def kernel() -> Kernel:
    """What translation depends on."""
    return Kernel(btf(), possible_cpus(), BPF, direct_reads(Features(btf())))


@dataclass
class Loaded:
    """One policy in the kernel, switched on."""

    translation: Translation
    installed: Installed
    shared: SharedMaps
    ring: Ring
    slot: int
    records: list[TracingRecord] = field(default_factory=list)

    def pump(self) -> list[TracingRecord]:
        """Decode what is in the ring; return all records so far."""
        self.records += [decode_tracing(one) for one in self.ring.drain()]
        return self.records

    def of(self, pid: int) -> list[TracingRecord]:
        """Return the records of a process so far."""
        return [one for one in self.pump() if one.pid == pid]

    def until(self, count: int, pid: int, timeout_s: float = 10.0) -> list[TracingRecord]:
        """Return the records of a process once there are ``count``."""
        deadline = time.monotonic() + timeout_s
        while len(found := self.of(pid)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records: {found}"
            time.sleep(0.002)
        return found

    def counts(self, selector: int = 0) -> SelectorCounters:
        """Return what the programs counted for a selector."""
        memory = self.installed.maps["policy_counters"].mapped()
        return self.translation.counters.of_selector(memory, selector)

    @property
    def lost(self) -> dict[str, int]:
        """Return the losses by reason."""
        return self.shared.lost(self.slot)


@dataclass
class Machine:
    """The shared maps of a test session; compiled texts are kept."""

    events: BpfMap
    processes: BpfMap
    shared: SharedMaps
    ring: Ring
    _codes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _slots: int = 0

    @classmethod
    def create(cls, containers: Catalog | None = None) -> Machine:
        """Create the maps; filters on containers select those of ``containers``."""
        maps.raise_memlock_limit()
        events = maps.create(MapSpec("events", MapType.RINGBUF, 0, 0, RING_BYTES))
        size = process_value_size()
        processes = maps.create(MapSpec("processes", MapType.HASH, 4, size, 4096))
        shared = SharedMaps.create(events.fd, processes.fd, containers=containers)
        return cls(events, processes, shared, Ring(events.fd, RING_BYTES))

    def compile(self, translation: Translation) -> dict[str, bytes]:
        """Return the bytecode of each function; a text is compiled once."""
        codes = {}
        for one in translation.texts:
            if one.text not in self._codes:
                source = compiler.Source(one.text, one.functions)
                compiled = compiler.compile_source(source, BPF / "shim")
                self._codes[one.text] = asyncio.run(compiled)
            codes |= self._codes[one.text]
        return codes

    def use_compiled(self, other: Machine) -> None:
        """Do not compile what another session has compiled."""
        self._codes.update(other._codes)

    @contextmanager
    def loaded(self, plan: Plan, mode: ModeWord = ModeWord.MONITOR) -> Iterator[Loaded]:
        """Load a plan, switch it on, and remove it at the end."""
        translation = translate(plan, kernel())
        codes = self.compile(translation)
        self._slots += 1
        slot = self._slots % 512
        steps = install_steps(
            translation, codes, self.shared, slot=slot, policy=POLICY, revision=REVISION
        )
        (installed,) = install_together([steps], self.shared.images)
        if isinstance(installed, VerifierError):
            installed.add_note("\n".join(installed.log.splitlines()[-40:]))
        if isinstance(installed, Exception):
            raise installed
        try:
            self.ring.drain()
            self.shared.set_mode(slot, mode)
            yield Loaded(translation, installed, self.shared, self.ring, slot)
        finally:
            self.shared.set_mode(slot, ModeWord.OFF)
            installed.close()

    def close(self) -> None:
        """Close everything."""
        self.shared.close()
        self.ring.close()
        self.processes.close()


def process_value_size() -> int:
    """Return the size of struct process_value, as the C side checks it."""
    text = (BPF / "lib" / "values.h").read_text()
    found = re.search(r"sizeof\(struct process_value\) == (\d+)", text)
    assert found
    return int(found[1])


# --- building plans without documents


def arg(index: int, kind: ArgumentType, **options: Any) -> Argument:
    """Return an argument of a document."""
    return Argument(index=index, type=kind, **options)


def match(operand: int, operator: Operator, *values: Any) -> ValueFilter:
    """Return an element of matchArgs."""
    return ValueFilter(operands=(operand,), operator=operator, values=values)


def planned(one: Argument, source: Source, *, user_memory: bool = False) -> PlannedArgument:
    """Return a planned argument."""
    return PlannedArgument(argument=one, type=one.type, source=source, user_memory=user_memory)


def syscall_plan(
    name: str,
    number: int,
    args: tuple[Argument, ...] = (),
    selectors: tuple[Selector, ...] = (),
) -> Plan:
    """Return the plan of a policy with one system call, by the dispatcher."""
    hook = Kprobe(call=f"sys_{name}", args=args, selectors=selectors)
    target = Target(name=f"{PREFIX}{name}", attach="sys_enter", syscall=Syscall(number, name, ABI))
    planned_args = tuple(planned(one, SyscallArgument(one.index), user_memory=True) for one in args)
    ready = PlannedHook(hook=hook, entry=Mechanism.SYS_ENTER, targets=(target,), args=planned_args)
    return Plan(policy=Policy(name="test", kprobes=(hook,)), hooks=(ready,))


def in_child(action: Callable[[], None]) -> int:
    """Run ``action`` in a forked child; return its pid once it has ended."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


@cache
def host() -> Host:
    """What plans depend on, of this machine."""
    return Host.of(Features(btf()))


def plan_of(document: str) -> Plan:
    """Return the plan of a document; raise `PolicyErrors`."""
    return check_document(textwrap.dedent(document), "test.yaml", host())


_OPENS = """
    apiVersion: {api}
    kind: TracingPolicy
    metadata:
      name: opens
    spec:
      kprobes:
      - call: sys_openat
        syscall: true
        args:
        - index: 1
          type: string
        selectors:
        - matchArgs:
          - index: 1
            operator: Equal
            values: ["{path}"]
{filters}
"""


def opens_of(path: Path, filters: str, api: str = "cilium.io/v1alpha1") -> str:
    """Return a policy that reports who opens a file, by further filters of its selector."""
    indented = "\n".join("          " + line for line in filters.strip().splitlines())
    return _OPENS.format(api=api, path=path, filters=indented)
