"""The state that a collector leaves for the next one: the saved process table and the journal."""
