"""One node without a bus: documents in, events of the running kernel out."""

from __future__ import annotations

import json
import os
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from collector.bpf.btf import Btf
from collector.bpf.cache import BlobCache
from collector.bpf.features import Features
from collector.bpf.objects import Objects
from collector.events.stacks import StackResolver
from collector.metadata.enricher import Enricher
from collector.policies.backend import KernelBackend
from collector.policies.check import Host
from collector.policies.entry import State
from collector.policies.files import Document
from collector.policies.manager import PolicyManager
from collector.policies.plan_policy import plan_policy
from collector.policies.planner import KernelPlans, Planner
from collector.policies.ready import ReadyPolicies
from collector.policies.translate import translate
from collector.processes.procfs import host_namespaces
from collector.sensors.registry import PolicyParts
from eventjson.encoder import JsonEncoder
from support.policies import BPF, Machine, kernel
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from tracingpolicy import parse

HEAD = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: test
spec:
"""


@cache
def host() -> Host:
    """What plans depend on, of this machine."""
    return Host.of(Features(Btf.vmlinux()))


def _plans() -> KernelPlans:
    return KernelPlans(
        partial(plan_policy, host=host()),
        partial(plan_policy, host=host().without_trampolines()),
        partial(translate, kernel=kernel()),
    )


class Node:
    """A manager and the stages from record to event."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.parts = PolicyParts(stacks=StackResolver(), machine=os.uname().machine)
        self.stages = Stages(Enricher(host_namespaces(Path("/proc"))), policies=self.parts)
        self._machine = machine
        cache = BlobCache(folder / "objects")
        backend = KernelBackend(
            Planner(_plans),
            machine.shared,
            Objects(cache, "test", BPF),
            ReadyPolicies(cache, "test", BPF),
        )
        self.manager = PolicyManager(backend, self.parts.table, parse)
        self._found: list[GetEventsResponse] = []

    async def load(self, spec: str, state: State = State.ENABLED) -> None:
        """Load the policy ``spec`` alone."""
        await self.manager.set_documents([Document(Path("/p/test.yaml"), HEAD + spec)])
        (entry,) = self.manager.entries
        assert entry.state is state, entry.error
        self._machine.ring.drain()
        self._found = []

    def events(self, pid: int, count: int = 1, timeout_s: float = 10.0) -> list[GetEventsResponse]:
        """Return the events of a process once there are ``count``."""
        deadline = time.monotonic() + timeout_s
        while True:
            events = self.stages.handle(self._machine.ring.drain())
            self._found += map(GetEventsResponse.FromString, events)
            found = [event for event in self._found if _pid(event) == pid]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} events: {found}"
            time.sleep(0.002)


def _pid(event: GetEventsResponse) -> int:
    body = getattr(event, str(event.WhichOneof("event")))
    return int(body.process.pid.value)


_JSON = JsonEncoder()


def facts(event: GetEventsResponse) -> dict[str, Any]:
    """Return an event's JSON as a client reads it, without its process and its policy's name."""
    (body,) = (one for key, one in json.loads(_JSON.encode(event)).items() if "process" in key)
    assert isinstance(body, dict)
    del body["process"], body["policy_name"]
    return body
