"""matchActions and matchReturnActions."""

from __future__ import annotations

import re

from tracingpolicy.actions import ACTIONS, OWN_ACTIONS, ActionKind
from tracingpolicy.model import OWN_API, HookKind
from tracingpolicy.reading.context import HookContext, kind_of
from tracingpolicy.reading.document import Node
from tracingpolicy.reading.fields import U32, U64, Fields
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.selectors import Action
from tracingpolicy.types import TYPES, ArgumentType, Family
from tracingpolicy.values import RateLimitScope

MAX_SIGNAL = 64
_KEYS = ("action", *dict.fromkeys(key for info in ACTIONS.values() for key in info.keys))
_KINDS = {one.value: one for one in ActionKind}
_RATE = re.compile(r"([0-9]{1,20})([smhSMH]?)\Z")
_UNIT_MS = {"": 1000, "s": 1000, "m": 60_000, "h": 3_600_000}
_STACKS = ("kernelStackTrace", "userStackTrace")
_A, _H = ActionKind, HookKind
_WITH_STACKS = (_H.KPROBE, _H.FENTRY)
# hook kind -> actions that it refuses, as Tetragon does, with the reason.
_REFUSED: dict[HookKind, tuple[frozenset[ActionKind], str]] = {
    _H.FENTRY: (
        frozenset(kind for kind, info in ACTIONS.items() if info.enforces),
        "fentries only observe: write the hook in kprobes",
    ),
    _H.LSM: (
        frozenset(_A) - {_A.SIGKILL, _A.SIGNAL, _A.NO_POST, _A.OVERRIDE, _A.POST},
        "not an action of LSM hooks",
    ),
    _H.UPROBE: (frozenset({_A.GET_URL, _A.DNS_LOOKUP}), "not an action of uprobes"),
    _H.USDT: (frozenset({_A.GET_URL, _A.DNS_LOOKUP, _A.OVERRIDE}), "not an action of usdts"),
}


def read_action(report: Report, node: Node, path: str, hook: HookContext | None) -> Action | None:
    """Return one action; ``hook`` is None in a macro that no selector names."""
    fields = Fields(report, node, path, _KEYS, required=("action",))
    kind: ActionKind | None = fields.choice("action", _KINDS, None, "an action")
    with_stacks = hook is None or hook.kind in _WITH_STACKS
    action = Action(
        kind=kind or ActionKind.POST,
        rate_limit_ms=_rate_limit(fields),
        rate_limit_scope=_rate_limit_scope(fields),
        kernel_stack_trace=with_stacks and fields.flag("kernelStackTrace"),
        user_stack_trace=with_stacks and fields.flag("userStackTrace"),
        ima_hash=fields.flag("imaHash") and (hook is None or hook.kind is HookKind.LSM),
        arg_error=fields.number("argError", low=-(1 << 31), high=(1 << 31) - 1),
        arg_signal=fields.number("argSig"),
        arg_sock=fields.number("argSock"),
        arg_url=fields.text("argUrl"),
        arg_fqdn=fields.text("argFqdn"),
        arg_index=fields.number("argIndex"),
        arg_value=fields.number("argValue"),
        arg_regs=tuple(text for text, _ in fields.texts("argRegs")),
        arg_new_symbol=fields.text("argNewSymbol"),
        arg_new_address=_optional(fields, "argNewAddr"),
        arg_new_offset=_optional(fields, "argNewOffset"),
        place=fields.place(),
    )
    if kind is None:
        return None
    _check_keys(fields, action)
    if hook is not None:
        _check_hook(fields, action, hook)
    return action


def _optional(fields: Fields, key: str) -> int | None:
    return fields.number(key, high=U64) if fields.has(key) else None


def _rate_limit(fields: Fields) -> int:
    text = fields.text("rateLimit") or "0"  # empty: none, as in Tetragon
    match = _RATE.match(text)
    if match is None:
        if not fields.failed("rateLimit"):
            allowed = "a number of seconds, or a number with s, m or h"
            fields.fail(f"{quoted(text)} is not an interval", "rateLimit", allowed)
        return 0
    return min(int(match[1]) * _UNIT_MS[match[2].lower()], U32)


def _rate_limit_scope(fields: Fields) -> RateLimitScope:
    default = RateLimitScope.THREAD
    if fields.has("rateLimitScope") and fields.entries["rateLimitScope"].value == "":
        return default
    return fields.member("rateLimitScope", RateLimitScope, default, "a scope")


def _check_keys(fields: Fields, action: Action) -> None:
    """Check the keys that belong to one action."""
    kind = action.kind
    if kind is not ActionKind.POST:
        # rateLimitScope alone limits nothing, so it is accepted anywhere, as in Tetragon.
        for key in ("rateLimit", *_STACKS, "imaHash"):
            if fields.has(key) and fields.entries[key].value not in (False, ""):
                fields.fail(f"{key} belongs to action Post, not {kind.value}", key)
    needed = {
        ActionKind.GET_URL: "argUrl",
        ActionKind.DNS_LOOKUP: "argFqdn",
    }.get(kind, "")
    given = fields.has(needed) and fields.entries[needed].value != ""
    if needed and not given and not fields.failed(needed):
        fields.fail(f"action {kind.value} needs {needed}", needed if fields.has(needed) else "")
    if kind is ActionKind.SIGNAL and not fields.failed("argSig"):
        if action.arg_signal > MAX_SIGNAL:
            fields.fail(f"there is no signal {action.arg_signal}", "argSig", f"1 to {MAX_SIGNAL}")
        elif not action.arg_signal:
            fields.doubt("signal 0 has no effect; argSig is the signal")
    jumps = [key for key in ("argNewSymbol", "argNewAddr", "argNewOffset") if fields.has(key)]
    if len(jumps) > 1:
        fields.fail(
            f"{jumps[1]} beside {jumps[0]}",
            jumps[1],
            "one of argNewSymbol, argNewAddr, argNewOffset",
        )


def _check_hook(fields: Fields, action: Action, hook: HookContext) -> None:
    """Check that the hook can do the action."""
    kind = action.kind
    refused, reason = _REFUSED.get(hook.kind, (frozenset(), ""))
    if kind in refused:
        fields.fail(f"{kind.value}: {reason}", "action")
        return
    _check_extras(fields, hook.kind)
    if kind is ActionKind.OVERRIDE and hook.kind is HookKind.TRACEPOINT:
        fields.doubt("Override: a tracepoint has no result to override", "action")
    if kind is ActionKind.OVERRIDE and hook.kind is HookKind.KPROBE and not hook.overridable:
        fields.fail("Override works on system calls and security_ functions only", "action")
    if kind is ActionKind.SET and hook.kind not in (HookKind.USDT, HookKind.UPROBE):
        fields.fail("Set works in usdts and uprobes only", "action")
    if kind is ActionKind.NOTIFY_ENFORCER and not hook.policy.has_enforcers:
        fields.fail("NotifyEnforcer needs spec.enforcers", "action")
    if kind in OWN_ACTIONS and not hook.policy.own_api:
        fields.fail(f"Tetragon has no action {kind.value}", "action", f"apiVersion: {OWN_API}")
    if "argSock" in ACTIONS[kind].keys:
        _check_socket(fields, action, hook)
    if kind in OWN_ACTIONS:
        _check_count(fields, action, hook)
    if "argIndex" in ACTIONS[kind].keys and action.arg_index >= len(hook.args):
        fields.fail(
            f"position {action.arg_index} is not in the hook's args",
            "argIndex" if fields.has("argIndex") else "",
        )


def _check_extras(fields: Fields, kind: HookKind) -> None:
    """Check what only events of some kinds have: the others ignore it, as in Tetragon."""
    for key in _STACKS:
        if not fields.flag(key) or kind in _WITH_STACKS:
            continue
        message = f"events of {kind.value} have no stack traces"
        if kind is HookKind.LSM:
            fields.fail(message, key, "stack traces in kprobes and fentries")
        else:
            fields.doubt(message, key)
    if fields.flag("imaHash") and kind is not HookKind.LSM:
        fields.doubt(f"events of {kind.value} have no IMA hash", "imaHash")


def _check_socket(fields: Fields, action: Action, hook: HookContext) -> None:
    key = "argSock" if fields.has("argSock") else ""
    if action.arg_sock >= len(hook.args):
        has = f"0 to {len(hook.args) - 1}" if hook.args else "an argument of type sock"
        fields.fail(f"position {action.arg_sock} is not in the hook's args", key, has)
        return
    kind = kind_of(hook.args[action.arg_sock])
    if kind not in (None, ArgumentType.SOCK, ArgumentType.SOCKET, ArgumentType.FD_SOCK):
        assert kind is not None
        message = f"argument {action.arg_sock} is of type {kind.value}"
        fields.fail(message, key, "an argument of type sock or socket")


def _check_count(fields: Fields, action: Action, hook: HookContext) -> None:
    if action.arg_index < len(hook.args):
        kind = kind_of(hook.args[action.arg_index])
        if kind is not None and TYPES[kind].family is not Family.NUMBER:
            message = f"argument {action.arg_index} is of type {kind.value}, which is no number"
            fields.fail(message, "argIndex" if fields.has("argIndex") else "")
