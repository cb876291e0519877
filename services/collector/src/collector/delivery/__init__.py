"""Batches on the bus, and the spool for the time without it."""
