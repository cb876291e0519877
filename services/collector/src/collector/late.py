"""Metadata that arrives after a process was reported: it appears in the events that follow."""

from __future__ import annotations

from collections.abc import Iterable

from collector.events.encoder import Encoder
from collector.processes.table import ContainerInfo, ProcessTable


def apply_containers(
    containers: Iterable[ContainerInfo], table: ProcessTable, encoder: Encoder
) -> int:
    """Set the containers of images that lack them; return how many processes have changed."""
    by_id = {container.id[:31]: container for container in containers}
    changed = 0
    if not by_id:
        return changed
    for process in table:
        image = process.image
        container = by_id.get(image.docker) if image.docker else None
        if container is None or image.saved or image.container not in (None, container):
            continue
        image.container = container
        encoder.forget_image(image)
        encoder.forget(process.key)
        changed += 1
    return changed
