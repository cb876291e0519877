"""Entry point of ``tetra-collector``: signals end it properly from its first moment."""

from __future__ import annotations

from chassis import signals


def main() -> int:
    """Import the service and run it."""
    signals.begin()
    from collector.main import main as run  # half a second, in which a signal may come

    return run()
