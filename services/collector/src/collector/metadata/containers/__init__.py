"""Containers by their id. A lookup never blocks: an unknown id is looked up in the background."""

from __future__ import annotations

from typing import Protocol

from collector.processes.table import ContainerInfo


class Containers(Protocol):
    """The containers of a container runtime."""

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container with this full id, or None while it is unknown."""

    def settled(self, full_id: str) -> bool:
        """Return False while the id is being looked up; start a lookup if one is needed."""


class NoContainers:
    """A host without a container runtime."""

    def get(self, _full_id: str) -> ContainerInfo | None:
        """Return None."""
        return None

    def settled(self, _full_id: str) -> bool:
        """Return True."""
        return True
