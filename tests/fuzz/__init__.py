"""Fuzzing of what comes from outside; see ``make fuzz FUZZ=--help``."""
