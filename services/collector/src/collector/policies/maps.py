"""The maps that generated programs use: their numbers in the C text, types and sizes.

Shared maps come first and are the same for all policies; a policy's own follow, numbered through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from collector.bpf.base import THROTTLE_ENTRIES
from collector.bpf.maps import MMAPABLE, NO_PREALLOC, MapSpec, MapType, programs_may_allocate

POLICIES_MAX = 1024  # loaded revisions at a time: words of the mode array
LOSS_REASONS = ("ring full", "no scratch space", "too many pending returns")
LOSS_COUNTS = 4  # LOSS_REASONS of bpf/tracing/maps.h
SCRATCH_SLOTS = 3  # SCRATCH_SLOTS of bpf/tracing/record.h
SCRATCH_SIZE = 25528  # sizeof(struct scratch)
RATE_ENTRIES = 32768
SYSCALLS_MAX = 512  # of bpf/tracing/dispatch.h
SYSCALL_LEVELS = 32
SYSCALL_DIRECTION = (SYSCALL_LEVELS + 1) * SYSCALLS_MAX  # bytes of entries, then of exits
CGROUP_ENTRIES = 4096
_PENDING_KEY = 24  # struct pending_key of bpf/tracing/returns.h
_PENDING_NUMBERS = (152, 4096)  # value size and entries
_PENDING_SHORT = (512, 2048)
_PENDING_LONG = (20896, 64)
OWNER_ENTRIES = 32000
FACT_SLOT, FACT_SLOTS = 88, 8192  # bytes and number
CALLS_MAX = 512  # of bpf/tracing/calls.h
FACT_ENTRIES = 4096  # executables in containers

EVENTS = "events"
PROCESSES = "processes"
MODES = "policy_modes"
LOST = "policy_lost"
SCRATCH = "policy_scratch"
RATES = "policy_rates"
PENDING_NUMBERS = "pending_numbers"
PENDING_SHORT = "pending_short"
SYSCALLS_ENTER = "sys_enter_jumps"
SYSCALLS_EXIT = "sys_exit_jumps"
SYSCALL_LEVELS_MAP = "syscall_levels"
CGROUPS = "policy_cgroups"
# Exists where the events of policies are throttled.
THROTTLES = "policy_throttles"
CALLS = "policy_calls"  # of one policy: how often each system call was made
# Of images.py: exist while a policy needs them.
IMAGES = "policy_images"
PROCESS_LISTS = "process_lists"
BINARIES = "policy_binaries"
BINARY_PREFIXES = "binary_prefixes"
BINARY_SUFFIXES = "binary_suffixes"
_IMAGE_MACROS = {
    IMAGES: "MAP_IMAGES",
    PROCESS_LISTS: "MAP_PROCESS_LISTS",
    BINARIES: "MAP_BINARIES",
    BINARY_PREFIXES: "MAP_BINARY_PREFIXES",
    BINARY_SUFFIXES: "MAP_BINARY_SUFFIXES",
}
# Of enforcement.py: exist since the first policy that acts was loaded.
SPARED = "policy_spared"
SPARED_PROGRAMS = "spared_programs"
SIGNALS = "policy_signals"
VERDICTS = "policy_verdicts"
NOTIFICATIONS = "policy_notes"
ACTING_MACROS = {
    SPARED: "MAP_SPARED",
    SPARED_PROGRAMS: "MAP_SPARED_PROGRAMS",
    SIGNALS: "MAP_SIGNALS",
    VERDICTS: "MAP_VERDICTS",
    NOTIFICATIONS: "MAP_NOTIFICATIONS",
}
SPARED_ENTRIES = 1024
SPARED_NAME_BYTES = 32  # struct spared_program of bpf/tracing/act.h
_VERDICT_ENTRIES = 8192  # threads between a function's entry and its gate, which are few
_NOTIFICATION_ENTRIES = 16384
_IMAGE_ENTRIES = 32768
_PROCESS_LISTS_SIZE = 32776  # sizeof(struct process_lists) of bpf/tracing/image.h
_BINARY_ENTRIES = 16384

# Names of shared maps in the order of their numbers; events and processes are the base programs'.
SHARED = (
    EVENTS, PROCESSES, MODES, LOST, SCRATCH, SYSCALLS_ENTER, SYSCALLS_EXIT, SYSCALL_LEVELS_MAP,
    CGROUPS,
)  # fmt: skip

# What stands in the C text for each.
_MACROS = {
    EVENTS: "MAP_EVENTS",
    PROCESSES: "MAP_PROCESSES",
    MODES: "MAP_MODES",
    LOST: "MAP_LOST",
    SCRATCH: "MAP_SCRATCH",
    SYSCALLS_ENTER: "MAP_SYSCALLS_ENTER",
    SYSCALLS_EXIT: "MAP_SYSCALLS_EXIT",
    SYSCALL_LEVELS_MAP: "MAP_SYSCALL_LEVELS",
    CGROUPS: "MAP_CGROUPS",
}


def shared_specs() -> tuple[MapSpec, ...]:
    """Return how the shared maps are created, without those of the base programs."""
    return (
        MapSpec(MODES, MapType.ARRAY, 4, 4 * POLICIES_MAX, 1, MMAPABLE),
        MapSpec(LOST, MapType.PERCPU_ARRAY, 4, 8 * LOSS_COUNTS, POLICIES_MAX),
        MapSpec(SCRATCH, MapType.PERCPU_ARRAY, 4, SCRATCH_SIZE, SCRATCH_SLOTS),
        MapSpec(SYSCALLS_ENTER, MapType.PROG_ARRAY, 4, 4, SYSCALLS_MAX * SYSCALL_LEVELS),
        MapSpec(SYSCALLS_EXIT, MapType.PROG_ARRAY, 4, 4, SYSCALLS_MAX * SYSCALL_LEVELS),
        MapSpec(SYSCALL_LEVELS_MAP, MapType.ARRAY, 4, 2 * SYSCALL_DIRECTION, 1, MMAPABLE),
        MapSpec(CGROUPS, MapType.HASH, 8, 8, CGROUP_ENTRIES),
    )


def throttle_specs() -> tuple[MapSpec, ...]:
    """Return how the map of rates is created: struct throttle_value of bpf/lib/values.h."""
    return (MapSpec(THROTTLES, MapType.HASH, 16, 72, THROTTLE_ENTRIES),)


def late_specs() -> tuple[MapSpec, ...]:
    """Return how shared maps are created that the first policy which uses them brings."""
    lru = MapType.LRU_HASH
    return (
        MapSpec(RATES, lru, 8, 8, RATE_ENTRIES),
        MapSpec(PENDING_NUMBERS, lru, _PENDING_KEY, *_PENDING_NUMBERS),
        MapSpec(PENDING_SHORT, lru, _PENDING_KEY, *_PENDING_SHORT),
    )


def image_specs() -> tuple[MapSpec, ...]:
    """Return how the maps of `images.Images` are created."""
    trie = MapType.LPM_TRIE
    flags = NO_PREALLOC if programs_may_allocate() else 0
    return (
        MapSpec(IMAGES, MapType.HASH, 4, 112, _IMAGE_ENTRIES, flags),
        MapSpec(PROCESS_LISTS, MapType.ARRAY, 4, _PROCESS_LISTS_SIZE, 1),
        MapSpec(BINARIES, MapType.HASH, 256, 8, _BINARY_ENTRIES, NO_PREALLOC),
        MapSpec(BINARY_PREFIXES, trie, 260, 8, _BINARY_ENTRIES, NO_PREALLOC),
        MapSpec(BINARY_SUFFIXES, trie, 132, 8, _BINARY_ENTRIES, NO_PREALLOC),
    )


def acting_specs() -> tuple[MapSpec, ...]:
    """Return how the maps of `enforcement.Enforcement` are created."""
    return (
        MapSpec(SPARED, MapType.HASH, 4, 8, SPARED_ENTRIES),
        MapSpec(SPARED_PROGRAMS, MapType.HASH, SPARED_NAME_BYTES + 4, 1, SPARED_ENTRIES),
        MapSpec(SIGNALS, MapType.ARRAY, 4, 16, POLICIES_MAX),
        MapSpec(VERDICTS, MapType.HASH, 16, 8, _VERDICT_ENTRIES),
        MapSpec(NOTIFICATIONS, MapType.LRU_HASH, 16, 16, _NOTIFICATION_ENTRIES),
    )


@dataclass(frozen=True, slots=True)
class OwnMap:
    """A map of one policy and what it is filled with when it was created."""

    spec: MapSpec
    items: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class MapNumbers:
    """Gives numbers to the maps of one text."""

    own: list[OwnMap] = field(default_factory=list)
    _macros: list[str] = field(default_factory=lambda: [_MACROS[name] for name in SHARED])
    _names: list[str] = field(default_factory=lambda: list(SHARED))

    def add(self, macro: str, spec: MapSpec, items: tuple[tuple[bytes, bytes], ...] = ()) -> str:
        """Add an own map unless its macro exists; return the macro."""
        if macro not in self._macros:
            self._macros.append(macro)
            self._names.append(spec.name)
            self.own.append(OwnMap(spec, items))
        return macro

    def lpm(self, macro: str, name: str, key_size: int, keys: dict[bytes, bytes]) -> str:
        """Add a longest-prefix trie; keys have their length in bits first."""
        spec = MapSpec(name, MapType.LPM_TRIE, key_size, 1, max(1, len(keys)), NO_PREALLOC)
        return self.add(macro, spec, tuple(keys.items()))

    def rates(self) -> None:
        """Give a number to the table of rate limits."""
        self._number({RATES: "MAP_RATES"})

    def pending(self, *, numbers: bool) -> None:
        """Give numbers to the tables of calls that have not returned.

        ``numbers``: of records that hold a few numbers only; else of all others.
        """
        if numbers:
            self._number({PENDING_NUMBERS: "MAP_PENDING_NUMBERS"})
        else:
            self._number({PENDING_SHORT: "MAP_PENDING_SHORT"})

    def pending_long(self) -> None:
        """Add the table of calls with long records that have not returned."""
        spec = MapSpec("policy_pending", MapType.LRU_HASH, _PENDING_KEY, *_PENDING_LONG)
        self.add("MAP_PENDING_LONG", spec)

    def throttles(self) -> None:
        """Give a number to the map of rates."""
        self._number({THROTTLES: "MAP_THROTTLES"})

    def images(self) -> None:
        """Give numbers to the maps of `images.Images`, which owns them."""
        self._number(_IMAGE_MACROS)

    def acting(self) -> None:
        """Give numbers to the maps of `enforcement.Enforcement`, which owns them."""
        self._number(ACTING_MACROS)

    def _number(self, macros: Mapping[str, str]) -> None:
        for name, macro in macros.items():
            if macro not in self._macros:
                self._macros.append(macro)
                self._names.append(name)

    def owners(self) -> None:
        """Add the table of tracked sockets: struct sock_owner of bpf/tracing/owners.h."""
        self.add("MAP_OWNERS", MapSpec("policy_owners", MapType.LRU_HASH, 8, 32, OWNER_ENTRIES))

    def sock_bytes(self) -> None:
        """Add the bytes that were counted: struct sock_bytes of bpf/tracing/bytes.h."""
        spec = MapSpec("policy_sock_bytes", MapType.LRU_HASH, 8, 24, OWNER_ENTRIES)
        self.add("MAP_SOCK_BYTES", spec)

    def facts(self) -> None:
        """Add what First remembers: struct fact_slot and fact_bits of bpf/tracing/facts.h."""
        slots = MapSpec("fact_slots", MapType.ARRAY, 4, FACT_SLOT * FACT_SLOTS, 1)
        self.add("MAP_FACT_SLOTS", slots)
        self.add("MAP_FACTS", MapSpec("facts", MapType.LRU_HASH, 32, 64, FACT_ENTRIES))

    def calls(self) -> None:
        """Add the counts of each system call, see bpf/tracing/calls.h."""
        self.add("MAP_CALLS", MapSpec(CALLS, MapType.ARRAY, 4, 8 * CALLS_MAX, 1, MMAPABLE))

    def array(self, macro: str, name: str, value: bytes) -> str:
        """Add an array of one value, which programs address directly."""
        spec = MapSpec(name, MapType.ARRAY, 4, (len(value) + 7) // 8 * 8, 1)
        return self.add(macro, spec, ((bytes(4), value.ljust(spec.value_size, b"\0")),))

    def definitions(self) -> str:
        """Return the macros as C."""
        return "\n".join(f"#define {name} {n}" for n, name in enumerate(self._macros))

    def names(self) -> tuple[str, ...]:
        """Return the names of all maps in the order of their numbers."""
        return tuple(self._names)
