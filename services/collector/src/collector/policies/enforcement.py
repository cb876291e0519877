"""Shared state of enforcing policies: spared processes, limits of signals, verdicts, gates.

The maps are created with the first such policy. A slot's window of signals is emptied whenever the
slot's mode is set, so a policy that was switched to monitor by its limit starts anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from struct import Struct

from collector.bpf import maps
from collector.bpf.maps import BpfMap
from collector.policies.gates import Gates
from collector.policies.kept_enforcement import KeptEnforcement
from collector.policies.maps import (
    SIGNALS,
    SPARED,
    SPARED_ENTRIES,
    SPARED_NAME_BYTES,
    SPARED_PROGRAMS,
    VERDICTS,
    acting_specs,
)
from collector.policies.spared import nothing_spared

_U32, _U64 = Struct("<I"), Struct("<Q")
_PROGRAM = Struct(f"<{SPARED_NAME_BYTES}sI")
_EMPTY_WINDOW = bytes(16)  # struct signal_window of bpf/tracing/act.h


@dataclass(slots=True)
class Enforcement:
    """Owns the maps of actions and the gates."""

    signals_max: int = 0  # signals a policy may send in a minute; 0: no limit
    find_spared: Callable[[], Mapping[int, int]] = nothing_spared
    programs: frozenset[tuple[str, int]] = frozenset()  # spared: names, each with a user
    kept: KeptEnforcement | None = None
    maps: dict[str, BpfMap] = field(default_factory=dict)
    gates: Gates = field(default_factory=Gates)
    _spared: dict[int, int] = field(default_factory=dict)  # tgid -> start in ticks
    _programs: set[bytes] = field(default_factory=set)  # keys of map SPARED_PROGRAMS

    def start(self) -> None:
        """Create the maps unless they exist; raise `ProbeError`."""
        if self.maps:
            return
        created: dict[str, BpfMap] = {}
        try:
            for spec in acting_specs():
                created[spec.name] = maps.create(spec)
            self.maps = created  # all at once: another thread sets modes
            self.spare_programs(self.programs)
            self.refresh()
        except BaseException:
            self.maps = created
            self.close()
            raise

    @property
    def verdicts(self) -> int:
        """Return the descriptor of the map that gates read."""
        return self.maps[VERDICTS].fd

    @property
    def active(self) -> bool:
        """Whether a policy that acts has been loaded."""
        return bool(self.maps)

    def refresh(self) -> None:
        """Spare the processes that are to be spared now; reads /proc."""
        self.spare(self.find_spared())

    def spare(self, processes: Mapping[int, int]) -> None:
        """Set the processes that no policy acts on: tgid to start in clock ticks."""
        wanted = dict(list(processes.items())[:SPARED_ENTRIES])
        spared = self.maps[SPARED]
        for tgid in self._spared.keys() - wanted.keys():
            spared.delete(_U32.pack(tgid))
        for tgid, ticks in wanted.items():
            if self._spared.get(tgid) != ticks:
                spared.update(_U32.pack(tgid), _U64.pack(ticks))
        self._spared = wanted

    def spare_programs(self, programs: Collection[tuple[str, int]]) -> None:
        """Set the programs that no policy acts on, each with a user that it runs as."""
        known = [one for one in programs if len(os.fsencode(one[0])) < SPARED_NAME_BYTES]
        wanted = {_PROGRAM.pack(os.fsencode(name), uid) for name, uid in known[:SPARED_ENTRIES]}
        spared = self.maps[SPARED_PROGRAMS]
        for key in self._programs - wanted:
            spared.delete(key)
        for key in wanted - self._programs:
            spared.update(key, b"\x01")
        self._programs = wanted

    def reset_signals(self, slot: int) -> None:
        """Reset the count of a policy's signals."""
        if self.maps:
            self.maps[SIGNALS].update(_U32.pack(slot), _EMPTY_WINDOW)

    def close(self) -> None:
        """Free the maps; the gates end with their last users."""
        for one in self.maps.values():
            one.close()
        self.maps, self._spared, self._programs = {}, {}, set()
