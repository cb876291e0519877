"""The terminal client of Tetragon-mini: it renders the life cycle of processes."""

__version__ = "0.1.0"
