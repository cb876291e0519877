"""Waits between attempts grow, have a limit, and begin again after a success."""

from chassis.backoff import Backoff


def test_waits_double_to_their_limit():
    backoff = Backoff(0.1, 1.0)
    longest = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    for most_s in longest:
        assert most_s / 2 <= backoff.next_s() <= most_s
    assert backoff.attempts == len(longest)
    assert backoff.is_longest


def test_delays_restart_after_a_success():
    backoff = Backoff(0.1, 1.0)
    for _ in range(1000):  # no overflow
        backoff.next_s()
    backoff.reset()
    assert not backoff.is_longest
    assert backoff.next_s() <= 0.1


def test_clients_do_not_wait_the_same_time():
    assert len({Backoff(1.0, 1.0).next_s() for _ in range(20)}) > 10
