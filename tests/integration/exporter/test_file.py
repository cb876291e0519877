"""The file sink: each event exactly once despite kills, a full disk and outages."""

import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from exporter.config import FileSink
from exporter.sinks.file import File
from support.exporter import Exporter
from support.feeder import Feeder, exec_event
from support.waiting import eventually
from tetragon.events_pb2 import GetEventsResponse

TETRA = Path(sys.executable).parent / "tetra"
SEED = 7


@asynccontextmanager
async def running(exporter):
    await exporter.start()
    try:
        yield exporter
    finally:
        await exporter.stop()


def texts(folder):
    """Return the lines of all files of the sink, rotated ones first."""
    rotated = sorted(one for one in folder.iterdir() if one.name.startswith("events-"))
    lines = []
    for one in [*rotated, folder / "events.log"]:
        data = gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes()
        lines += data.decode().splitlines()
    return lines


def has(folder, count):
    """Whether the files have so many lines, or more."""
    try:
        return len(texts(folder)) >= count
    except FileNotFoundError:  # being rotated
        return False


def numbers(folder):
    """Return the numbers of the exported execs, in the order of the lines."""
    return [json.loads(line)["process_exec"]["process"]["pid"] for line in texts(folder)]


def sink(folder, **more):
    return {"name": "archive", "type": "file", "path": str(folder / "events.log")} | more


async def test_killed_exporter_writes_each_event_once(gateway, feeder, nats_server, tmp_path):
    out = tmp_path / "out"
    exporter = Exporter(
        tmp_path, nats_server.url, sink(out, max_size="20kB", max_backups=0, start="oldest")
    )
    choose = random.Random(SEED)
    published = []
    for _ in range(10):
        published += await feeder.publish(400, per_batch=20)
        await exporter.start(wait=False)
        target = choose.randrange(len(published))
        await eventually(partial(has, out, target // 2), 30)
        await exporter.stop(signal.SIGKILL)
    async with running(exporter):
        published += await feeder.publish(100)
        await eventually(partial(has, out, len(published)), 30)
    assert numbers(out) == published
    sizes = [one.stat().st_size for one in out.iterdir()]
    assert len(sizes) > 20
    assert max(sizes) < 30_000


async def test_lines_are_those_of_getevents(gateway, feeder, nats_server, tmp_path):
    await feeder.publish(50)
    async with running(Exporter(tmp_path, nats_server.url, sink(tmp_path, start="oldest"))):
        await eventually(lambda: len(texts(tmp_path)) == 50)
    getevents = await asyncio.create_subprocess_exec(
        TETRA, "--server-address", gateway.address, "getevents", "-o", "json", "--last", "50",
        "--no-follow", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    shown, _ = await getevents.communicate()
    assert (tmp_path / "events.log").read_bytes() == shown


async def test_new_sink_begins_now_and_continues_after_a_restart(
    gateway, feeder, nats_server, tmp_path
):
    await feeder.publish(20)
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path))
    async with running(exporter):
        first = await feeder.publish(10)
        await eventually(lambda: len(texts(tmp_path)) == 10)
    while_away = await feeder.publish(30)
    async with running(exporter):
        await eventually(lambda: len(texts(tmp_path)) == 40)
    assert numbers(tmp_path) == first + while_away


async def test_batch_stored_twice_is_exported_once(gateway, feeder, nats_server, tmp_path):
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path, start="oldest"))
    await feeder.publish(20)
    async with running(exporter):
        await eventually(lambda: len(texts(tmp_path)) == 20)
    # The collector publishes its last batch again, later than JetStream remembers its id.
    feeder.sequence -= 10
    await publish_unidentified(feeder, 10)
    more = await feeder.publish(5)
    async with running(exporter):
        await eventually(lambda: len(texts(tmp_path)) >= 25)
    assert numbers(tmp_path) == [*range(1, 21), *more]


async def publish_unidentified(feeder, count):
    events = [exec_event(feeder.sequence + n + 1) for n in range(count)]
    await feeder.send(feeder.batch(events), identified=False)


def equal_events(feeder, count):
    """Return events of which each third one differs only in its time and process id."""
    events = []
    for number in range(feeder.sequence + 1, feeder.sequence + count + 1):
        event = GetEventsResponse.FromString(exec_event(number))
        event.process_exec.process.arguments = str(number % 3)
        events.append(event.SerializeToString())
    return events


async def test_aggregated_events_add_up_whatever_is_killed(gateway, feeder, nats_server, tmp_path):
    out = tmp_path / "out"
    aggregation = {"window_size": "100ms", "channel_buffer_size": 2}
    exporter = Exporter(
        tmp_path, nats_server.url, sink(out, start="oldest", aggregation=aggregation)
    )
    total = 0
    for stop in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        for _ in range(20):
            await feeder.send(feeder.batch(equal_events(feeder, 30)))
            total += 30
        await exporter.start()
        await eventually(lambda: has(out, 1), 30)
        await exporter.stop(stop)
    async with running(exporter):
        await eventually(lambda: sum(counts(out)) >= total, 30)
    assert sum(counts(out)) == total
    assert len(counts(out)) < total // 3


def counts(folder):
    """Return for how many events each line stands."""
    lines = [json.loads(line) for line in texts(folder)]
    return [int(line.get("aggregation_info", {}).get("count", 1)) for line in lines]


def mount(*options):
    subprocess.run(["mount", *options], check=True)


def unmount(folder):
    subprocess.run(["umount", folder], check=True)


async def test_full_disk_delays_and_loses_nothing(gateway, feeder, nats_server, tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", out)
    try:
        exporter = Exporter(tmp_path, nats_server.url, sink(out, start="oldest", max_size=0))
        async with running(exporter):
            published = await feeder.publish(3000, per_batch=100)
            await eventually(lambda: exporter.count("sink does not accept events, retrying"), 30)
            mount("-o", "remount,size=64m", out)
            await eventually(lambda: len(texts(out)) == len(published), 30)
            await eventually(lambda: exporter.count("sink accepts events again"), 30)
        assert numbers(out) == published
    finally:
        unmount(out)
    assert f"{out / 'events.log'}: No space left on device" in exporter.log.read_text()


async def test_disk_that_fills_while_files_are_rotated_loses_nothing(
    gateway, feeder, nats_server, tmp_path
):
    """The place is kept on the same disk."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", disk)
    rotated = sink(disk, start="oldest", max_size="50kB", max_backups=0, compress=True)
    try:
        exporter = Exporter(tmp_path, nats_server.url, rotated, TETRA_STATE_DIR=str(disk))
        async with running(exporter):
            published = await feeder.publish(200, per_batch=100)
            await eventually(lambda: len(texts(disk)) == len(published), 30)
            ballast = disk / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            published += await feeder.publish(1000, per_batch=100)
            await eventually(lambda: exporter.count("sink does not accept events, retrying"), 30)
            ballast.unlink()
            mount("-o", "remount,size=64m", disk)
            await eventually(lambda: has(disk, len(published)), 30)
            await eventually(lambda: not any(disk.glob("*.new")), 30)
        assert numbers(disk) == published
        assert "No space left on device" in exporter.log.read_text()
    finally:
        unmount(disk)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of which 40 kB are left when three rotated files are on it."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=160k,mode=700", "tmpfs", disk)
    for second in range(3):
        rotated = disk / f"events-2026-05-01T12-00-0{second}.000.log"
        rotated.write_bytes(random.Random(SEED).randbytes(40_000))
    yield disk
    unmount(disk)


@pytest.mark.parametrize(("max_backups", "left"), [(3, 3), (1, 1)])
def test_full_disk_keeps_neither_old_files_nor_parts_of_new_ones(full_disk, max_backups, left):
    settings = sink(full_disk, max_backups=max_backups, compress=True)
    file = File(FileSink.model_validate(settings))
    (full_disk / "ballast").write_bytes(bytes(24_000))
    with suppress(OSError):
        file._tidy()
    rotated = [one for one in full_disk.iterdir() if one.name.startswith("events-")]
    assert len(rotated) == left
    assert not [one for one in rotated if one.name.endswith(".new")]


async def test_nats_that_restarts_is_waited_for(gateway, feeder, nats_server, tmp_path):
    async with running(Exporter(tmp_path, nats_server.url, sink(tmp_path, start="oldest"))):
        published = await feeder.publish(50)
        await eventually(lambda: len(texts(tmp_path)) == 50)
        nats_server.stop(kill=True)
        nats_server.start()
        published += await feeder.publish(50)
        await eventually(lambda: len(texts(tmp_path)) == 100, 30)
    assert numbers(tmp_path) == published


async def test_rotated_files_are_compressed_limited_and_private(
    gateway, feeder, nats_server, tmp_path
):
    out = tmp_path / "out"
    settings = {"max_size": "20kB", "max_backups": 2, "compress": True, "permissions": "640"}
    async with running(Exporter(tmp_path, nats_server.url, sink(out, start="oldest", **settings))):
        for _ in range(8):
            await feeder.publish(100, per_batch=100)
            last = feeder.sequence
            await eventually(partial(numbers_of_current, out, last), 30)
        await eventually(lambda: sum(one.suffix == ".gz" for one in out.iterdir()) == 2, 30)
    assert all(one.stat().st_mode & 0o777 == 0o640 for one in out.iterdir())


def numbers_of_current(out, last):
    """Whether the event of this number is in some file already."""
    current = out / "events.log"
    return current.exists() and (f'"pid":{last},' in current.read_text() or not current.read_text())


async def test_filters_nodes_and_rate_limit(gateway, feeder, nc, nats_server, tmp_path):
    other = Feeder(nc, "n2")
    await feeder.publish(30)
    await other.publish(30)
    limited = {"name": "limited", "type": "file", "path": str(tmp_path / "limited.log"),
               "start": "oldest", "rate_limit": 12, "nodes": ["n2"]}  # fmt: skip
    chosen = sink(tmp_path, start="oldest", allow_list=[{"arguments_regex": ["^1.$"]}],
                  field_filters=[{"fields": "process.pid", "action": "INCLUDE"}])  # fmt: skip
    async with running(Exporter(tmp_path, nats_server.url, chosen, limited)):
        await eventually(lambda: len(texts(tmp_path)) == 20)
        path = tmp_path / "limited.log"
        await eventually(lambda: len(path.read_text().splitlines()) == 12)
    for line in texts(tmp_path):
        found = json.loads(line)
        assert found["process_exec"] == {
            "process": {"pid": found["process_exec"]["process"]["pid"]}
        }
        assert 10 <= found["process_exec"]["process"]["pid"] < 20


async def test_two_exporters_do_not_share_a_state_folder(gateway, nats_server, tmp_path):
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path))
    async with running(exporter):
        second = Exporter(tmp_path, nats_server.url, sink(tmp_path))
        await second.start(wait=False)
        assert await second.process.wait() == 2
    assert "another tetra-exporter uses it" in exporter.log.read_text()


def with_a_link(folder):
    (folder / "archive.place").symlink_to("/etc/passwd")
    return "/archive.place: is a link: remove it, or use another folder"


def of_another_user(folder):
    os.chown(folder, 12345, 12345)
    return ": belongs to user 12345, not to root: use another folder"


@pytest.mark.parametrize("make", [with_a_link, of_another_user])
async def test_state_folder_that_others_can_change_is_refused(nats_server, tmp_path, make):
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path))
    state = tmp_path / "exporter"
    state.mkdir(mode=0o700)
    cause = make(state)
    await exporter.start(wait=False)
    assert await exporter.process.wait() == 2
    (last,) = exporter.log.read_text().splitlines()[-1:]
    assert last.startswith(f"tetra-exporter: error: state: {state}")
    assert last.endswith(cause)


@pytest.mark.parametrize("text", ["not json", '{"version": 9}', ""])
async def test_damaged_place_is_an_error_with_advice(gateway, nats_server, tmp_path, text):
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path))
    (tmp_path / "exporter").mkdir(mode=0o700)
    place = tmp_path / "exporter" / "archive.place"
    place.write_text(text)
    place.chmod(0o600)
    await exporter.start(wait=False)
    assert await exporter.process.wait() == 2
    assert "delete it to begin at the setting `start`" in exporter.log.read_text()
    assert "Traceback" not in exporter.log.read_text()


async def test_path_that_cannot_be_written_ends_the_exporter(gateway, nats_server, tmp_path):
    exporter = Exporter(tmp_path, nats_server.url, sink(tmp_path) | {"path": str(tmp_path)})
    await exporter.start(wait=False)
    assert await exporter.process.wait() == 2
    (last,) = exporter.log.read_text().splitlines()[-1:]
    assert last == f"tetra-exporter: error: sink archive: {tmp_path}: Is a directory"
    assert "Traceback" not in exporter.log.read_text()
