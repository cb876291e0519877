"""Containers by their id. A lookup never blocks: an unknown id is looked up in the background."""

from __future__ import annotations

from typing import Protocol

from collector.processes.table import ContainerInfo


class Containers(Protocol):
    """What a container runtime knows."""

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container with this full id, or None while it is unknown."""

    def settled(self, full_id: str) -> bool:
        """Return whether `get` will not improve soon; look the id up in the background if not."""


class NoContainers:
    """A host without a container runtime."""

    def get(self, _full_id: str) -> ContainerInfo | None:
        """Return None."""
        return None

    def settled(self, _full_id: str) -> bool:
        """Return True."""
        return True
