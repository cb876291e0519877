"""The messages of one pull consumer, in the order of its numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus.subjects import EVENTS_STREAM

PULL_BATCHES = 512
PULL_BYTES = 2 << 20  # besides room for the largest messages
HEARTBEAT_S = 1.0
SILENCE_S = 3.5  # the consumer is given up after this long without a heartbeat
EXPIRES_S = 30
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}."


class Pull:
    """One consumer: requests messages and checks that their numbers are consecutive."""

    def __init__(
        self,
        nc: Client,
        consumer: str,
        receive: Callable[[Msg, int, int], None],
        disturbed: asyncio.Event,
    ) -> None:
        self._nc = nc
        self._consumer = consumer
        self._receive = receive
        self._disturbed = disturbed
        self._inbox = nc.new_inbox()
        self._delivered = 0
        self._wanted = 0
        self._heard_at = 0.0
        self._stopped = False

    async def start(self) -> None:
        """Subscribe, and ask for the first messages."""
        self._heard_at = asyncio.get_running_loop().time()
        self._subscription = await self._nc.subscribe(
            self._inbox, cb=self._on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )
        await self._ask()

    async def watch(self, may_rest: Callable[[], bool]) -> None:
        """Return when this consumer must be replaced, or is not needed."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._heard_at < SILENCE_S and not may_rest():
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._disturbed.wait()
                return
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Receive no more."""
        self._stopped = True
        if not self._nc.is_closed and not self._nc.is_draining:
            await self._subscription.unsubscribe()

    async def _ask(self) -> None:
        self._wanted = PULL_BATCHES
        request = {
            "batch": PULL_BATCHES,
            "max_bytes": 2 * self._nc.max_payload + PULL_BYTES,
            "expires": EXPIRES_S * 1_000_000_000,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        await self._nc.publish(
            _NEXT + self._consumer, json.dumps(request).encode(), reply=self._inbox
        )

    async def _on_message(self, message: Msg) -> None:
        if self._stopped or self._disturbed.is_set():
            return
        self._heard_at = asyncio.get_running_loop().time()
        status = message.headers.get("Status") if message.headers else None
        if status == "100":  # heartbeat
            return
        if status in ("404", "408"):  # the request ended: no messages, or it expired
            await self._ask()
            return
        if (
            status == "409"
            and message.headers
            and "eleted" not in message.headers.get("Description", "")
        ):  # the request ended: its bytes are used up
            await self._ask()
            return
        if status is not None:
            self._disturbed.set()
            return
        # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>,
        # with domain and account before the stream's name on some servers.
        tokens = message.reply.split(".")
        sequence, delivered, stored_ns = int(tokens[-4]), int(tokens[-3]), int(tokens[-2])
        if len(tokens) > 9:  # the long form has a random token at the end
            sequence, delivered, stored_ns = (int(tokens[at]) for at in (7, 8, 9))
        if delivered != self._delivered + 1:
            self._disturbed.set()
            return
        self._delivered = delivered
        self._receive(message, sequence, stored_ns)
        self._wanted -= 1
        if self._wanted == 0:
            await self._ask()
