"""Tracing policies of the fleet: what is wanted, how nodes do, and changes."""
