"""Fixtures for the tests of policies; `conftest.py` imports them."""

from collections.abc import AsyncGenerator, Generator

import pytest

from support.policies import Machine
from support.policy_node import Node


@pytest.fixture(scope="session")
def policies() -> Generator[Machine, None, None]:
    """Maps that policies share, and a cache of compiled texts."""
    machine = Machine.create()
    yield machine
    machine.close()


@pytest.fixture
async def node(policies, tmp_path) -> AsyncGenerator[Node, None]:
    """A manager of policies and the stages from record to event."""
    node = Node(policies, tmp_path)
    yield node
    await node.manager.close()


@pytest.fixture(name="opened")
def opened_file(tmp_path):
    """A file of this test, so that no other process opens it."""
    path = tmp_path / "opened"
    path.write_text("content\n")
    return path
