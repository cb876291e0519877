"""Protobuf's wire format by hand, for messages that are passed on and never parsed.

``write`` makes fields, ``read`` finds them, ``splice`` joins serialized messages in C. No module
here knows a specific message: callers supply numbers and names of fields.
"""
