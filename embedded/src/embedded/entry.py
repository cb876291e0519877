"""Entry point of ``tetra-embedded``: signals end it properly from its first moment."""

from __future__ import annotations

from chassis import signals


def main() -> None:
    """Import the launcher and run it."""
    signals.begin()
    from embedded.main import main as run  # a third of a second, in which a signal may come

    run()
