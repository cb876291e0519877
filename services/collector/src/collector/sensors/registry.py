"""The list of sensors. A new one is a module here and a line in `SENSORS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from collector.events.encoder import Encoder
from collector.events.stacks import StackResolver
from collector.events.tracing import TracingEncoder
from collector.metadata.enricher import Enricher
from collector.policies.table import EventKind, PolicyTable
from collector.processes.table import ProcessTable
from collector.requests import Requests
from collector.sensors.base import Sensor
from collector.sensors.process import ProcessSensor
from collector.sensors.throttle import Throttled, ThrottleSensor
from collector.sensors.tracing import TracingSensor, TracingStatistics


@dataclass(slots=True)
class PolicyParts:
    """Values that the sensor of policies uses and other stages read."""

    table: PolicyTable = field(default_factory=PolicyTable)
    stacks: StackResolver = field(default_factory=StackResolver)
    machine: str = "x86_64"
    ancestors: frozenset[EventKind] = frozenset()  # kinds of events that have them
    statistics: TracingStatistics = field(default_factory=TracingStatistics)
    requests: Requests = field(default_factory=lambda: Requests(frozenset()))  # sends none
    own_pid: int = 0  # the collector's, as the kernel counts; 0: not known


@dataclass(frozen=True, slots=True)
class Parts:
    """The inputs from which sensors are created."""

    table: ProcessTable
    enricher: Enricher
    encoder: Encoder
    policies: PolicyParts = field(default_factory=PolicyParts)
    throttled: Throttled = field(default_factory=Throttled)


def _process(parts: Parts) -> Sensor:
    return ProcessSensor(parts.table, parts.enricher, parts.encoder).sensor()


def _tracing(parts: Parts) -> Sensor:
    policies = parts.policies
    return TracingSensor(
        policies.table,
        parts.table,
        TracingEncoder(parts.encoder, policies.stacks),
        policies.machine,
        policies.ancestors,
        policies.statistics,
        policies.requests.submit,
        policies.own_pid,
    ).sensor()


def _throttle(parts: Parts) -> Sensor:
    return ThrottleSensor(parts.encoder, parts.policies.table, parts.throttled).sensor()


SENSORS: tuple[Callable[[Parts], Sensor], ...] = (_process, _tracing, _throttle)


def sensors(parts: Parts) -> list[Sensor]:
    """Return all sensors, made from ``parts``."""
    return [make(parts) for make in SENSORS]
