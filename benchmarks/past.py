"""Events of a made-up fleet: many hosts, binaries, users, containers; as events, columns and JSON.

Columns are written by the exporter's own writer, a million events a block. More events than
`DISTINCT` are copies of those blocks under the names that follow.
"""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventcolumns.rows import Row, place_of, row_of
from eventcolumns.schema import Block, Footer
from eventcolumns.writer import Writer
from eventjson.encoder import JsonEncoder
from eventstream.batch import Batch
from tetra.v1 import bus_pb2
from tetragon.events_pb2 import GetEventsResponse

DISTINCT = 4_000_000
BLOCK_EVENTS = 1_000_000
SUBJECT = "/usr/bin/tool-7"  # about one event in fifty
RARE = "/usr/bin/tool-290"
BEGIN_S = 1_790_000_000
_TEMPLATES = 40_000
_BATCH = 500
_NODES = ("web-1", "web-2", "db-1")
_BINARIES = [f"/usr/bin/tool-{n}" for n in range(300)]
_USERS = (("root", 0), ("www-data", 33), ("postgres", 999), ("alice", 1000), ("bob", 1001))
_SECOND_NS = 1_000_000_000


def event(choose: random.Random, number: int, time_ns: int) -> GetEventsResponse:
    """Return one event of the fleet."""
    node = choose.choice(_NODES)
    made = GetEventsResponse(node_name=node)
    kind = choose.choices(("process_exec", "process_exit", "process_kprobe"), (4, 4, 2))[0]
    body: Any = getattr(made, kind)
    process = body.process
    name = f"{node}:{number * 1000 + choose.randrange(1000)}:{number % 99_999}"
    process.exec_id = base64.b64encode(name.encode()).decode()
    process.pid.value = process.tid.value = number % 99_999
    process.user_name, process.uid.value = choose.choices(_USERS, (8, 4, 2, 1, 1))[0]
    process.auid.value = 4_294_967_295
    process.cwd = "/var/lib/app"
    process.binary = _BINARIES[min(int(choose.expovariate(1 / 40)), 299)]
    process.arguments = f"--config /etc/app-{choose.randrange(50)}.conf --id {number % 10_000}"
    process.flags = "execve clone"
    process.start_time.FromNanoseconds(time_ns)
    process.parent_exec_id = base64.b64encode(f"{node}:{number // 50}:1".encode()).decode()
    if choose.random() < 0.5:
        name = f"app-{choose.randrange(40)}"
        process.docker = f"{hash(name) & 0xFFFFFFFFFFFFFFFF:031x}"[:31]
        process.container_info.name, process.container_info.image = name, "registry/app:1"
    else:
        process.host_unit.unit = "cron.service"
    body.parent.CopyFrom(process)
    body.parent.binary = choose.choice(("/usr/bin/bash", "/usr/sbin/cron", *_BINARIES[:40]))
    if kind == "process_kprobe":
        body.function_name, body.policy_name = "security_file_permission", "files"
        argument = body.args.add(label="file")
        argument.file_arg.path = f"/etc/app-{choose.randrange(50)}.conf"
    made.time.FromNanoseconds(time_ns)
    return made


def events(count: int) -> Iterator[GetEventsResponse]:
    """Yield that many events, three milliseconds apart."""
    choose = random.Random(7)
    for number in range(count):
        yield event(choose, number, BEGIN_S * _SECOND_NS + number * 3_000_000)


def write_json(path: Path, count: int) -> None:
    """Write the events as the exporter's file has them."""
    encode = JsonEncoder().encode
    with path.open("w") as file:
        for one in events(count):
            file.write(f"{encode(one)}\n")


def write_columns(folder: Path, count: int) -> None:
    """Write ``count`` events, whole blocks of a million (of all, where they are fewer)."""
    folder.mkdir(mode=0o700)
    templates = list(_rows(min(_TEMPLATES, count)))
    size = min(BLOCK_EVENTS, count)
    written: list[Block] = []
    for number in range(max(1, count // size)):
        block = _block(number, size)
        if number * size < DISTINCT:
            writer = Writer(folder)
            for part in _shifted(templates, number * size, size):
                writer.append(part)
            writer.finish(block, Footer(block.to_s * _SECOND_NS))
        else:
            shutil.copyfile(folder / written[number % len(written)].name, folder / block.name)
        if number * size < DISTINCT:
            written.append(block)


def _block(number: int, size: int) -> Block:
    messages = size // _BATCH or 1
    from_s = BEGIN_S + number * size * 3 // 1000
    to_s = BEGIN_S + (number + 1) * size * 3 // 1000 + 1
    return Block(1, number * messages + 1, (number + 1) * messages, from_s, to_s)


def _rows(count: int) -> Iterator[Row]:
    made = [one.SerializeToString() for one in events(count)]
    for at in range(0, count, _BATCH):
        message = bus_pb2.EventBatch(
            boot_id="b", first_sequence=at + 1, events=made[at : at + _BATCH]
        )
        batch = Batch(
            at // _BATCH + 1, BEGIN_S * _SECOND_NS, "", "b", at + 1, 0, 0, message.loss,
            list(message.events), 0,
        )  # fmt: skip
        for index, one in enumerate(batch.events()):
            row = row_of(place_of(batch, index, one), one)
            yield row._replace(node=one.message.node_name)


# The same events again, later: with their own numbers, times and identifiers.
def _shifted(templates: list[Row], first: int, count: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    for number in range(first, first + count):
        row = templates[number % len(templates)]
        part.append(
            row._replace(
                stream_sequence=number // _BATCH + 1,
                batch_index=number % _BATCH,
                sequence=number + 1,
                time=BEGIN_S * _SECOND_NS + number * 3_000_000,
                exec_id=f"{row.exec_id}{number // len(templates)}",
            )
        )
        if len(part) == 4000:
            yield part
            part = []
    if part:
        yield part
