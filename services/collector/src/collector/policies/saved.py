"""The form of the policy table in the saved process table and in the journal."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from collector.policies.table import Argument, EventKind, Hook, LoadedPolicy
from tetra.v1.policy_pb2 import PolicyArgument, PolicyHook, PolicyRevision

_KINDS = {
    EventKind.KPROBE: PolicyHook.KIND_KPROBE,
    EventKind.TRACEPOINT: PolicyHook.KIND_TRACEPOINT,
    EventKind.UPROBE: PolicyHook.KIND_UPROBE,
    EventKind.USDT: PolicyHook.KIND_USDT,
    EventKind.LSM: PolicyHook.KIND_LSM,
    EventKind.LOADER: PolicyHook.KIND_LOADER,
}
_KINDS_BY_NUMBER = {number: kind for kind, number in _KINDS.items()}


def to_message(policy: LoadedPolicy) -> PolicyRevision:
    """Return the revision as a message."""
    return PolicyRevision(
        number=policy.number,
        revision=policy.revision,
        name=policy.name,
        namespace=policy.namespace,
        domain=policy.domain,
        hooks=[_hook_message(hook) for hook in policy.hooks],
    )


def from_message(saved: PolicyRevision) -> LoadedPolicy:
    """Return the revision that was saved; raise ValueError for one of a later version."""
    return LoadedPolicy(
        saved.number,
        saved.revision,
        saved.name,
        saved.namespace,
        saved.domain,
        tuple(_hook(hook) for hook in saved.hooks),
    )


def from_bytes(data: bytes) -> LoadedPolicy:
    """Return the revision in the payload of a journal entry; raise ValueError."""
    try:
        return from_message(PolicyRevision.FromString(data))
    except DecodeError as error:
        raise ValueError(f"policy revision: {error}") from None


def _hook_message(hook: Hook) -> PolicyHook:
    return PolicyHook(
        kind=_KINDS[hook.kind],
        function=hook.function,
        subsystem=hook.subsystem,
        event=hook.event,
        path=hook.path,
        symbol=hook.symbol,
        offset=hook.offset,
        ref_ctr_offset=hook.ref_ctr_offset,
        provider=hook.provider,
        name=hook.name,
        message=hook.message,
        tags=hook.tags,
        args=map(_argument_message, hook.args),
        data=map(_argument_message, hook.data),
        returned=_argument_message(hook.returned) if hook.returned else None,
    )


def _argument_message(argument: Argument) -> PolicyArgument:
    return PolicyArgument(type=argument.type, label=argument.label)


def _hook(saved: PolicyHook) -> Hook:
    kind = _KINDS_BY_NUMBER.get(saved.kind)
    if kind is None:
        raise ValueError(f"policy hook of unknown kind {saved.kind}")
    return Hook(
        kind,
        function=saved.function,
        subsystem=saved.subsystem,
        event=saved.event,
        path=saved.path,
        symbol=saved.symbol,
        offset=saved.offset,
        ref_ctr_offset=saved.ref_ctr_offset,
        provider=saved.provider,
        name=saved.name,
        message=saved.message,
        tags=tuple(saved.tags),
        args=tuple(map(_argument, saved.args)),
        data=tuple(map(_argument, saved.data)),
        returned=_argument(saved.returned) if saved.HasField("returned") else None,
    )


def _argument(saved: PolicyArgument) -> Argument:
    return Argument(saved.type, saved.label)
