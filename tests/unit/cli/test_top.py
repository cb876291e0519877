"""What ``tetra top`` counts and how it looks at 80 columns."""

import pytest

from cli.commands.top import TopView
from cli.resume import Batch
from cli.top_model import TopModel
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.stream_pb2 import GapNotice, LossNotice

NOW_S = 1_767_225_600.0


def test_rates_cover_ten_seconds_and_totals_the_whole_run(exec_event, exit_event):
    model = TopModel()
    for second in range(20):
        batch = Batch([exec_event(exec_id=f"{second}"), exit_event(exec_id=f"{second}")])
        model.take(batch, NOW_S + second)
    (row,) = model.rows("binary", NOW_S + 19)
    assert (row.name, row.total) == ("/usr/sbin/iptables", 20)
    assert row.starts_per_s == pytest.approx(1.0)
    assert row.ends_per_s == pytest.approx(1.0)
    assert not model.running
    assert model.rows("binary", NOW_S + 60)[0].starts_per_s == 0
    assert [row.name for row in model.rows("container", NOW_S)] == ["(host)"]
    assert [row.name for row in model.rows("node", NOW_S)] == ["node1"]


def test_processes_that_ran_already_are_no_starts(exec_event):
    model = TopModel()
    event = exec_event(exec_id="x", flags="procFS rootcwd")
    event.process_exec.process.start_time.seconds = 5
    model.take(Batch([event]), NOW_S)
    assert (model.started, len(model.running)) == (0, 1)
    assert model.longest(3)[0].pid == 101708


def test_losses_are_summed():
    model = TopModel()
    loss = LossNotice(lost=LossCounters(by_cause={"kernel_exec": 2, "spool": 3}))
    model.take(Batch([], None, [loss, loss], [GapNotice()]), NOW_S)
    assert (model.lost, model.gaps) == (10, 1)


def test_screen_at_80_columns(exec_event, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    view = TopView("user", "localhost:54321")
    event = exec_event(exec_id="x", arguments="[bold]" + "x" * 90)
    event.process_exec.process.start_time.FromNanoseconds(int((NOW_S - 75) * 1e9))
    view.model.take(Batch([event]), NOW_S)
    lines = view.picture(80, 12, NOW_S).plain.split("\n")
    assert lines[0].startswith("tetra top   localhost:54321   nodes 1   ")
    assert [line.rstrip() for line in lines[1:]] == [
        "starts 1.0/s   ends 0.0/s   running 1   lost 0",
        "USER                                              STARTS/S     ENDS/S    STARTED",
        "root                                                   1.0        0.0          1",
        "",
        "     PID  USER        RUNNING  LONGEST RUNNING",
        "  101708  root          1m15s  /usr/sbin/iptables [bold]xxxxxxxxxxxxxxxxxxxxxxx…",
        "",
        "",
        "",
        "",
        "q quit   b binary   u user   c container   n node   f file   p peer",
    ]


def test_events_that_neither_start_nor_end_a_process_are_counted(event_of):
    view = TopView("binary", "localhost:54321")
    view.model.take(Batch([event_of("process_kprobe"), event_of("process_lsm")]), NOW_S)
    assert "   other events 2" in view.picture(80, 12, NOW_S).plain.split("\n")[1]


@pytest.mark.parametrize(
    ("width", "titles", "row", "running"),
    [
        (
            44,
            "BINARY                   STARTS/S     ENDS/S",
            "/usr/sbin/iptables            1.0        0.0",
            "     PID  USER        RUNNING  LONGEST RUNN…",
        ),
        (
            30,
            "BINARY                STARTS/S",
            "/usr/sbin/iptables         1.0",
            "     PID  RUNNING  LONGEST RU…",
        ),
        (20, "BINARY", "/usr/sbin/iptables", "     PID  RUNNING  …"),
        (8, "BINARY", "/usr/sb…", "     PI…"),
    ],
)
def test_narrow_screen_keeps_the_name(exec_event, width, titles, row, running):
    view = TopView("binary", "localhost:54321")
    view.model.take(Batch([exec_event(exec_id="x")]), NOW_S)
    lines = view.picture(width, 12, NOW_S).plain.split("\n")
    assert [line.rstrip() for line in (lines[2], lines[3], lines[5])] == [titles, row, running]
    assert all(len(line) <= width for line in lines)
