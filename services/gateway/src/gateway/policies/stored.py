"""A policy as the bucket has it, and how a message of the bucket is read."""

from __future__ import annotations

from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError

from bus import policies
from bus.direct import StoredMessage
from bus.policies import Key
from gateway.errors import RequestError
from tetra.v1.policies_pb2 import StoredPolicy


class Stored(NamedTuple):
    """The content of a key; ``sequence`` is that of its newest message, valid or not.

    ``damaged``: that message is not a gateway's, and ``policy`` is of one before it.
    ``expires``: it will leave the bucket, and the key with it.
    """

    sequence: int
    policy: StoredPolicy
    damaged: bool = False
    expires: bool = False
    stored_ns: int = 0


NOTHING = Stored(0, StoredPolicy())


class Conflict(RequestError):
    """Another change of the same policy came first."""

    def __init__(self, key: Key) -> None:
        super().__init__(
            f"policy {key}: another change came first: check it, and try again",
            grpc.StatusCode.ABORTED,
        )


def change_of(data: bytes) -> str:
    """Return what names the write of a stored policy."""
    try:
        return StoredPolicy.FromString(data).change
    except DecodeError:
        return ""


def decode(message: StoredMessage) -> StoredPolicy | None:
    """Return the policy in a message, None where it must not be used."""
    if message.reflected:
        return None
    try:
        policy = StoredPolicy.FromString(message.data)
    except DecodeError:
        return None
    ref = policy.policy
    key = policies.key_of(message.subject)
    return policy if Key(ref.name, ref.namespace, ref.domain) == key else None
