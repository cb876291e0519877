"""The gateway: the events of all nodes, from NATS to gRPC streams."""

import os

# gRPC's event engine passes each response from thread to thread. The older poller needs half the
# wake-ups, and a busy host pays for each wake-up. gRPC reads this when it is imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
