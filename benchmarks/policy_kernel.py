"""Policies in this kernel without a collector: the maps, a ring, and the loader's parts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.harness import CACHE
from collector.bpf import kernel, links, maps, probes, programs
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.programs import Kind, ProgramSpec
from collector.bpf.ring import Ring
from collector.policies.backend import KernelBackend, KernelInstallation
from collector.policies.install import KINDS
from collector.policies.kernel_backend import kernel_backend
from collector.policies.plan import Mechanism
from tracingpolicy import parse
from tracingpolicy.model import Policy
from tracingpolicy.values import Mode

RING_BYTES = 8 << 20
_EMPTY = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit


@dataclass
class PolicyKernel:
    """Owns the maps of the base programs and a backend on them."""

    ring: Ring
    backend: KernelBackend
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    _policies: dict[str, Policy] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[PolicyKernel]:
        """Yield one; close everything at the end."""
        info = kernel.detect(CACHE / "headers")
        maps.raise_memlock_limit()
        events = maps.create(MapSpec("events", MapType.RINGBUF, 0, 0, RING_BYTES))
        processes = maps.create(MapSpec("processes", MapType.HASH, 4, _process_value_size(), 4096))
        backend = kernel_backend(info, {"events": events.fd, "processes": processes.fd})
        opened = cls(Ring(events.fd, RING_BYTES), backend)
        try:
            with opened.runner:
                yield opened
        finally:
            backend.shared.close()
            opened.ring.close()
            processes.close()

    def prepare(self, texts: Sequence[str]) -> None:
        """Compile what is not in the cache."""
        self.runner.run(self.backend.prepare([self.policy(text) for text in texts]))

    @contextmanager
    def loaded(self, texts: Sequence[str]) -> Iterator[list[KernelInstallation]]:
        """Load documents and switch them on; remove them at the end."""
        loaded: list[KernelInstallation] = []
        try:
            for number, text in enumerate(texts):
                install = self.backend.install(self.policy(text), number + 2, 1)
                loaded.append(self.runner.run(install))
                loaded[-1].switch(Mode.MONITOR)
            yield loaded
        finally:
            for one in loaded:
                one.switch(None)
                self.runner.run(one.remove())

    @contextmanager
    def empty(self, text: str) -> Iterator[None]:
        """Hook the call of a document as its policy does, with a program that returns at once."""
        hook = self.backend.planner.plans().plan(self.policy(text)).hooks[0]
        target = hook.targets[0]
        if target.syscall is None or hook.entry is not Mechanism.SYS_ENTER:
            spec = ProgramSpec("empty", KINDS[hook.entry], _EMPTY, target.btf_id)
            program = programs.load(spec)
            link = links.attach(program, target.attach)
            yield
            link.close()
            program.close()
            return
        dispatcher, number = self.backend.shared.dispatcher, target.syscall.number
        program = programs.load(ProgramSpec("empty", Kind.TAIL_CALL, _EMPTY))
        level = dispatcher.take_level(number, at_return=False)
        dispatcher.add(number, level, program.fd, at_return=False)
        yield
        dispatcher.remove(number, level, at_return=False)
        program.close()

    def policy(self, text: str) -> Policy:
        """Return the policy of a document, parsed once."""
        if text not in self._policies:
            self._policies[text] = parse(text, "bench.yaml")
        return self._policies[text]


@contextmanager
def empty_programs(tracepoints: Sequence[str]) -> Iterator[None]:
    """Attach a program that returns at once to each raw tracepoint."""
    with ExitStack() as stack:
        for name in tracepoints:
            program = programs.load(ProgramSpec("empty", Kind.RAW_TRACEPOINT, _EMPTY))
            stack.callback(program.close)
            stack.callback(links.attach(program, name).close)
        yield


def _process_value_size() -> int:
    """Return the size of struct process_value, as the C side checks it."""
    text = (probes.bpf_folder() / "lib" / "values.h").read_text()
    found = re.search(r"sizeof\(struct process_value\) == (\d+)", text)
    assert found
    return int(found[1])
