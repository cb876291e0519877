"""Load for gateways: recorded events put on the bus, and clients that only count bytes.

Each is a process of its own: ``python -m benchmarks.feed publish|read ...``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import nats

from bus import subjects
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.stream_pb2 import Cursor, StreamEventsRequest
from tetragon.events_pb2 import Filter, GetEventsRequest, GetEventsResponse

WINDOW = 64  # batches that wait for their acknowledgement
METHODS = {
    "own": "/tetra.v1.EventStream/StreamEvents",
    "public": "/tetragon.FineGuidanceSensors/GetEvents",
}


async def publish(args: argparse.Namespace) -> dict[str, float]:
    """Publish batches of some nodes, at a rate or as fast as they are taken."""
    events: list[bytes] = pickle.loads(args.events.read_bytes())
    nc = await nats.connect(args.nats)
    js = nc.jetstream()
    names = [f"node-{n:03d}" for n in range(args.nodes)]
    sequence = dict.fromkeys(names, args.first)
    slots = asyncio.Semaphore(WINDOW)
    boot = f"boot-{time.time_ns()}" if args.first == 1 else "boot"
    part = [GetEventsResponse.FromString(events[n % len(events)]) for n in range(args.per_batch)]
    parts: dict[str, list[bytes]] = {}
    for name in names:  # a gateway takes no event that names another node than its batch
        for event in part:
            event.node_name = name
        parts[name] = [event.SerializeToString() for event in part]

    async def send(name: str) -> None:
        async with slots:
            batch = EventBatch(
                node_name=name, boot_id=boot, first_sequence=sequence[name], events=parts[name]
            )
            batch.collector_start.FromNanoseconds(1)
            sequence[name] += len(part)
            await js.publish(subjects.events_subject(name), batch.SerializeToString(), timeout=30)

    start = time.monotonic()
    rounds = max(1, args.count // (args.per_batch * args.nodes))
    tasks: set[asyncio.Task[None]] = set()
    for number in range(rounds):
        for at, name in enumerate(names):
            if args.per_second:  # each node's own moment within the round
                due = start + (number + at / args.nodes) * args.per_batch / args.per_second
                if (pause := due - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
            tasks.add(asyncio.create_task(send(name)))
            if len(tasks) > 4 * WINDOW:
                _, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*tasks)
    await nc.close()
    return {"seconds": time.monotonic() - start, "events": rounds * args.per_batch * args.nodes}


def request_of(args: argparse.Namespace) -> bytes:
    """Return the request of one stream."""
    wanted = [Filter(binary_regex=[args.regex])] if args.regex else []
    if args.api == "public":
        return GetEventsRequest(allow_list=wanted).SerializeToString()
    request = StreamEventsRequest(allow_list=wanted)
    if args.past:
        request.after.CopyFrom(Cursor())
        request.no_follow = True
    return request.SerializeToString()


async def read(args: argparse.Namespace) -> dict[str, float]:
    """Read some streams until each has its bytes; nothing is parsed."""
    first: list[float] = []
    last: list[float] = []
    sizes: list[int] = []
    ready = asyncio.Event()

    async def one(address: str) -> None:
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            method: Any = channel.unary_stream(METHODS[args.api])
            call = method(request_of(args))
            await call.initial_metadata()
            opened.release()
            got = 0
            async for message in call:
                got += len(message)
                if not first or got > 64:  # the first response of our own API is a cursor
                    first.append(time.monotonic())
                if args.bytes and got >= args.bytes:
                    break
            last.append(time.monotonic())
            sizes.append(got)

    opened = asyncio.Semaphore(0)
    began = time.monotonic()
    addresses = args.address.split(",")
    tasks = [asyncio.create_task(one(addresses[n % len(addresses)])) for n in range(args.streams)]
    for _ in range(args.streams):
        await opened.acquire()
    print("open", flush=True)
    ready.set()
    if args.seconds:
        await asyncio.sleep(args.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"seconds": args.seconds, "bytes": 0.0}
    await asyncio.gather(*tasks)
    begin = began if args.past else min(first)
    return {"seconds": max(last) - begin, "bytes": float(sum(sizes))}


def main() -> None:
    """Run one side; print a line of JSON."""
    parser = argparse.ArgumentParser()
    sides = parser.add_subparsers(dest="side", required=True)
    one = sides.add_parser("publish")
    one.add_argument("--events", type=Path, required=True)
    one.add_argument("--nats", required=True)
    one.add_argument("--nodes", type=int, default=1)
    one.add_argument("--count", type=int, required=True)
    one.add_argument("--per-batch", type=int, default=500)
    one.add_argument("--per-second", type=float, default=0, help="of each node")
    one.add_argument("--first", type=int, default=1)
    two = sides.add_parser("read")
    two.add_argument("--address", required=True)
    two.add_argument("--api", choices=METHODS, default="own")
    two.add_argument("--streams", type=int, default=1)
    two.add_argument("--regex", default="")
    two.add_argument("--past", action="store_true")
    two.add_argument("--bytes", type=int, default=0, help="of each stream")
    two.add_argument("--seconds", type=float, default=0)
    args = parser.parse_args()
    figures = asyncio.run(publish(args) if args.side == "publish" else read(args))
    print(json.dumps(figures), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
