"""Calls that tracing policies report: kernel functions, tracepoints, programs, LSM hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from collector.events.tracing import Form, TracingEncoder, form
from collector.policies.table import EventKind, Key, PolicyTable, Request
from collector.processes.table import KERNEL_KEY, Process, ProcessTable
from collector.records.tracing import RECORD_TRACING, decode_tracing
from collector.records.values import LoaderRecord, TracingRecord
from collector.requests import RequestStatistics
from collector.sensors.base import Moment, RecordKind, Sensor

# Tetragon's operation codes, label msg_op of its metrics.
OPERATIONS = {
    EventKind.KPROBE: "13",
    EventKind.TRACEPOINT: "14",
    EventKind.UPROBE: "15",
    EventKind.LSM: "16",
    EventKind.LOADER: "26",
    EventKind.USDT: "28",
}

log = structlog.get_logger()


@dataclass(slots=True)
class TracingStatistics:
    """Counts of created events, and of records that could not become one."""

    events: Counter[tuple[str, str]] = field(default_factory=Counter)  # by policy and hook label
    kinds: Counter[EventKind] = field(default_factory=Counter)
    unknown_policy: int = 0  # its table entry is gone
    malformed: int = 0  # its values do not fit the policy's arguments
    requests: RequestStatistics = field(default_factory=RequestStatistics)


def _unrequested(_request: Request) -> None:
    """Send nothing."""


class TracingSensor:
    """Creates the events of policies; the table resolves the numbers of a record."""

    def __init__(
        self,
        policies: PolicyTable,
        processes: ProcessTable,
        encoder: TracingEncoder,
        machine: str,
        ancestors: frozenset[EventKind] = frozenset(),
        statistics: TracingStatistics | None = None,
        request: Callable[[Request], None] = _unrequested,
        own_pid: int = 0,
    ) -> None:
        """``ancestors``: the kinds of events that have them; ``request`` sends the requests of
        events.

        ``own_pid``: the collector, whose events cause no requests, since a request would cause the
        next event.
        """
        self.policies = policies
        self.statistics = statistics or TracingStatistics()
        self._processes = processes
        self._encoder = encoder
        self._machine = machine
        self._ancestors = ancestors
        self._request = request
        self._own_pid = own_pid
        self._forms: dict[Key, list[_HookForm]] = {}

    def sensor(self) -> Sensor:
        """Return the sensor that this is."""
        return Sensor(
            name="tracing",
            kinds=(RecordKind(RECORD_TRACING, "tracing", decode_tracing, self._event),),
        )

    def _event(self, record: TracingRecord, moment: Moment) -> bytes | None:
        hook = self._hook(record)
        if hook is None:
            return None
        process = self._process(record)
        parent = ancestors = None
        if process is not None:
            parent = self._processes.parent_of(process)
            if hook.kind in self._ancestors:
                ancestors = self._processes.ancestors_of(process)
        try:
            if hook.is_loader:
                event = self._encoder.loader_event(
                    hook.form, LoaderRecord.of(record), moment.offset_ns, process, parent,
                    ancestors or (),
                )  # fmt: skip
            else:
                event = self._encoder.event(
                    hook.form, record, moment.offset_ns, process, parent, ancestors or ()
                )
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            self._reject(record, error)
            return None
        self.statistics.events[hook.label] += 1
        self.statistics.kinds[hook.kind] += 1
        self._send_requests(hook, record)
        return event

    def _send_requests(self, hook: _HookForm, record: TracingRecord) -> None:
        if record.pid != self._own_pid and record.selector < len(hook.requests):
            for request in hook.requests[record.selector]:
                self._request(request)

    def _process(self, record: TracingRecord) -> Process | None:
        """The image that called: by (pid, ktime_ns), else the one that the pid runs now."""
        if not record.pid:  # the idle task, or an interrupt of it
            return self._processes.get(KERNEL_KEY)
        if record.image_ktime_ns:
            return self._processes.get((record.pid, record.image_ktime_ns))
        return self._processes.living(record.pid)

    def _hook(self, record: TracingRecord) -> _HookForm | None:
        key = record.policy, record.revision
        forms = self._forms.get(key)
        if forms is None:
            policy = self.policies.get(*key)
            if policy is None:
                self.statistics.unknown_policy += 1
                if self.statistics.unknown_policy == 1:
                    log.error("record of an unknown policy dropped", policy=key[0], revision=key[1])
                return None
            for old in [one for one in self._forms if self.policies.get(*one) is None]:
                del self._forms[old]
            forms = self._forms[key] = [
                _HookForm(
                    hook.kind,
                    (policy.name, hook.label),
                    form(policy, hook, self._machine),
                    hook.requests,
                    hook.kind is EventKind.LOADER,
                )
                for hook in policy.hooks
            ]
        if record.hook >= len(forms):
            self._reject(record, IndexError(f"hook {record.hook} of {len(forms)}"))
            return None
        return forms[record.hook]

    def _reject(self, record: TracingRecord, error: Exception) -> None:
        self.statistics.malformed += 1
        if self.statistics.malformed == 1:
            log.error(
                "record that does not fit its policy dropped",
                policy=record.policy,
                revision=record.revision,
                hook=record.hook,
                error=repr(error),
            )


@dataclass(frozen=True, slots=True)
class _HookForm:
    kind: EventKind
    label: tuple[str, str]
    form: Form
    requests: tuple[tuple[Request, ...], ...]  # by selector
    is_loader: bool  # looking a member of an enum up costs as much as a call
