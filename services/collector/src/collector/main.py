"""tetra-collector: settings in, exit code out."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from pathlib import Path

import structlog

from chassis import lifetime
from chassis.folders import make_own
from collector import collector
from collector.bpf import kernel
from collector.bpf.pins import Pins
from collector.build import build
from collector.errors import SecondCollector
from collector.policies.kept_enforcement import KeptEnforcement, folder_of
from collector.settings import Settings, adopt_environment

HEALTH_STALE_S = 20.0
# Python looks for cycles after 700 new objects, and again through all objects as they get older.
# Records and events have no cycles; their objects are most of what is made here.
GC_THRESHOLDS = (50_000, 20, 20)


async def run(settings: Settings) -> None:
    """Run a collector until it is cancelled."""
    kernel.check_rights()
    with _lock_node(settings.node_name):
        if settings.detach:
            detach(settings)
            return
        _own_state(settings.state_dir)
        built = await build(settings)
        gc.freeze()  # what is there now stays
        gc.set_threshold(*GC_THRESHOLDS)
        await built.run()


def _lock_node(node_name: str) -> socket.socket:
    """Bind a name that only one process in this network namespace can have."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0tetra-collector:{node_name}")
    except OSError:
        lock.close()
        raise SecondCollector(
            f"node {node_name}: another collector runs on this host: stop it first"
        ) from None
    return lock


def _own_state(folder: Path) -> None:
    """Make the state folder; raise `ServiceError` where another user could change it."""
    try:
        make_own(folder)
    except OSError as error:  # the collector works without; its health file reports it
        structlog.get_logger().warning(
            "state folder cannot be used: a restart or an outage of nats loses events; set "
            "TETRA_STATE_DIR",
            folder=str(folder), error=error.strerror,
        )  # fmt: skip


def check(settings: Settings) -> int:
    """Return 0 if a collector with this state folder runs and reaches NATS, else 1."""
    try:
        age_s = time.time() - (settings.state_dir / collector.HEALTH_FILE).stat().st_mtime
    except OSError:
        return 1
    return int(age_s > HEALTH_STALE_S)


def detach(settings: Settings) -> None:
    """Detach the probes that a collector of this node left attached, and print which."""
    pins = Pins(settings.pin_dir, settings.node_name, "")
    pins.lock(make=False)
    kept = KeptEnforcement(folder_of(settings.pin_dir, settings.node_name), enabled=False)
    folders = [*pins.remove(), *kept.remove()]
    pins.close()
    print("\n".join(f"detached: {folder}" for folder in folders) or "no probes were kept")


def main() -> int:
    """Entry point of tetra-collector."""
    adopt_environment(os.environ)
    os.umask(0o077)  # its files hold the arguments of every user's processes
    if "--check-policy" in sys.argv[1:]:
        from collector.policies.command import check_policies  # not at each start

        return check_policies(one for one in sys.argv[1:] if one != "--check-policy")
    if "--check" in sys.argv[1:]:
        return lifetime.check("collector", Settings, check)
    return lifetime.run("collector", Settings, run)


if __name__ == "__main__":
    sys.exit(main())
