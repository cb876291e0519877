"""Checks of requests: the document, the selector, the mode, the size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc

from bus.policies import DEFAULT_DOMAIN, STATIC_DOMAIN, TRY_DOMAIN, Key
from gateway import rights
from gateway.errors import RequestError
from tetra.v1.policies_pb2 import NodeSelector, PolicyRef, StoredPolicy
from tetragon.sensors_pb2 import TP_MODE_ENFORCE, TP_MODE_MONITOR, TracingPolicyMode
from tracingpolicy import PolicyErrors, parse

MAX_DOCUMENT_BYTES = 256 << 10
MAX_POLICIES = 256
MAX_KEYS = 1000  # deleted policies have a key, too
MAX_TOTAL_BYTES = 16 << 20
_MAX_NAME_BYTES = 253
_MAX_TEXT_BYTES = 6000  # of a refusal: gRPC's clients accept 8 kB of metadata
_MAX_LINE = 1000  # characters
_READING = 2  # documents that are read at once, each in a thread
_MAX_SELECTOR = 1024  # names and labels
_RESERVED = (STATIC_DOMAIN, TRY_DOMAIN)
_GLOB = frozenset("*?[")


class Documents:
    """Reads documents beside the event loop: the largest take a second."""

    def __init__(self) -> None:
        # A pool of its own: a call that is cancelled leaves its thread at work, and streams need
        # the threads of the default one.
        self._pool = ThreadPoolExecutor(_READING, "document")

    async def key(self, yaml: str, domain: str) -> Key:
        """Return the key of the policy in a document; raise `RequestError` with its mistakes."""
        size = len(yaml.encode())
        if size > MAX_DOCUMENT_BYTES:
            raise RequestError(
                f"document: {size} bytes, at most {MAX_DOCUMENT_BYTES} are allowed",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _key_of_document, yaml, domain)


def _key_of_document(yaml: str, domain: str) -> Key:
    try:
        policy = parse(yaml, "policy")
    except PolicyErrors as errors:
        raise RequestError(_shortened(errors)) from None
    return _checked(Key(policy.name, policy.namespace, domain or DEFAULT_DOMAIN))


def _shortened(errors: PolicyErrors) -> str:
    lines: list[str] = []
    left = _MAX_TEXT_BYTES
    for number, mistake in enumerate(errors.mistakes):
        line = str(mistake)[:_MAX_LINE]
        left -= _sent_bytes(line) + _sent_bytes("\n")
        if left < 0:
            return "\n".join([*lines, f"and {len(errors.mistakes) - number} more mistakes"])
        lines.append(line)
    return "\n".join(lines)


def _sent_bytes(text: str) -> int:
    """Return the size of a status text in gRPC's metadata, where most bytes become %XX."""
    return sum(1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3 for byte in text.encode())


def key_of(ref: PolicyRef) -> Key:
    """Return the key that a request names; raise `RequestError`."""
    if not ref.name:
        raise RequestError("policy: a name is needed")
    return _checked(Key(ref.name, ref.namespace, ref.domain or DEFAULT_DOMAIN))


def _checked(key: Key) -> Key:
    if key.domain in _RESERVED:
        hint = ": its policies are files on each node" if key.domain == STATIC_DOMAIN else ""
        raise RequestError(f"domain {key.domain} is reserved for internal use{hint}")
    for text in key:
        if len(text.encode()) > _MAX_NAME_BYTES or any(ord(one) < 0x20 for one in text):
            raise RequestError(f"policy {key}: name too long, or with control characters")
    return key


def missing(key: Key) -> RequestError:
    """Return the error for a policy that does not exist."""
    return RequestError(f"tracing policy {key} does not exist", grpc.StatusCode.NOT_FOUND)


def mode_of(mode: TracingPolicyMode.ValueType) -> TracingPolicyMode.ValueType:
    """Return a mode that can be set; raise `RequestError`."""
    if mode not in (TP_MODE_ENFORCE, TP_MODE_MONITOR):
        name = TracingPolicyMode.Name(mode) if mode in TracingPolicyMode.values() else str(mode)
        raise RequestError(f"unexpected mode: {name}")
    return mode


def granted_selector(selector: NodeSelector) -> NodeSelector:
    """Return the nodes that the request may choose; raise `RequestError` for others."""
    if len(selector.names) + len(selector.labels) + len(selector.except_names) > _MAX_SELECTOR:
        raise RequestError(f"nodes: more than {_MAX_SELECTOR} names and labels")
    granted = rights.granted_nodes()
    if not granted:
        return selector
    found = NodeSelector()
    found.CopyFrom(selector)
    if not found.names:
        found.names.extend(sorted(granted))
    check_granted(found)
    return found


def check_granted(selector: NodeSelector) -> None:
    """Raise `RequestError` if the token may not change a policy of these nodes."""
    granted = rights.granted_nodes()
    if not granted:
        return
    beyond = [name for name in selector.names if name not in granted]
    if not selector.names or beyond:
        what = f"node {beyond[0]}" if beyond else "all nodes"
        raise RequestError(
            f"{what}: the token does not grant it", grpc.StatusCode.PERMISSION_DENIED
        )


def is_glob(name: str) -> bool:
    """Return whether a name of a selector stands for several nodes."""
    return not _GLOB.isdisjoint(name)


def check_room(key: Key, yaml: str, others: Iterable[tuple[Key, StoredPolicy]]) -> None:
    """Raise `RequestError` if there is no room for one more policy."""
    keys, alive, size = 1, 1, len(yaml)
    for other, stored in others:
        if other == key:
            continue
        keys += 1
        if stored.HasField("candidate") or not stored.current.deleted:
            alive += 1
            size += len(stored.current.yaml) + len(stored.candidate.spec.yaml)
    for found, most, what in (
        (alive, MAX_POLICIES, "policies"),
        (keys, MAX_KEYS, "policies, deleted ones included"),
        (size, MAX_TOTAL_BYTES, "bytes of documents"),
    ):
        if found > most:
            raise RequestError(
                f"policy {key}: {found} {what}, at most {most} are allowed: delete some",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
