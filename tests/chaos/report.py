"""Output of a run, and what ``tetra verify`` reports about the stream."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from chaos.stack import BIN, Stack


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def say_rows(rows: Mapping[str, object]) -> None:
    """Print names and figures, one a line."""
    for name, value in rows.items():
        say(f"  {name:34} {value}")


def verify(stack: Stack) -> dict[str, Any]:
    """Return what `tetra verify` reports about the stream."""
    command = [str(BIN / "tetra"), "verify", "-o", "json", "--server-address", stack.addresses]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, 3):
        return {"holes": [done.stderr.strip()], "nodes": []}
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict
