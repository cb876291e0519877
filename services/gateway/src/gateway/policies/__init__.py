"""Tracing policies of the fleet: the desired state, the state of the nodes, and changes."""
