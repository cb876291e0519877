"""Limits for values from a file, which may be damaged."""

MAX_NUMBER = (1 << 62) - 1  # of event numbers and times: leaves room for later ones
