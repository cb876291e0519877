"""Entry point of ``tetra-gateway``: signals end it properly from its first moment."""

from __future__ import annotations

from chassis import signals
from chassis.imports import importing


def main() -> None:
    """Import the service and run it."""
    with importing():
        signals.begin()
        from gateway.main import main as run  # a third of a second, in which a signal may come

    run()
