"""Batches on the bus, and the spool for times when it is unreachable."""
