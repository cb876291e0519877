"""The connection to NATS: what must hold before there is one."""

import asyncio

import pytest

from bus import connection
from bus.settings import BusSettings
from chassis.settings import ServiceSettings, load


class Settings(ServiceSettings, BusSettings):
    """As a service has them."""


@pytest.mark.parametrize("turns", range(12))
async def test_a_first_connect_ends_when_it_is_cancelled(turns):
    # Port 9 refuses at once: a cancellation after any number of turns of the loop must hold.
    settings = load(Settings, "test", ["--nats-url", "nats://127.0.0.1:9"])
    task = asyncio.create_task(connection.connect(settings, "test"))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,), timeout=20)
    assert task.cancelled()
