"""The terminal client of Tetragon-mini: it renders the life cycle of processes."""

__version__ = "0.1.0"

import os

# gRPC's event engine hands each response from thread to thread: seven wake-ups, with the poller
# that it replaces two, and a busy host pays for each. gRPC reads this when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
