"""The pause between reads of the ring, and the clients and CPU pressure that decide it."""

import pytest

from collector.bpf.pace import (
    BUSY,
    CALM,
    CLIENTS_FOR_S,
    FIRST_PAUSE_S,
    PAUSE_MAX_S,
    UNREAD_PAUSE_S,
    Pace,
)
from collector.pressure import MEMORY_S, Pressure

RING = 8 << 20
LONGEST_S = 0.25
CALM_STAT = "cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 0\ncpu1 0\nprocs_running {running}\n"


def pause_ms(*, pressure=0.0, records=1, read_bytes=300, past_s=1.0, longest_s=LONGEST_S):
    pace = Pace(RING, longest_s, lambda: pressure)
    return round(pace.pause_s(records, read_bytes, past_s) * 1000, 1)


@pytest.mark.parametrize(
    ("case", "expected_ms"),
    [
        ({}, 4),  # one record on an idle host
        ({"records": 6, "past_s": 0.004}, 4.1),  # 500 lives a second
        ({"records": 60, "past_s": 0.010}, 9.5),
        ({"records": 500, "read_bytes": 150_000, "past_s": 0.04}, 40),  # a storm
        ({"pressure": CALM}, 4),
        ({"pressure": (CALM + BUSY) / 2}, 127),
        ({"pressure": BUSY}, 250),
        ({"pressure": 1.0, "records": 1000, "read_bytes": 300_000, "past_s": 0.25}, 250),
        # 100 MB/s: an eighth of the ring in 10.5 ms, whatever the pressure
        ({"pressure": 1.0, "records": 1000, "read_bytes": 1_000_000, "past_s": 0.01}, 10.5),
        ({"records": 1000, "read_bytes": 1_000_000, "past_s": 0.01}, 10.5),
        # a setting below what is usual holds on every host
        ({"pressure": 1.0, "longest_s": 0.001}, 1),
        ({"records": 500, "longest_s": 0.001}, 1),
    ],
)
def test_pause_follows_pressure_rate_and_room(case, expected_ms):
    assert pause_ms(**case) == pytest.approx(expected_ms, abs=0.1)


def test_first_record_waits_longer_on_a_busy_host():
    assert Pace(RING, LONGEST_S, lambda: CALM).first_pause_s() == FIRST_PAUSE_S
    assert Pace(RING, LONGEST_S, lambda: 1.0).first_pause_s() == LONGEST_S
    assert Pace(RING, 0, lambda: 1.0).first_pause_s() == 0


def test_pauses_are_long_from_when_no_client_has_read_for_a_while():
    now_s = 100.0
    pace = Pace(RING, LONGEST_S, lambda: 0.0, lambda: now_s)
    assert pace.first_pause_s() == FIRST_PAUSE_S  # gateways may not have been heard yet
    now_s += CLIENTS_FOR_S
    assert pace.first_pause_s() == pace.pause_s(1, 300, 1.0) == UNREAD_PAUSE_S
    assert pace.clients_read()  # new ones
    assert pace.first_pause_s() == FIRST_PAUSE_S
    now_s += CLIENTS_FOR_S - 1
    assert not pace.clients_read()
    now_s += CLIENTS_FOR_S - 1
    assert pace.first_pause_s() == FIRST_PAUSE_S


def test_setting_and_room_limit_the_pause_without_clients_too():
    now_s = iter([100.0, 200.0, 200.0])
    pace = Pace(RING, 0.05, lambda: 0.0, lambda: next(now_s))
    assert pace.pause_s(1, 300, 1.0) == 0.05
    assert pace.pause_s(1000, 1_000_000, 0.01) == pytest.approx(0.0105, abs=1e-4)


def test_no_pause_lets_a_quarter_of_the_ring_fill_at_the_rate_before_it():
    for rate in (1e3, 1e6, 1e8, 1e9):
        pace = Pace(RING, LONGEST_S, lambda: 1.0)
        assert pace.pause_s(1000, int(rate * 0.1), 0.1) * rate <= max(RING / 4, 0.25 * 1e6)
    assert pause_ms(records=10_000, read_bytes=1) <= PAUSE_MAX_S * 1000


class Host:
    """A proc file system and a clock."""

    def __init__(self, folder):
        self.folder = folder
        self.now_s = 100.0
        (folder / "pressure").mkdir()
        self.stat(user=1000, idle=1000)

    def psi(self, stalled_us):
        text = f"some avg10=9.00 avg60=9.00 avg300=9.00 total={stalled_us}\nfull avg10=0 total=7\n"
        (self.folder / "pressure/cpu").write_text(text)

    def stat(self, user, idle, steal=0, running=1):
        text = CALM_STAT.format(user=user, idle=idle, steal=steal, running=running)
        (self.folder / "stat").write_text(text)

    def open(self):
        return Pressure(self.folder, lambda: self.now_s)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_pressure_is_the_share_of_time_in_which_a_task_waited(host):
    host.psi(5_000_000)
    pressure = host.open()
    host.psi(5_700_000)
    host.now_s += 1
    assert pressure.sample() == pytest.approx(0.7)


def test_pressure_is_not_read_more_often_than_ten_times_a_second(host):
    host.psi(0)
    pressure = host.open()
    host.psi(50_000)
    host.now_s += 0.09
    assert pressure.sample() == 0
    host.now_s += 0.02
    assert pressure.sample() > 0


def test_one_short_burst_is_not_a_busy_host(host):
    host.psi(0)
    pressure = host.open()
    host.now_s += 0.125
    host.psi(125_000)
    assert pressure.sample() == pytest.approx(0.125 / MEMORY_S)
    assert pressure.sample() <= CALM
    for n in range(2, 12):
        host.now_s += 0.125
        host.psi(n * 125_000)
        pressure.sample()
    assert pressure.sample() > BUSY


@pytest.mark.parametrize(
    ("stat", "expected"),
    [
        ({"user": 1200, "idle": 1000, "running": 2}, 0.0),  # busy, but no task waits
        ({"user": 1200, "idle": 1000, "running": 5}, 1.0),
        ({"user": 1100, "idle": 1100, "running": 5}, 0.5),
        ({"user": 1050, "idle": 1000, "steal": 150, "running": 1}, 0.75),  # a hypervisor's
    ],
)
def test_run_queue_and_steal_replace_missing_pressure_information(host, stat, expected):
    pressure = host.open()
    host.stat(**stat)
    host.now_s += 1
    assert pressure.sample() == pytest.approx(expected)


def test_pressure_is_zero_where_nothing_is_known(tmp_path):
    now_s = iter([1.0, 3.0])
    pressure = Pressure(tmp_path, lambda: next(now_s))
    assert pressure.sample() == 0
    pressure.close()
