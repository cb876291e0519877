"""Perf events that make the kernel report mappings of files, with their build ids.

Nothing reads the events: a program at perf_event_mmap_output() sees each mapping before. There is
one event per CPU, but none for a CPU that comes online later.
"""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct
from threading import Lock

from collector.bpf.links import Link
from collector.bpf.syscall import perf_event_open
from collector.errors import AttachError

MARK = 0x74657472616C6F61  # in config2, which nothing uses of a software event: "tetraloa"
_ONLINE = Path("/sys/devices/system/cpu/online")
_ATTR = Struct("<IIQQQQQIIQQ")  # struct perf_event_attr up to config2
_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5
_SOFTWARE, _DUMMY = 1, 9  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY
# Bits of the attributes: exclude_kernel, mmap, mmap2, build_id (include/uapi/linux/perf_event.h).
_FLAGS = 1 << 5 | 1 << 8 | 1 << 23 | 1 << 34


class MmapEvents:
    """Owns the events while a policy needs them: each event runs every program once per mapping."""

    def __init__(self) -> None:
        self._events: list[Link] = []
        self._users = 0
        self._lock = Lock()  # policies are loaded and removed in threads

    def acquire(self) -> Link:
        """Return a handle that keeps the events open until it is closed; raise `AttachError`."""
        with self._lock:
            if not self._users:
                self._events = _open()
            self._users += 1
        return _Share(self)

    def release(self) -> None:
        """Close the events with their last user."""
        with self._lock:
            self._users -= 1
            if not self._users:
                for event in self._events:
                    event.close()
                self._events = []


class _Share(Link):
    """Stands for the events among a policy's links."""

    def __init__(self, events: MmapEvents) -> None:
        super().__init__(-1, "mappings")
        self._events: MmapEvents | None = events

    def close(self) -> None:
        """Release the events; a second call does nothing."""
        if self._events is not None:
            self._events.release()
            self._events = None


def _open() -> list[Link]:
    """Return a perf event of each CPU, enabled; raise `AttachError`."""
    found: list[Link] = []
    try:
        for cpu in _cpus(_ONLINE.read_text()):
            attr = _ATTR.pack(_SOFTWARE, _ATTR_SIZE, _DUMMY, 0, 0, 0, _FLAGS, 0, 0, 0, MARK)
            fd = perf_event_open(attr.ljust(_ATTR_SIZE, b"\0"), cpu=cpu)
            found.append(Link(fd, "mappings", by_ioctl=True))
    except OSError as error:
        for one in found:
            one.close()
        reason = error.strerror or str(error)
        raise AttachError("kprobe", "mappings", error.errno or 0, reason) from None
    return found


def _cpus(text: str) -> list[int]:
    """Return the numbers in a list as ``0-3,6``."""
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found += range(int(first), int(last or first) + 1)
    return found
