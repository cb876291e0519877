"""Policies of the fleet on the bus: the bucket, its keys, the status subjects, the selector.

The bucket is a key-value bucket of JetStream: a stream with a subject for each key. Gateways write
with compare-and-set. Collectors read by direct get, which needs no right to make a consumer: with
that right a collector could have any stream delivered to any subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from bus.subjects import escape, unescape

BUCKET = "TETRA_POLICIES"
BUCKET_STREAM = f"KV_{BUCKET}"
KEYS_PREFIX = f"$KV.{BUCKET}."
KEYS_ALL = f"{KEYS_PREFIX}>"
STATUS_PREFIX = "tetra.policies."
STATUS_ALL = f"{STATUS_PREFIX}>"
AUDIT_STREAM = "TETRA_AUDIT"
AUDIT_SUBJECT = "tetra.audit"

DEFAULT_DOMAIN = "grpc"
STATIC_DOMAIN = "static"  # files of a node, which are not in the bucket
TRY_DOMAIN = "try"
# A namespace that is empty; no name is escaped to it.
_NONE = "="


class Key(NamedTuple):
    """Two documents with equal keys are revisions of one policy."""

    name: str
    namespace: str = ""
    domain: str = DEFAULT_DOMAIN

    @property
    def subject(self) -> str:
        """The subject of the bucket's stream."""
        space = escape(self.namespace) if self.namespace else _NONE
        return f"{KEYS_PREFIX}{escape(self.domain)}.{space}.{escape(self.name)}"

    def __str__(self) -> str:
        scoped = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.domain}:{scoped}"


def key_of(subject: str) -> Key | None:
    """Return the key of a subject of the bucket, None where it is not one that we write."""
    tokens = subject.removeprefix(KEYS_PREFIX).split(".")
    if len(tokens) != 3:
        return None
    domain, space, name = tokens
    return Key(unescape(name), "" if space == _NONE else unescape(space), unescape(domain))


def status_subject(node: str) -> str:
    """Return the subject on which the node's collector publishes its policies."""
    return STATUS_PREFIX + escape(node)


class Selector(Protocol):
    """tetra.v1.NodeSelector."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def except_names(self) -> Sequence[str]: ...


def selects(selector: Selector, node: str, labels: Mapping[str, str]) -> bool:
    """Return whether the node with these labels is selected."""
    if selector.names and not _matches(selector.names, node):
        return False
    if _matches(selector.except_names, node):
        return False
    return all(labels.get(key) == value for key, value in selector.labels.items())


def _matches(patterns: Sequence[str], node: str) -> bool:
    return any(pattern == node or fnmatchcase(node, pattern) for pattern in patterns)
