"""Requests to collectors, and their answers.

A request names the reply subject ``tetra.answers.<token>.=``. A collector answers on that subject
with its own node in the place of ``=``, so the NATS server decides in whose name a collector may
answer. An inbox with NATS's ``allow_responses`` cannot do that: a user that sends itself a request
may then publish on any subject that it named as reply.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import cancellable

_NO_RESPONDERS = "503"


@cancellable
async def ask(
    nc: Client,
    node: str,
    request: bytes,
    receive: Callable[[str, bytes], bool],
    timeout_s: float,
    linger_s: float = 0.0,
) -> None:
    """Ask the collector of ``node``, or all where it is empty, for at most ``timeout_s``.

    ``receive`` gets the node and the bytes of each answer, and returns True when no more is wanted.
    Returns early when nothing listens, and ``linger_s`` after no more is wanted: answers that come
    meanwhile are received. Raises `nats.errors.Error`.
    """
    reply = subjects.reply_subject(secrets.token_hex(12))
    done = asyncio.Event()

    async def on_message(message: Msg) -> None:
        if message.headers:
            # Collectors send no headers. A message with headers is one of the stream, which
            # JetStream was asked to send here.
            if message.headers.get("Status") == _NO_RESPONDERS:
                done.set()
            return
        if receive(subjects.node_of(message.subject), message.data):
            done.set()

    # The server reports on the reply subject itself that nothing listens.
    wanted = (reply, subjects.answer_subject(reply, node)) if node else (subjects.answers(reply),)
    subscriptions = [await nc.subscribe(subject, cb=on_message) for subject in wanted]
    try:
        subject = subjects.control_subject(node) if node else subjects.CONTROL_ALL
        await nc.publish(subject, request, reply=reply)
        async with asyncio.timeout(timeout_s):
            await done.wait()
            await asyncio.sleep(linger_s)
    except TimeoutError:
        pass
    finally:
        if not nc.is_closed and not nc.is_draining:
            for subscription in subscriptions:
                await subscription.unsubscribe()


def is_request(message: Msg) -> bool:
    """Return whether a message on a control subject is a request that `ask` made."""
    return message.reply.startswith(subjects.ANSWERS_PREFIX) and not message.headers


async def answer(nc: Client, request: Msg, node: str, data: bytes) -> None:
    """Send one answer of ``node``; a request can have several. Raises `nats.errors.Error`."""
    await nc.publish(subjects.answer_subject(request.reply, node), data)
