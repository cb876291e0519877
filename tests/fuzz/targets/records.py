"""Records of the ring through decoder, enricher, process table and encoder, as the collector runs
them: each part is a record.

What is no record is counted and left out. Each of the others is counted; an event that is made can
be parsed, so its texts are UTF-8; the table keeps its bound.
"""

from __future__ import annotations

from base64 import b64decode
from functools import cache
from random import Random

from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.processes.table import ContainerInfo
from fuzz.inputs import flipped, join
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS, data_record, exec_record, exit_record, fork_record

# Options.
ANCESTORS, CREDENTIALS, NAMESPACES, ENVIRONMENT, ARGV, REDACTED, ONE_BY_ONE = (
    1 << bit for bit in range(7)
)

_CAPACITY = 12
_REDACTION = '{"redact": ["(?:--?pass(?:word)?[ =])(\\\\S+)", "TOKEN=(.*)"]}'
_ID = "0123456789abcdef" * 4


class _Containers:
    def get(self, full_id: str) -> ContainerInfo:
        return ContainerInfo(full_id, "web", "nginx", "docker")

    def settled(self, full_id: str) -> bool:
        return len(full_id) % 2 == 0


@cache
def _enricher(options: int) -> Enricher:
    return Enricher(
        HOST_NS,
        redactor=Redactor(_REDACTION if options & REDACTED else ""),
        containers=_Containers(),
        credentials=bool(options & CREDENTIALS),
        namespaces=bool(options & NAMESPACES),
        environment=bool(options & ENVIRONMENT),
        show_user=True,
        argv=bool(options & ARGV),
    )


def check(options: int, parts: list[bytes]) -> None:
    """Feed the records, at once or one by one."""
    stages = Stages(
        _enricher(options & ~ANCESTORS),
        "node-1",
        "cluster",
        capacity=_CAPACITY,
        released_max=4,
        with_ancestors=bool(options & ANCESTORS),
    )
    events: list[bytes] = []
    for some in [[part] for part in parts] if options & ONE_BY_ONE else [parts]:
        events += stages.handle(some)
        assert len(stages.table) <= _CAPACITY
    passed, counts = stages.pipeline.statistics, stages.counts()
    counted = sum(counts.values()) + passed.malformed + passed.unknown
    assert counted == len(parts), f"{len(parts)} records, {counted} counted"
    assert len(events) == counts["exec"] + counts["exit"]
    for event in [*events, *stages.snapshot()]:
        message = GetEventsResponse.FromString(event)
        assert message.node_name == "node-1"
        kind = message.WhichOneof("event")
        assert kind in ("process_exec", "process_exit")
        process = getattr(message, kind).process
        if process.exec_id:
            node, _, pid = b64decode(process.exec_id).decode().split(":")
            assert (node, int(pid)) == ("node-1", process.pid.value)
    stages.table.collect(float("inf"))


def mutate(part: bytes, rng: Random) -> bytes:
    """Another pid, time or length, or a new record of the same few processes."""
    if rng.random() < 0.4:
        return flipped(part, rng)
    pid, parent = rng.randrange(1, 6), rng.randrange(0, 6)
    ktime, older = rng.choice((5, 10, 20, 1 << 62, (1 << 64) - 1)), rng.choice((0, 5, 10, 20))
    match rng.randrange(4):
        case 0:
            return fork_record(pid, ktime, parent=(parent, older))
        case 1:
            code = rng.choice((0, 9, 0x8B, 0x100, 0xFF00, 0xFFFFFFFF))
            return exit_record(pid, older, ktime, code)
        case 2:
            return data_record(pid, ktime, rng.choice((1, 2, 3)), rng.choice((0, 3, 99)), b"a\0b")
        case _:
            return _exec(rng, pid, ktime, (parent, older))


def _exec(rng: Random, pid: int, ktime: int, parent: tuple[int, int]) -> bytes:
    texts = (b"", b"/bin/true", b"true", b"../x", b"//x", b"\xff\xfe", b"\x1b[2J", b"x" * 300)
    areas = (b"", b"true\0", b"a\0b c\0\0", b"x\0--password hush\0", b"\0\0", b"\xed\xa0\x80\0y")
    groups = (b"", _ID.encode(), f"docker-{_ID}.scope".encode(), b"crio-x:y-\xff", b"z" * 127)
    return exec_record(
        pid,
        ktime,
        parent=parent,
        flags=rng.choice((0x4001, 0x2000001, 0x1001, 0x2801, rng.getrandbits(32))),
        replaced_ktime_ns=rng.choice((0, 5, 10, 20)),
        filename=rng.choice(texts),
        args=rng.choice(areas),
        envs=rng.choice((b"", b"A=1\0TOKEN=x\0", b"=\0\0", b"\xff")),
        cwd=rng.choice(texts),
        cgroup=rng.choice(groups),
        ids=tuple(rng.choice((0, 1000, 0xFFFFFFFF)) for _ in range(8)),
        capabilities=tuple(rng.choice((0, 1 << 40, rng.getrandbits(64))) for _ in range(3)),
        securebits=rng.getrandbits(8),
        secureexec=rng.choice((0, 1, 31, 0xFFFFFFFF)),
        nlink=rng.choice((0, 1)),
        inode=rng.choice((0, 7, (1 << 64) - 1)),
        ns=HOST_NS if rng.random() < 0.5 else tuple(rng.choice((0, 9)) for _ in range(10)),
        args_len=rng.choice((None, None, None, 5000, 0xFFFFFFFF)),
        envs_len=rng.choice((None, None, None, 5000)),
    )


def seeds() -> list[bytes]:
    """A life, an exec after an exec, a long argument in pieces, a container's process."""
    life = [
        fork_record(5, 10, parent=(1, 5)),
        exec_record(5, 20, parent=(1, 5)),
        exit_record(5, 20, 30),
    ]
    chain = [
        exec_record(1, 5, parent=(0, 1)),
        exec_record(3, 6, parent=(1, 5)),
        exec_record(4, 7, parent=(3, 6), replaced_ktime_ns=6),
        exec_record(4, 8, parent=(3, 6), replaced_ktime_ns=7, secureexec=31, nlink=0),
        exit_record(4, 8, 9, 0x100),
    ]
    pieces = [
        data_record(5, 20, 1, 0, b"a\0"),
        data_record(5, 20, 1, 2, b"b\0"),
        exec_record(5, 20, args=b"", args_len=5000, envs=b"A=1\0TOKEN=hush\0"),
    ]
    inside = [
        exec_record(5, 20, cgroup=f"docker-{_ID}.scope".encode(), args=b"x\0--password hush\0a b\0")
    ]
    return [
        join(options, parts)
        for options, parts in (
            (0, life),
            (ANCESTORS, chain),
            (CREDENTIALS | NAMESPACES, chain),
            (ENVIRONMENT | ARGV, pieces),
            (REDACTED | ARGV | ENVIRONMENT, pieces + inside),
            (ONE_BY_ONE, [*(fork_record(n, 9, parent=(n - 1, 9)) for n in range(2, 20)), *life]),
        )
    ]
