"""Containers of a real containerd, made through CRI as a kubelet makes them."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from kubernetes.conftest import COMMAND, events_of
from support.containerd import IMAGE
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600)]

SHORT_LIVES = {"containerd-1.7": 500, "containerd": 100}
PODS = 2  # at once; containerd starts the containers of one pod in one shim, one after another


async def processes_of(gateway, ids, kind="process_exec"):
    """Return the processes of events by the id of their container."""
    found = {}
    for event in await events_of(gateway, kind):
        process = getattr(event, kind).process
        if process.docker in ids:
            found.setdefault(process.docker, []).append(process)
    return found


async def until_ended(gateway, ids):
    """Wait until an exec of a command has been reported in each of these containers."""

    async def complete():
        found = await processes_of(gateway, ids, "process_exit")
        ended = {one for one, all_of in found.items() if any(p.binary == COMMAND for p in all_of)}
        return ended >= set(ids)

    await eventually(complete, 240, 0.5)


async def test_execs_of_short_lives_have_their_container(containerd, start_collector, gateway):
    await start_collector(TETRA_CRI_SOCKET=str(containerd.socket))
    lives = SHORT_LIVES[containerd.name] // PODS
    names, pods = {}, [f"burst-{number}" for number in range(PODS)]

    def run_all(pod_name):
        pod = containerd.run_pod(pod_name, "shop", app="burst")
        for number in range(lives):
            name = f"{pod_name}-{number}"
            full_id = containerd.run(pod, name, COMMAND, "20000")
            names[full_id[:31]] = (name, pod_name)
        return pod

    with ThreadPoolExecutor(PODS) as threads:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        made = await asyncio.gather(*(loop.run_in_executor(threads, run_all, one) for one in pods))
        print(f"{len(names)} containers in {time.monotonic() - started:.1f} s")
    await until_ended(gateway, names)
    found = await processes_of(gateway, names)
    for pod in made:
        await asyncio.to_thread(containerd.remove_pod, pod)
    assert (len(names), set(found)) == (lives * PODS, set(names))
    wrong = [
        (process.binary, names[short], process.container_info.name)
        for short, processes in found.items()
        for process in processes
        if (process.container_info.name, process.pod.name) != names[short]
    ]
    if not containerd.has_events:  # looked up at the first exec, which waits for 0.25 s at most
        assert [one for one in wrong if one[2]] == []
        assert len(wrong) < lives
        wrong = []
    assert wrong == []
    commands = [p.arguments for one in found.values() for p in one if p.binary == COMMAND]
    assert commands == ["20000"] * lives * PODS


async def test_process_has_its_pod_and_container(containerd, start_collector, gateway):
    await start_collector(TETRA_CRI_SOCKET=str(containerd.socket))
    mark = uuid4().hex
    pod = await asyncio.to_thread(
        containerd.run_pod, "web-1", "shop", app="web", **{"tier.example/x": "a.b"}
    )
    name = "nginx"
    full_id = await asyncio.to_thread(containerd.run, pod, name, COMMAND, "1", mark)

    async def reported():
        for event in await events_of(gateway):
            process = event.process_exec.process
            if mark in process.arguments and process.binary == COMMAND:
                return process
        return None

    process = await eventually(reported, 120, 0.2)
    for number in range(0 if containerd.has_events else 10):
        if process.container_info.name:
            break  # else the lookup at the first exec took longer than its limit
        name, mark = f"nginx-{number}", uuid4().hex
        full_id = await asyncio.to_thread(containerd.run, pod, name, COMMAND, "1", mark)
        process = await eventually(reported, 120, 0.2)
    assert process.docker == full_id[:31]
    info = process.container_info
    assert (info.id, info.name, info.image, info.runtime) == (
        full_id, name, IMAGE, "containerd"
    )  # fmt: skip
    found = process.pod
    assert (found.namespace, found.name, found.uid) == ("shop", "web-1", containerd.uid_of(pod))
    assert dict(found.pod_labels) == {"app": "web", "tier.example/x": "a.b"}
    assert (found.workload, found.workload_kind) == ("", "")  # only the API server knows them
    container = found.container
    assert (container.id, container.name) == (f"containerd://{full_id}", name)
    assert (container.image.name, container.pid.value) == (IMAGE, 1)


async def test_containers_that_run_already_are_known(containerd, start_collector, gateway):
    pod = await asyncio.to_thread(containerd.run_pod, "old-1", "shop")
    full_id = await asyncio.to_thread(containerd.run, pod, "old", "/bin/sleep", "1000")
    await start_collector(TETRA_CRI_SOCKET=str(containerd.socket))

    async def reported():
        found = await processes_of(gateway, {full_id[:31], pod[:31]})
        return found if len(found) == 2 else None

    found = await eventually(reported, 120, 0.2)
    [process] = found[full_id[:31]]
    assert (process.container_info.name, process.pod.name, process.flags) == (
        "old", "old-1", "procFS rootcwd inInitTree"
    )  # fmt: skip
    [pause] = found[pod[:31]]
    assert (pause.container_info.name, pause.pod.name) == ("", "old-1")
    await asyncio.to_thread(containerd.remove, full_id)


async def test_runtime_that_restarts_is_followed_again(containerd, start_collector, gateway):
    pod = await asyncio.to_thread(containerd.run_pod, "again-1", "shop")
    await start_collector(TETRA_CRI_SOCKET=str(containerd.socket))
    await asyncio.to_thread(containerd.kill)
    await asyncio.to_thread(containerd.start)
    for number in range(20):  # it connects again some seconds after the runtime is back
        name = f"again-{number}"
        full_id = await asyncio.to_thread(containerd.run, pod, name, COMMAND, "20000")
        await until_ended(gateway, {full_id[:31]})
        found = await processes_of(gateway, {full_id[:31]})
        names = {process.container_info.name for process in found[full_id[:31]]}
        if names == {name}:
            return
    pytest.fail(f"the last container is still not known: {names}")
