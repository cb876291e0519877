"""The state of the event stream at NATS, with the times that nats-py leaves out."""

from __future__ import annotations

import json
from typing import NamedTuple

from nats.aio.client import Client
from nats.js.errors import APIError

from bus.subjects import EVENTS_STREAM
from eventstream.history import time_ns


class StreamState(NamedTuple):
    """What nats-server reports of the stream; times are those of its clock."""

    created_ns: int
    messages: int
    last_sequence: int
    first_ns: int  # when the first message that it still has was stored, and the last
    last_ns: int

    @property
    def is_taken_over(self) -> bool:
        """Whether all of its messages are older than itself."""
        return self.messages > 0 and self.last_ns < self.created_ns

    def replaced(self, earlier: StreamState | None) -> bool:
        """Whether it is another stream than ``earlier``, and none of its messages are older.

        A stream that took over a deleted one's messages has their numbers, and continues it.
        """
        if earlier is None or earlier.created_ns == self.created_ns:
            return False
        return self.messages == 0 or self.first_ns >= self.created_ns


async def read(nc: Client, timeout_s: float) -> StreamState:
    """Ask nats-server; raise nats-py's errors."""
    reply = await nc.request(f"$JS.API.STREAM.INFO.{EVENTS_STREAM}", b"", timeout=timeout_s)
    info = json.loads(reply.data)
    if "error" in info:
        APIError.from_error(info["error"])  # raises
    state = info["state"]
    return StreamState(
        created_ns=time_ns(info["created"]),
        messages=state["messages"],
        last_sequence=state["last_seq"],
        first_ns=time_ns(state["first_ts"]),
        last_ns=time_ns(state["last_ts"]),
    )
