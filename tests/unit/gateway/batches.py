"""Batches as NATS stores them, made by hand."""

from eventstream.batch import Batch
from tetra.v1 import bus_pb2, node_pb2
from tetragon import events_pb2

SECOND_NS = 1_000_000_000
START_NS = 1_767_225_600 * SECOND_NS


def event(number: int, node: str = "n", time_ns: int = 0) -> bytes:
    """Return the exec of process ``number``; at second ``number`` where no time is given."""
    made = events_pb2.GetEventsResponse(node_name=node)
    made.process_exec.process.pid.value = number
    made.process_exec.process.binary = "/bin/true"
    made.time.FromNanoseconds(time_ns or START_NS + number * SECOND_NS)
    return made.SerializeToString()


def batch(
    stream_sequence: int,
    first: int,
    count: int = 10,
    *,
    node: str = "n",
    boot: str = "boot",
    lost: dict[str, int] | None = None,
    withheld: dict[str, int] | None = None,
    probes_start_ns: int = START_NS,
) -> Batch:
    """Return message ``stream_sequence`` with events ``first`` and on, stored a second later."""
    message = bus_pb2.EventBatch(
        node_name=node,
        boot_id=boot,
        first_sequence=first,
        loss=node_pb2.LossCounters(by_cause=lost or {}, withheld=withheld or {}),
        events=[event(n, node) for n in range(first, first + count)],
    )
    message.probes_start.FromNanoseconds(probes_start_ns)
    stored_ns = START_NS + (first + count) * SECOND_NS
    return Batch.decode(message.SerializeToString(), stream_sequence, stored_ns)
