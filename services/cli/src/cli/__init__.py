"""The terminal client of Tetragon-mini: it renders the life cycle of processes."""

__version__ = "0.1.0"

import os

# gRPC's event engine passes each response from thread to thread, which takes seven wake-ups; the
# older poller takes two. A busy host pays for each wake-up. gRPC reads this when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
