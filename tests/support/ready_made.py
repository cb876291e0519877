"""A ready-made policy in the kernel, and what it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collector.policies.plan import Plan
from collector.records.values import TracingRecord
from readymade import load, render
from support.policies import Loaded, Machine, plan_of
from support.waiting import wait_until


class Watch:
    """One ready-made policy, and its records."""

    def __init__(self, plan: Plan, loaded: Loaded) -> None:
        self.loaded = loaded
        self.folder = Path()  # for the policy files: what it watches
        self.names = [target.name for hook in plan.hooks for target in hook.targets]
        self.hooks = [hook for hook in plan.hooks for _ in hook.targets]
        self.functions = bool({*self.names} & {"security_file_open", "inet_csk_accept"})

    def message_of(self, record: TracingRecord) -> str:
        """Return the message of the hook that made a record."""
        return self.hooks[record.hook].hook.message.decode()

    def calls_of(self, pid: int) -> set[str]:
        """Return the names of the calls that a process's records are of, and their messages."""
        found = set()
        for record in self.loaded.of(pid):
            found.add(self.names[record.hook].rpartition("_sys_")[2])
            found.add(self.message_of(record))
        return found

    def texts(self) -> list[str]:
        """Return every text and path of all records, as one list."""
        found = []
        for record in self.loaded.pump():
            for value in (*record.args, *record.data, *record.returned):
                text = getattr(value, "text", value)
                if isinstance(text, bytes):
                    found.append(text.decode(errors="replace"))
        return found

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Wait until a condition holds; show the last records if it does not."""
        return wait_until(condition, timeout_s, lambda: str(self.loaded.records[-20:]))


@contextmanager
def watching(policies: Machine, name: str, **parameters: str) -> Iterator[Watch]:
    """Load a ready-made policy."""
    plan = plan_of(render(load(name), parameters))
    with policies.loaded(plan) as loaded:
        yield Watch(plan, loaded)
