"""Fixtures of tests with a fleet of nodes."""

import pytest

from support.fleet import fleet, known


@pytest.fixture
async def start_nodes(nats_server, gateway, tmp_path):
    """Start nodes without a kernel and wait until the gateway knows them.

    ``options``: a function from a node's name to options of `Fleet.start`.
    """
    async with fleet(nats_server.url, tmp_path / "nodes") as found:

        async def start(*names, options=lambda name: {}):
            for name in names:
                found.start(name, **options(name))
            await known(gateway.gateway.fleet, found)
            return found

        yield start
