"""The list of sensors. A new one is a module here and a line in `SENSORS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from collector.events.encoder import Encoder
from collector.metadata.enricher import Enricher
from collector.processes.table import ProcessTable
from collector.sensors.base import Sensor
from collector.sensors.process import ProcessSensor


@dataclass(frozen=True, slots=True)
class Parts:
    """What sensors are made from."""

    table: ProcessTable
    enricher: Enricher
    encoder: Encoder


def _process(parts: Parts) -> Sensor:
    return ProcessSensor(parts.table, parts.enricher, parts.encoder).sensor()


SENSORS: tuple[Callable[[Parts], Sensor], ...] = (_process,)


def sensors(parts: Parts) -> list[Sensor]:
    """Return all sensors, made from ``parts``."""
    return [make(parts) for make in SENSORS]
