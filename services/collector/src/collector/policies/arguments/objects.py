"""Kernel objects that are reported and not compared: a function of C for each."""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines
from collector.policies.sources import Frame
from tracingpolicy.selectors import ValueFilter


class ObjectReader:
    """An object whose item ``writer`` of ``header`` appends."""

    def __init__(self, writer: str, header: str) -> None:
        self.writer = writer
        self.headers: tuple[str, ...] = (header,)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.OBJECT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        return False

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        raise ValueError(f"{arg.type.value}: no filter compares this type")

    def write(self, arg: Arg, out: Lines) -> None:
        write_guarded(arg, f"{self.writer}(s, {arg.position}, {arg.name});", out)
