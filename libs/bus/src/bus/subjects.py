"""Names on the bus.

A node's name becomes one subject token: every byte outside ``[A-Za-z0-9_-]`` is written ``=XX``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

EVENTS_STREAM = "TETRA_EVENTS"
EVENTS_PREFIX = "tetra.events."
EVENTS_ALL = EVENTS_PREFIX + ">"
CONTROL_ALL = "tetra.control"
ANSWERS_PREFIX = "tetra.answers."

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def escape(node: str) -> str:
    """Return ``node`` as a subject token; raise `ValueError` for the empty name."""
    if not node:
        raise ValueError("node name is empty")
    return _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], node.encode()).decode()


def unescape(token: str) -> str:
    """Return the node name that `escape` made ``token`` from."""
    return unquote(token.replace("=", "%"))


@lru_cache(4096)  # for each message that is read
def events_subject(node: str) -> str:
    """Return the subject of the node's event batches."""
    return EVENTS_PREFIX + escape(node)


def control_subject(node: str) -> str:
    """Return the subject on which the node's collector answers."""
    return f"{CONTROL_ALL}.{escape(node)}"


# The last token of a reply subject, where an answer has its node: no node's name is escaped to it.
# A user whose rights end in ``*`` may subscribe to ``>`` there, so the token is a fixed one.
_NO_NODE = "="


def reply_subject(token: str) -> str:
    """Return the reply subject of a request to collectors; ``token`` is the request's own."""
    return f"{ANSWERS_PREFIX}{token}.{_NO_NODE}"


def answer_subject(reply: str, node: str) -> str:
    """Return the subject of the node's answers to a request that names ``reply``."""
    return f"{reply.removesuffix(_NO_NODE)}{escape(node)}"


def answers(reply: str) -> str:
    """Return the subject of all nodes' answers to a request that names ``reply``."""
    return f"{reply.removesuffix(_NO_NODE)}*"


def node_of(subject: str) -> str:
    """Return the node that a subject ends with."""
    return unescape(subject.rpartition(".")[2])


def message_id(node: str, boot_id: str, first_sequence: int) -> str:
    """Return the ``Nats-Msg-Id`` by which JetStream knows a republished batch."""
    return f"{escape(node)}:{boot_id}:{first_sequence}"
