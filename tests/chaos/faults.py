"""The faults, and a schedule of them from a seed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.stack import Service, Stack

Say = Callable[[str], None]


@dataclass
class Faults:
    """Each method breaks something, waits a while and repairs it."""

    stack: Stack
    chance: random.Random
    disk: Path | None  # a small file system that holds the collector's state
    _nodes: list[int] = field(default_factory=list)  # of NATS, that are still to have their turn

    def kinds(self) -> dict[str, Callable[[], str]]:
        """Return the faults by name; each returns what it did."""
        found = {
            "nats killed": lambda: self._gone(self._nats()),
            "nats stopped": lambda: self._gone(self._nats(), signal.SIGTERM),
            "nats paused": lambda: self._paused(self._nats(), 4),
            "nats cut off": self._cut_off,
            "gateway killed": lambda: self._gone(self._gateway()),
            "gateway stopped": lambda: self._gone(self._gateway(), signal.SIGTERM),
            "gateway paused": lambda: self._paused(self._gateway(), 5),
            "client killed": lambda: self._gone(self.stack.client),
            "client stopped": lambda: self._gone(self.stack.client, signal.SIGTERM),
            "client paused": lambda: self._paused(self.stack.client, 5),
            "collector killed": lambda: self._gone(self.stack.collector),
            "collector stopped": lambda: self._gone(self.stack.collector, signal.SIGTERM),
            "collector paused": lambda: self._paused(self.stack.collector, 3),
            "nodes killed": lambda: self._gone(self.stack.nodes),
            "nodes paused": lambda: self._paused(self.stack.nodes, 3),
        }
        if self.disk is not None:
            found["disk filled, nats away"] = self._disk_full
        return found

    def schedule(self, count: int) -> list[str]:
        """Return ``count`` names: every kind comes before any comes again."""
        names: list[str] = []
        while len(names) < count:
            kinds = list(self.kinds())
            self.chance.shuffle(kinds)
            names += kinds
        return names[:count]

    def _node(self) -> int:
        """Return which node of NATS is next: one at a time, and each before any comes again."""
        if not self._nodes:
            self._nodes = list(range(len(self.stack.nats)))
            self.chance.shuffle(self._nodes)
        return self._nodes.pop()

    def _nats(self) -> Service:
        return self.stack.nats[self._node()]

    def _gateway(self) -> Service:
        return self.chance.choice(self.stack.gateways)

    def _gone(self, service: Service, number: int = signal.SIGKILL) -> str:
        away_s = self.chance.uniform(0, 3)
        service.end(number)
        time.sleep(away_s)
        service.start()
        return f"{service.name}, {away_s:.1f} s"

    def _paused(self, service: Service, most_s: float) -> str:
        away_s = self.chance.uniform(0.5, most_s)
        service.pause(False)
        time.sleep(away_s)
        service.pause(True)
        return f"{service.name}, {away_s:.1f} s"

    def _cut_off(self) -> str:
        n = self._node()
        away_s = self.chance.uniform(1, 6)
        self.stack.networks[n].connect(False)
        time.sleep(away_s)
        self.stack.networks[n].connect(True)
        for network in self.stack.networks:  # the way to the others went with the wire
            network.restore_route()
        return f"nats{n}, {away_s:.1f} s"

    def _disk_full(self) -> str:
        assert self.disk is not None
        ballast = self.disk / "ballast"
        for service in self.stack.nats:
            service.end()
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(b"\0" * 65536)
        except OSError:
            pass
        time.sleep(self.chance.uniform(2, 4))
        ballast.unlink()
        time.sleep(1.5)
        for service in self.stack.nats:
            service.spawn()
        for service in self.stack.nats:
            service.wait_ready()
        return "all of nats, spool without room"
