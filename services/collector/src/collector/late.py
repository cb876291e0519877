"""Metadata that arrives after a process was reported: it appears in the events that follow."""

from __future__ import annotations

from collections.abc import Iterable

from collector.events.encoder import Encoder
from collector.processes.table import ContainerInfo, Image, ProcessTable


def apply_containers(
    containers: Iterable[ContainerInfo], table: ProcessTable, encoder: Encoder
) -> int:
    """Complete the containers of images, and their pods; return how many processes changed.

    An image that was reported with a container's name keeps that name.
    """
    by_id = {container.id[:31]: container for container in containers}
    changed: set[int] = set()  # ids of images: forks share them
    processes = 0
    if not by_id:
        return processes
    for process in table:
        image = process.image
        container = by_id.get(image.docker) if image.docker else None
        if container is None:
            continue
        if id(image) not in changed and not _complete(image, container):
            continue
        changed.add(id(image))
        encoder.forget_image(image)
        encoder.forget(process.key)
        processes += 1
    return processes


def _complete(image: Image, container: ContainerInfo) -> bool:
    """Set the image's container; return whether that changes an event."""
    if image.saved or image.container == container:
        return False
    if image.container is not None and image.container[:4] != container[:4]:
        return False
    image.container = container
    return True
