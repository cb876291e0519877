"""Containers of a real Podman, alone and beside a containerd on the same host."""

import asyncio
import shutil
from uuid import uuid4

import pytest

from kubernetes.conftest import COMMAND, PARTS, events_of
from support.containerd import IMAGE
from support.podman import Podman
from support.waiting import eventually

pytestmark = [
    pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
]  # fmt: skip
LIVES = 10


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    started = Podman(PARTS, tmp_path_factory.mktemp("podman"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


async def execs_with(gateway, mark, count):
    """Wait for ``count`` execs of the command with ``mark`` as argument; return their processes."""

    async def reported():
        found = [
            event.process_exec.process
            for event in await events_of(gateway)
            if mark in event.process_exec.process.arguments.split()
            and event.process_exec.process.binary == COMMAND
        ]
        return found if len(found) >= count else None

    return await eventually(reported, 120, 0.2)


async def test_short_lives_have_their_container(podman, start_collector, gateway):
    await start_collector(TETRA_PODMAN_SOCKET=str(podman.socket))
    mark, names = uuid4().hex, {}
    for number in range(LIVES):
        name = f"life-{mark[:8]}-{number}"
        full_id = await asyncio.to_thread(podman.run, name, COMMAND, "20000", mark)
        names[full_id] = name
    processes = await execs_with(gateway, mark, LIVES)
    infos = [process.container_info for process in processes]
    assert {info.id: info.name for info in infos} == names
    assert {(info.image, info.runtime) for info in infos} == {(IMAGE, "podman")}
    assert {process.docker for process in processes} == {one[:31] for one in names}


async def test_two_runtimes_on_one_host(podman, containerd_17, start_collector, gateway):
    await start_collector(
        TETRA_PODMAN_SOCKET=str(podman.socket), TETRA_CRI_SOCKET=str(containerd_17.socket)
    )
    mark = uuid4().hex
    pod = await asyncio.to_thread(containerd_17.run_pod, "web-1", "shop")
    name = f"beside-{mark[:8]}"
    await asyncio.to_thread(podman.run, name, COMMAND, "20000", mark)
    await asyncio.to_thread(containerd_17.run, pod, "nginx", COMMAND, "20000", mark)
    processes = await execs_with(gateway, mark, 2)
    await asyncio.to_thread(containerd_17.remove_pod, pod)
    found = {(one.container_info.name, one.container_info.runtime, one.pod.name)
             for one in processes}  # fmt: skip
    assert found == {(name, "podman", ""), ("nginx", "containerd", "web-1")}
