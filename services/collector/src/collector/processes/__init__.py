"""The process table: who runs, whose child, since when."""
