"""``tetra-exporter``: reads the stream of all nodes' events and writes it to sinks.

Each sink has a worker of its own with its own position in the stream, so a slow or dead sink delays
no other: ``reader`` (batches from a place on) → ``selection`` (filters, rate limit) → ``formats`` →
``sinks`` → ``place`` (saved when the sink has the events).
"""
