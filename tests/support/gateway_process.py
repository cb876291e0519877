"""A gateway in a process of its own: what it uses is its own, and so is its event loop."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from support.net import free_port


def resident_bytes(pid: int) -> int:
    """Return the memory that a process occupies."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@asynccontextmanager
async def gateway_process(
    url: str, *, to_be_killed: bool = False, **settings: Any
) -> AsyncIterator[tuple[str, int]]:
    """Run a gateway in a process of its own; yield its address and pid.

    ``to_be_killed``: the test ends it.
    """
    address = f"127.0.0.1:{free_port()}"
    flags = {"nats-url": url, "listen-address": address} | settings
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "tetra-gateway",
        *(f"--{name}={value}" for name, value in flags.items()),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield address, process.pid
        assert to_be_killed or process.returncode is None
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)
