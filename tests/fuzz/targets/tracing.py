"""Records of tracing policies through decoder, policy table and encoder: each part is a record.

What is no record, is of no known policy or does not fit its policy is counted and left out. Each of
the others makes one event, which can be parsed and names its policy.
"""

from __future__ import annotations

from random import Random
from struct import pack

from collector.metadata.enricher import Enricher
from collector.policies.table import Argument, EventKind, Hook, LoadedPolicy
from collector.sensors.registry import PolicyParts
from fuzz.inputs import flipped, join
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from tracingpolicy.types import TYPES, ArgumentType
from unit.collector.synthetic import HOST_NS, exec_record, exit_record, item, tracing_record

_TYPES = [kind for kind in ArgumentType if kind is not ArgumentType.AUTO]
_NUMBERS = [number for kind in _TYPES if (number := TYPES[kind].number) is not None and number > 0]
_SIZES = (0, 1, 2, 4, 8, 16, 24, 64, 80, 144, 152)
_SEVERAL = tuple(Argument(kind, "label") for kind in ("int", "file", "string", "nop", "sock"))
_CONST_BUF = ArgumentType.CONST_BUF  # of tracepoints only


def _hooks() -> tuple[Hook, ...]:
    """One hook for each type of argument, by a function and by a tracepoint, and mixed ones."""
    functions = [
        Hook(EventKind.KPROBE, function="f", args=(Argument(kind.value, "l"),), message="m")
        for kind in _TYPES
        if kind is not _CONST_BUF
    ]
    tracepoints = [
        Hook(EventKind.TRACEPOINT, subsystem="s", event="e", args=(Argument(kind.value),))
        for kind in _TYPES
    ]
    others = [
        Hook(EventKind.KPROBE, function="f", args=_SEVERAL, data=_SEVERAL, returned=_SEVERAL[0]),
        Hook(EventKind.UPROBE, path="/b", symbol="s", args=_SEVERAL, returned=_SEVERAL[2]),
        Hook(EventKind.LSM, function="file_open", args=_SEVERAL, tags=("a", "b")),
        Hook(EventKind.USDT, path="/b", provider="p", name="n", args=_SEVERAL),
    ]
    return (*functions, *tracepoints, *others)


_POLICY = LoadedPolicy(2, 1, "files", hooks=_hooks())


def check(options: int, parts: list[bytes]) -> None:
    """Feed the records to stages that know one policy."""
    policies = PolicyParts(ancestors=frozenset(EventKind) if options & 1 else frozenset())
    policies.table.add(_POLICY)
    stages = Stages(Enricher(HOST_NS), "node-1", policies=policies)
    events = stages.handle([exec_record(7, 2000), *parts])
    passed, counts = stages.pipeline.statistics, stages.counts()
    assert sum(counts.values()) + passed.malformed + passed.unknown == len(parts) + 1
    dropped = policies.statistics.unknown_policy + policies.statistics.malformed
    made = counts["tracing"] - dropped
    assert made == sum(policies.statistics.events.values())
    assert len(events) == counts["exec"] + counts["exit"] + made
    for event in events:
        message = GetEventsResponse.FromString(event)
        assert message.node_name == "node-1"
        kind = message.WhichOneof("event")
        if kind not in ("process_exec", "process_exit"):
            body = getattr(message, kind)
            assert body.policy_name == "files"
            assert body.HasField("process")


def mutate(part: bytes, rng: Random) -> bytes:
    """Another number or length, or a new record of the same policy."""
    if rng.random() < 0.4:
        return flipped(part, rng)
    if rng.random() < 0.1:
        return exit_record(7, 2000, 9000, 0)
    hook = rng.randrange(len(_POLICY.hooks) + 1)
    items = [_item(rng, hook) for _ in range(rng.randrange(6))]
    return tracing_record(
        rng.choice((0, 7, 9)),
        rng.choice((0, 2000, 2001)),
        *items,
        policy=rng.choice((2, 2, 2, 2, 3)),
        hook=hook,
        ktime_ns=rng.choice((0, 5000, (1 << 64) - 1)),
        action=rng.choice((0, 0, 0, 2, 4, 14, 15, 0xFFFFFFFF)),
    )


def _item(rng: Random, hook: int) -> bytes:
    own = [one.type for one in _POLICY.hooks[hook].args] if hook < len(_POLICY.hooks) else ["int"]
    numbers = [TYPES[ArgumentType(one)].number or 45 for one in own]
    kind = rng.choice([*(number for number in numbers if number > 0), rng.choice(_NUMBERS), 64, 65])
    position = rng.choice((0, 0, 1, 2, 3, 4, 16, 17, 32, 48, 49, 50, 255))
    data = rng.randbytes(rng.choice(_SIZES))
    if rng.random() < 0.2:
        data = rng.choice((b"/etc/passwd", b"\xff\xfe", b"\0abstract\0", pack("<Ii", 2, 3)))
    return item(kind, position, data, flags=rng.choice((0, 0, 0, 1, 2, 4)))


def seeds() -> list[bytes]:
    """A call with each form of argument, several arguments, a stack, what does not fit."""
    number, path = pack("<q", -1), pack("<IHH", 0, 0o100644, 0) + b"/etc/passwd"
    several = len(_POLICY.hooks) - 4
    whole = [
        item(1, 0, number), item(16, 1, path), item(6, 2, b"text"), item(7, 4, bytes(72)),
        item(1, 16, number), item(1, 32, number), item(64, 48, bytes(16)), item(64, 49, bytes(16)),
    ]  # fmt: skip
    each = [
        tracing_record(7, 2000, item(TYPES[kind].number or 45, 0, bytes(size)), hook=hook)
        for hook, kind in enumerate(kind for kind in _TYPES if kind is not _CONST_BUF)
        for size in (8, 80)
        if (TYPES[kind].number or 45) > 0
    ]
    return [
        join(0, each[:30]),
        join(1, each[30:]),
        join(0, [tracing_record(7, 2000, *whole, hook=several + n) for n in range(4)]),
        join(0, [tracing_record(7, 2000, item(1, 0, pack("<Ii", 2, 3), flags=1))]),
        join(0, [tracing_record(0, 0), tracing_record(9, 0, policy=3), tracing_record(7, 1)]),
        join(1, [exit_record(7, 2000, 9000, 0), tracing_record(7, 2000, item(6, 0, b"\xff"))]),
    ]
