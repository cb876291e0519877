"""Bounds of what a damaged file may claim."""

MAX_NUMBER = (1 << 62) - 1  # of events and times: room for what is counted on from them
