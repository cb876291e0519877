"""The highest rate of one cgroup's events, above which they are withheld: bpf/lib/throttle.h."""

from __future__ import annotations

from typing import NamedTuple

HOLD_NS = 5_000_000_000  # THROTTLE_HOLD_NS: how long the rate must have been low


class Rate(NamedTuple):
    """A number of events per interval."""

    events: int
    interval_ns: int
    hold_ns: int = HOLD_NS

    def flags(self) -> list[str]:
        """Return the rate as the C sources take it."""
        return [f"-D{name}={value}ull" for name, value in self._constants()]

    def definitions(self) -> str:
        """Return the rate as lines of C."""
        return "".join(f"#define {name} {value}ull\n" for name, value in self._constants())

    def _constants(self) -> tuple[tuple[str, int], ...]:
        return (
            ("THROTTLE_EVENTS", self.events),
            ("THROTTLE_INTERVAL_NS", self.interval_ns),
            ("THROTTLE_HOLD_NS", self.hold_ns),
        )
