"""Property tests of this suite look at few examples: `make fuzz` searches for long."""

import gc

from hypothesis import settings

# No deadline: a busy machine may stop any example for a second.
settings.register_profile("unit", max_examples=40, deadline=None)
settings.load_profile("unit")


def pytest_collection():
    """Collect without garbage collection: what is made lives until the end."""
    gc.disable()


def pytest_collection_finish():
    """Leave what collection made out of garbage collection."""
    gc.freeze()
    gc.enable()
