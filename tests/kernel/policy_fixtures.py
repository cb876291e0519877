"""Fixtures for the tests of policies; `conftest.py` imports them."""

from collections.abc import Generator

import pytest

from support.policies import Machine


@pytest.fixture(scope="session")
def policies() -> Generator[Machine, None, None]:
    """Maps that policies share, and a cache of compiled texts."""
    machine = Machine.create()
    yield machine
    machine.close()
