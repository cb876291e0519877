"""Entry point of ``tetra-gateway``: signals end it properly from its first moment."""

from __future__ import annotations

from chassis import signals


def main() -> None:
    """Import the service and run it."""
    signals.begin()
    from gateway.main import main as run  # half a second, in which a signal may come

    run()
