"""The profile of one subject, collected event by event, with its evidence."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cli.processes import parent_of, process_of
from cli.profiles.subject import Subject
from cli.renderers.kinds.calls import act_of
from cli.renderers.ready.facts import fact_of
from cli.resume import Batch
from cli.timestamps import unix_ns
from eventfilters.accesses import files, peers
from tetragon.events_pb2 import GetEventsResponse

_WRITING = ("to write ", "to append ", "to create ")


@dataclass(slots=True)
class Profile:
    """What was seen of a subject."""

    subject: Subject
    executed: int = 0  # execs in the stream, each of an image of its own
    processes: set[str] = field(default_factory=set)  # exec_ids seen before the first of them
    nodes: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)  # ready-made ones that reported something
    commands: set[str] = field(default_factory=set)  # executables that others started as it
    started: Counter[str] = field(default_factory=Counter)  # executables
    read: Counter[str] = field(default_factory=Counter)  # directories
    written: Counter[str] = field(default_factory=Counter)
    connected: Counter[str] = field(default_factory=Counter)  # address:port
    listened: set[str] = field(default_factory=set)
    capabilities: set[str] = field(default_factory=set)
    syscalls: set[str] = field(default_factory=set)
    compat_syscalls: set[str] = field(default_factory=set)  # of 32-bit programs, with their ABI
    abis: set[str] = field(default_factory=set)
    first_ns: int = 0
    last_ns: int = 0
    lost: int = 0
    gaps: int = 0

    def take(self, batch: Batch) -> None:
        """Add the events of a batch that are the subject's."""
        for event in batch.events:
            self._event(event)
        for loss in batch.losses:
            self.lost += sum(loss.lost.by_cause.values())
        self.gaps += len(batch.gaps)

    @property
    def instances(self) -> int:
        """The images that ran; where none began in the stream, the processes seen."""
        return self.executed or len(self.processes)

    @property
    def span_s(self) -> float:
        """The time between the first and the last event of the subject."""
        return (self.last_ns - self.first_ns) / 1e9

    def _event(self, event: GetEventsResponse) -> None:
        kind = event.WhichOneof("event")
        process = process_of(event)
        if kind is None or process is None:
            return
        body = getattr(event, kind)
        if kind == "process_exec" and self.subject.started_by(event):
            self.started[process.binary] += 1
        if not self.subject.owns(process):
            return
        at_ns = unix_ns(event.time)
        self.first_ns = min(self.first_ns or at_ns, at_ns)
        self.last_ns = max(self.last_ns, at_ns)
        self.nodes.add(event.node_name)
        if not self.executed:
            self.processes.add(process.exec_id)
        if kind == "process_exec":
            self.executed += 1
            self.processes.clear()  # millions of ids in a long stream
            parent = parent_of(event)
            if parent is None or not self.subject.owns(parent):
                self.commands.add(process.binary)
        act = act_of(body) if "tags" in body.DESCRIPTOR.fields_by_name else None
        if act is not None:
            self.policies.add(body.policy_name)
            self._fact(body, act.word, act.what)

    def _fact(self, body: Any, word: str, what: str) -> None:
        if body.policy_name == "syscalls":
            self._syscall(body)
        elif body.policy_name == "capabilities":
            self.capabilities.add(fact_of(body))
        elif body.policy_name == "files":
            self._file(body, word, what)
        elif word in ("connect", "send"):
            self.connected.update(f"{peer.address}:{peer.port}" for peer in peers(body)[-1:])
        elif word == "listen":
            self.listened.add(what.removeprefix("tcp "))

    def _syscall(self, body: Any) -> None:
        name = fact_of(body)
        abi = next((one.syscall_id.abi for one in body.args if one.HasField("syscall_id")), "")
        if name in ("", "unknown"):
            return
        if "/" in name or abi in ("i386", "arm32"):
            self.compat_syscalls.add(name)
            return
        self.syscalls.add(name)
        self.abis.add(abi)

    def _file(self, body: Any, word: str, what: str) -> None:
        found = files(body)
        reads = word in ("open", "denied") and not what.startswith(_WRITING)
        counted = self.read if reads else self.written
        for path in (found.path, found.to):
            if path.startswith("/"):
                counted[posixpath.dirname(path) or "/"] += 1
