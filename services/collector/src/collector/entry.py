"""Entry point of ``tetra-collector``: signals end it properly from its first moment."""

from __future__ import annotations

from chassis import signals
from chassis.imports import importing


def main() -> int:
    """Import the service and run it."""
    with importing():
        signals.begin()
        from collector.main import main as run  # a third of a second, in which a signal may come

    return run()
