"""A stream that is larger than the disk of NATS is reported with the setting that limits it."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from gateway.main import Gateway
from gateway.settings import Settings
from support.nats_server import NatsServer
from support.waiting import eventually


@pytest.fixture
def small_server(tmp_path):
    config = tmp_path / "nats.conf"
    config.write_text("jetstream { max_file_store: 100MB }\n")
    server = NatsServer(tmp_path, "-c", str(config))
    server.start()
    yield server
    server.stop(kill=True)


async def test_stream_that_does_not_fit_names_its_setting(small_server, capsys):
    settings: dict[str, Any] = {
        "nats_url": small_server.url, "listen_address": "127.0.0.1:0", "stream_max_bytes": 1 << 30,
    }  # fmt: skip
    gateway = Gateway(Settings(**settings))
    task = asyncio.create_task(gateway.run())
    printed = ""

    def warned():
        nonlocal printed
        printed += capsys.readouterr().out
        return "stream unavailable" in printed

    try:
        await eventually(warned)
        assert (
            f"TETRA_STREAM_MAX_BYTES is {1 << 30}, more than the disk space that NATS may use"
            in printed
        )
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
