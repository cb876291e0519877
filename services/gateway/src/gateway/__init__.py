"""The gateway: the events of all nodes, from NATS to gRPC streams."""

import os

# gRPC's event engine hands each response from thread to thread. The poller that it replaces does
# so with half the wake-ups, and a busy host pays for each. gRPC reads this when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
