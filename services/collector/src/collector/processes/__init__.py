"""The process table: running processes, their parents and start times."""
