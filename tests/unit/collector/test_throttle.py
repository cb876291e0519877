"""What the collector does for throttling once a second, without a kernel."""

import pytest
from pydantic import ValidationError

from collector.bpf.rate import Rate
from collector.metadata.enricher import Enricher
from collector.records import layouts
from collector.records.layouts import ThrottleKey, ThrottleValue
from collector.settings import Settings
from collector.throttle import IDLE_NS, Throttle, Withheld
from support.stages import Stages
from tetragon.events_pb2 import THROTTLE_START, THROTTLE_STOP, GetEventsResponse
from unit.collector.synthetic import HOST_NS

RATE = Rate(10, 1_000_000_000)
SECOND_NS = 1_000_000_000
NOW_NS = 1000 * SECOND_NS


class Rates:
    """In place of the kernel's map."""

    def __init__(self):
        self.entries = {}

    def set(self, cgroup_id, over_ns=0, tracing=0, seen_ns=NOW_NS, policy=1):
        window = seen_ns // RATE.interval_ns
        value = ThrottleValue(window, 0, 1, 0, over_ns, 0, 0, 0, tracing)
        key = layouts.THROTTLE_KEY.format.pack(*ThrottleKey(cgroup_id, policy))
        self.entries[key] = layouts.THROTTLE_VALUE.format.pack(*value)

    def items(self):
        return list(self.entries.items())

    def delete(self, key):
        return self.entries.pop(key, None) is not None


@pytest.fixture
def rates():
    return Rates()


@pytest.fixture
def watched(rates):
    """What throttles the events of policies, and what it reported."""
    stages, events = Stages(Enricher(HOST_NS)), []

    def feed(record):
        events.extend(map(GetEventsResponse.FromString, stages.handle([record], 0)))

    throttle = Throttle(
        stages.throttled,
        feed,
        Withheld(),
        policy_rate=RATE,
        policy_map=lambda: rates,
        policy_name={1: "one"}.get,
    )
    return throttle, [events]


def reported(watched):
    """Return what was reported since the last call."""
    (events,) = watched[1]
    found = [(e.process_throttle.type, e.process_throttle.withheld.policy) for e in events]
    events.clear()
    return found


def test_beginning_without_room_in_the_ring_is_found_and_reported_once(rates, watched):
    throttle = watched[0]
    rates.set(5, over_ns=NOW_NS - 1, tracing=3)
    throttle.look(NOW_NS)
    assert reported(watched) == []  # its record can still be in the ring
    throttle.look(NOW_NS + 1)
    throttle.look(NOW_NS + 2)
    assert reported(watched) == [(THROTTLE_START, 0)]
    assert throttle.withheld.totals() == {"policy:one": 3}


def test_the_end_comes_after_the_hold_with_what_was_withheld_since_the_last(rates, watched):
    throttle = watched[0]
    for round_, total in enumerate((3, 10)):
        at_ns = NOW_NS + round_ * 20 * SECOND_NS
        rates.set(5, over_ns=at_ns, tracing=total, seen_ns=at_ns)
        throttle.look(at_ns)
        throttle.look(at_ns + RATE.hold_ns - 1)
        assert reported(watched) == [(THROTTLE_START, 0)]
        throttle.look(at_ns + RATE.hold_ns)
        throttle.look(at_ns + RATE.hold_ns + 1)
        assert reported(watched) == [(THROTTLE_STOP, total - 3 * round_)]
    assert throttle.withheld.totals() == {"policy:one": 10}


def test_a_cgroup_that_is_idle_is_forgotten_and_its_numbers_stay(rates, watched):
    throttle = watched[0]
    rates.set(5, over_ns=NOW_NS, tracing=3)
    throttle.look(NOW_NS)
    throttle.look(NOW_NS + RATE.hold_ns)
    assert len(rates.entries) == 1
    throttle.look(NOW_NS + IDLE_NS + 2 * SECOND_NS)
    assert not rates.entries
    rates.set(5, over_ns=NOW_NS, tracing=2)  # the cgroup is back
    throttle.look(NOW_NS)
    assert throttle.withheld.totals() == {"policy:one": 5}


def test_end_without_an_entry_is_reported(rates, watched):
    throttle = watched[0]
    rates.set(5, over_ns=NOW_NS)
    throttle.look(NOW_NS)
    throttle.look(NOW_NS)
    rates.entries.clear()  # another collector started with an empty map
    throttle.look(NOW_NS + 1)
    assert reported(watched) == [(THROTTLE_START, 0), (THROTTLE_STOP, 0)]


def test_the_state_is_saved_and_restored(rates, watched):
    throttle = watched[0]
    rates.set(5, over_ns=NOW_NS)
    throttle.look(NOW_NS)
    throttle.look(NOW_NS)
    saved = throttle.throttled.saved()
    throttle.throttled.cgroups.clear()
    throttle.throttled.restore(saved)
    throttle.look(NOW_NS + 1)
    assert reported(watched) == [(THROTTLE_START, 0)]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000,1s", Rate(1000, SECOND_NS)),
        ("5, 1m30s", Rate(5, 90 * SECOND_NS)),
        ("10,100ms", Rate(10, SECOND_NS // 10)),
        ("", None),
    ],
)
def test_a_rate_is_events_and_interval(text, rate):
    assert Settings.model_validate({"cgroup_rate": text}).cgroup_rate == rate


@pytest.mark.parametrize("text", ["1000", "0,1s", "-1,1s", "10,0s", "x,1s", "10,1 hour", "1,2h"])
def test_a_malformed_rate_is_rejected(text):
    with pytest.raises(ValidationError, match="expected"):
        Settings.model_validate({"cgroup_rate": text})
