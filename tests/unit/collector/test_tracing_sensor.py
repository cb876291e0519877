"""Records of policies through the stages: which process, which event, what is dropped."""

from struct import pack

import pytest

from collector.events.encoder import Encoder
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.policies.saved import to_message
from collector.policies.table import Argument, EventKind, Hook, LoadedPolicy, PolicyTable
from collector.processes.table import ProcessTable
from collector.recovery.journal import Journal
from collector.recovery.replay import recover
from collector.running import kernel_process
from collector.sensors.registry import Parts, PolicyParts, sensors
from tetra.v1.state_pb2 import SavedTable
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS, exec_record, fork_record, item, tracing_record

INT, STRING, FILE = 1, 6, 16
OPENED = (item(INT, 0, pack("<q", -100)), item(STRING, 1, b"/etc/passwd"))
FILES = LoadedPolicy(
    2,
    1,
    "files",
    hooks=(
        Hook(
            EventKind.KPROBE,
            function="__x64_sys_openat",
            args=(Argument("int"), Argument("string", "path")),
        ),
        Hook(EventKind.TRACEPOINT, subsystem="s", event="e", args=(Argument("file"),)),
    ),
)


class Collector:
    """The stages, with one policy in the table."""

    def __init__(self, **parts):
        self.policies = PolicyParts(**parts)
        if "table" not in parts:
            self.policies.table.add(FILES)
        enricher = Enricher(HOST_NS)
        encoder = Encoder("n", "", HOST_NS)
        self.table = ProcessTable(removed=encoder.forget)
        self.table.add(kernel_process(0), 0.0)
        self.pipeline = Pipeline(sensors(Parts(self.table, enricher, encoder, self.policies)))

    def handle(self, *records):
        """Return the events of policies that ``records`` make."""
        found = [GetEventsResponse.FromString(event) for event in self.pipeline.handle(records, 0)]
        return [event for event in found if event.WhichOneof("event") != "process_exec"]


@pytest.fixture
def collector():
    collector = Collector()
    collector.handle(
        exec_record(1, 1000, parent=(0, 1), filename=b"/sbin/init", args=b"init\0"),
        exec_record(7, 2000, filename=b"/bin/cat", args=b"cat\0/etc/passwd\0"),
    )
    return collector


def test_a_call_is_an_event_of_its_process(collector):
    (event,) = collector.handle(tracing_record(7, 2000, *OPENED, tid=8))
    body = event.process_kprobe
    assert body.process.binary == "/bin/cat"
    assert body.process.tid.value == 8
    assert body.parent.binary == "/sbin/init"
    assert body.policy_name == "files"
    assert [arg.WhichOneof("arg") for arg in body.args] == ["int_arg", "string_arg"]
    assert not body.ancestors
    assert event.time.ToNanoseconds() == 5000
    assert collector.policies.statistics.events == {("files", "kprobe:__x64_sys_openat"): 1}


def test_a_fork_is_shown_with_its_parents_image(collector):
    (event,) = collector.handle(
        fork_record(9, 3000, parent=(7, 2000)), tracing_record(9, 3000, *OPENED)
    )
    assert event.process_kprobe.process.binary == "/bin/cat"
    assert event.process_kprobe.process.pid.value == 9
    assert event.process_kprobe.process.refcnt == 1
    assert event.process_kprobe.parent.pid.value == 7


def test_an_image_that_the_kernel_side_lost_is_the_one_that_runs_now(collector):
    (event,) = collector.handle(tracing_record(7, 0, *OPENED))
    assert event.process_kprobe.process.binary == "/bin/cat"


def test_the_idle_task_is_the_kernel(collector):
    (event,) = collector.handle(tracing_record(0, 0, *OPENED))
    assert event.process_kprobe.process.binary == "<kernel>"


def test_an_unknown_process_is_marked(collector):
    (event,) = collector.handle(tracing_record(99, 0, *OPENED, start_boottime_ns=4000))
    process = event.process_kprobe.process
    assert (process.pid.value, process.flags) == (99, "unknown")
    assert process.start_time.ToNanoseconds() == 4000
    assert not event.process_kprobe.HasField("parent")


def test_ancestors_are_of_the_kinds_that_have_them():
    collector = Collector(ancestors=frozenset({EventKind.KPROBE}))
    kprobe, tracepoint = collector.handle(
        exec_record(1, 1000, parent=(0, 1)),
        exec_record(5, 1500),
        exec_record(7, 2000, parent=(5, 1500)),
        tracing_record(7, 2000, *OPENED),
        tracing_record(7, 2000, item(FILE, 0, pack("<IHH", 0, 0o100644, 0) + b"/x"), hook=1),
    )
    assert [p.pid.value for p in kprobe.process_kprobe.ancestors] == [1]
    assert not tracepoint.process_tracepoint.ancestors
    assert tracepoint.process_tracepoint.args[0].file_arg.path == "/x"


@pytest.mark.parametrize("numbers", [{"policy": 3}, {"revision": 2}])
def test_a_record_of_an_unknown_policy_is_counted(collector, numbers):
    assert collector.handle(tracing_record(7, 2000, *OPENED, **numbers)) == []
    assert collector.policies.statistics.unknown_policy == 1


@pytest.mark.parametrize(
    "record",
    [
        tracing_record(7, 2000, *OPENED, hook=2),
        tracing_record(7, 2000, item(INT, 0, pack("<q", 1)), hook=1),  # a number for a file
        tracing_record(7, 2000, *OPENED, action=77),
    ],
)
def test_a_record_that_does_not_fit_its_policy_is_counted(collector, record, capsys):
    assert collector.handle(record) == []
    assert collector.policies.statistics.malformed == 1
    assert "does not fit" in capsys.readouterr().out
    assert len(collector.handle(tracing_record(7, 2000, *OPENED))) == 1


def test_a_later_revision_has_its_own_form(collector):
    newer = LoadedPolicy(2, 2, "files", hooks=(Hook(EventKind.KPROBE, function="fd_install"),))
    collector.policies.table.add(newer)
    old, new = collector.handle(
        tracing_record(7, 2000, *OPENED), tracing_record(7, 2000, revision=2)
    )
    assert old.process_kprobe.function_name == "__x64_sys_openat"
    assert new.process_kprobe.function_name == "fd_install"


@pytest.mark.parametrize("saved_policies", [[FILES], []], ids=["saved", "none-saved"])
def test_a_replay_knows_saved_policies_and_those_of_the_journal(tmp_path, saved_policies):
    late = LoadedPolicy(3, 1, "late", hooks=(Hook(EventKind.LSM, function="file_open"),))
    records = [
        exec_record(1, 1000, parent=(0, 1)),
        *(tracing_record(1, 1000, *OPENED) for _ in saved_policies),
        tracing_record(1, 1000, policy=3),
    ]
    framed = b"".join(pack("<II", len(one), 0) + one + bytes(-len(one) % 8) for one in records)
    journal = Journal(tmp_path / "journal")
    journal.begin()
    journal.policy(to_message(late))
    journal.records(0, memoryview(framed), len(framed))
    journal.close()
    collector = Collector(table=PolicyTable())
    collector.policies.table.restore(saved_policies)
    saved = SavedTable(node_name="n", journal=1, records_version="v")
    seen = []

    class Spool:
        """Takes all events."""

        def find(self, _start_ns):
            return None, 0

    def spooled(_spool, _run, _start, events, _loss):
        seen.extend(map(GetEventsResponse.FromString, events))
        return len(events)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("collector.recovery.replay.spool_events", spooled)
        found = recover(
            saved,
            journal.folder,
            "v",
            collector.pipeline,
            collector.table,
            Spool(),
            collector.policies.table,
        )
    assert found.complete
    assert [event.WhichOneof("event") for event in seen] == [
        "process_exec",
        *["process_kprobe"] * len(saved_policies),
        "process_lsm",
    ]
    assert seen[-1].process_lsm.policy_name == "late"


def test_a_mapping_is_a_loader_event_of_its_process(collector):
    mappings = LoadedPolicy(3, 1, "mappings", hooks=(Hook(EventKind.LOADER),))
    collector.policies.table.add(mappings)
    room = pack("<Q", 20) + b"\1\2\3".ljust(20, b"\0")
    items = (item(STRING, 0, b"/lib/x.so"), item(2, 1, room), item(13, 2, pack("<q", 3)))
    (event,) = collector.handle(tracing_record(7, 2000, *items, tid=8, policy=3))
    body = event.process_loader
    assert (body.path, body.buildid) == ("/lib/x.so", b"\1\2\3")
    assert (body.process.binary, body.process.tid.value) == ("/bin/cat", 7)
    assert collector.policies.statistics.events == {("mappings", "loader"): 1}


def test_a_loader_record_with_an_unreadable_path_is_counted(collector):
    collector.policies.table.add(LoadedPolicy(3, 1, "m", hooks=(Hook(EventKind.LOADER),)))
    items = (item(INT, 0, bytes(8)), item(2, 1, bytes(8)), item(13, 2, bytes(8)))
    assert not collector.handle(tracing_record(7, 2000, *items, policy=3))
    assert collector.policies.statistics.malformed == 1
