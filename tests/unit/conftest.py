"""Property tests of this suite look at few examples: `make fuzz` searches for long."""

from hypothesis import settings

# No deadline: a busy machine may stop any example for a second.
settings.register_profile("unit", max_examples=40, deadline=None)
settings.load_profile("unit")
