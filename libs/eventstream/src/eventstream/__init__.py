"""The stream of all nodes' events in JetStream, for its readers.

``history`` reads batches from any position, ``batch`` is one of them, ``continuity`` proves that
none is missing or reports what is, ``copies`` compares the copies that NATS's servers hold.
"""
