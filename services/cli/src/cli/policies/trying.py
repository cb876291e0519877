"""A policy on trial: loaded while a call is open, its events read beside it, counted, shown."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from cli.address import ServerOptions
from cli.client import Client
from cli.policies.calls import PolicyCalls
from cli.policies.trial import Trial
from cli.screen import Feed
from tetra.v1.policies_pb2 import TryPolicyRequest, TryPolicyUpdate
from tetra.v1.stream_pb2 import StreamEventsRequest

_EVERY_S = 0.25
_DRAIN_S = 3.0  # after the end, for events that were posted but have not arrived
_POLL_S = 0.05
_EARLIER_S = 60  # by so much clocks of nodes and this host may differ

Draw = Callable[[Trial, float | None], None]


class _Updates:
    """The answers of the trial's call, read in a thread; closing it ends the trial."""

    def __init__(self, options: ServerOptions, request: TryPolicyRequest) -> None:
        self._client = Client(options)
        self._request = request
        self._queue: queue.Queue[TryPolicyUpdate | BaseException] = queue.Queue()
        threading.Thread(target=self._read, name="trial", daemon=True).start()

    def _read(self) -> None:
        try:
            for update in PolicyCalls(self._client).try_policy(self._request):
                self._queue.put(update)
        except BaseException as error:  # carried to the main thread
            self._queue.put(error)

    def first(self) -> TryPolicyUpdate:
        """Wait for the first update; raise what the call raised."""
        return self._checked(self._queue.get())

    def waiting(self) -> Iterator[TryPolicyUpdate]:
        """Yield the updates that have come; raise what the call raised."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            yield self._checked(item)

    def close(self) -> None:
        """Cancel the call: the gateway has the policy removed at once."""
        self._client.__exit__(None, None, None)

    def _checked(self, item: TryPolicyUpdate | BaseException) -> TryPolicyUpdate:
        if isinstance(item, BaseException):
            raise item
        return item


def run_trial(options: ServerOptions, request: TryPolicyRequest, trial: Trial, draw: Draw) -> bool:
    """Try the policy until its time is over; ``draw`` is called at intervals.

    Return whether it ran to its end: False after Ctrl-C. The policy is removed in any case.
    """
    # The first events can come before the stream that carries them is there: so it begins earlier.
    events = StreamEventsRequest()
    events.since.FromNanoseconds(time.time_ns() - _EARLIER_S * 10**9)
    updates = _Updates(options, request)
    complete = False
    try:
        with suppress(KeyboardInterrupt):
            trial.update = updates.first()
            with Client(options) as client:
                events.allow_list.add(policy_names=[trial.update.policy_name])
                feed = Feed(client, events)
                try:
                    with suppress(KeyboardInterrupt):
                        _follow(updates, feed, trial, draw)
                        complete = True
                finally:
                    updates.close()
                _drain(feed, trial)
    finally:
        updates.close()
    return complete


def _follow(updates: _Updates, feed: Feed, trial: Trial, draw: Draw) -> None:
    draw_s = updated_s = time.monotonic()
    while not trial.update.last:
        for update in updates.waiting():
            trial.update, updated_s = update, time.monotonic()
        feed.drain(trial, time.monotonic() + _POLL_S)
        now_s = time.monotonic()
        if now_s >= draw_s:
            left_s = trial.update.remaining.ToTimedelta().total_seconds() - (now_s - updated_s)
            draw(trial, left_s)
            draw_s = now_s + _EVERY_S
        time.sleep(_POLL_S)


def _drain(feed: Feed, trial: Trial) -> None:
    """Take the events that have not arrived yet."""
    end_s = time.monotonic() + _DRAIN_S
    while trial.events < trial.posted and time.monotonic() < end_s:
        if not feed.drain(trial, end_s):
            return
        time.sleep(_POLL_S)
