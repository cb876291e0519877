"""lsmhooks: by which mechanism, with which arguments.

Programs stand at the entry of ``bpf_lsm_HOOK``, which the kernel calls where every other security
module has agreed, and a gate of kind LSM carries out Override. Where BPF is no active security
module: the same at ``security_HOOK``, ahead of the other modules.
"""

from __future__ import annotations

from collector.policies.check import Checker, Function, path_of
from collector.policies.plan import (
    HookState,
    HookStatus,
    Mechanism,
    OverrideBy,
    PlannedArgument,
    PlannedHook,
    Target,
)
from collector.policies.plan_arguments import plan_arguments
from collector.policies.plan_filters import retyped
from collector.policies.plan_functions import signature_of
from collector.policies.plan_override import choose_lsm_override
from collector.policies.trampolines import why_no_trampoline
from tracingpolicy.model import Lsm
from tracingpolicy.reading.report import nearest, quoted

_M = Mechanism
# Functions that call an LSM hook with the same arguments under another name (security/security.c).
_SECURITY = {"bprm_check_security": "security_bprm_check"}


def plan_lsm(checker: Checker, hook: Lsm) -> tuple[tuple[PlannedHook, ...], HookStatus]:
    """Return the planned hook of an element of lsmhooks, and its status."""
    nothing = HookStatus(hook=hook, state=HookState.LOADED)
    function = checker.host.function(f"bpf_lsm_{hook.hook}")
    if function is None:
        _unknown(checker, hook)
        return (), nothing
    args = plan_arguments(checker, hook, signature_of(function))
    hashed = any(action.ima_hash for one in hook.selectors for action in one.actions)
    chosen = _choose(checker, hook, function, args or (), hashed)
    if args is None or chosen is None:
        return (), nothing
    entry, used, by, note = chosen
    override = choose_lsm_override(checker, hook, by, used.name, used.proto.id)
    planned = _planned(checker, hook, args, entry, used, override, hashed, note)
    shown = (entry,) if entry is _M.LSM else (entry, Mechanism(by.value))
    return (planned,), HookStatus(hook=hook, state=HookState.LOADED, mechanisms=shown, note=note)


def _planned(
    checker: Checker, hook: Lsm, args: tuple[PlannedArgument, ...], entry: Mechanism,
    used: Function, override: OverrideBy | None, hashed: bool, note: str,
) -> PlannedHook:  # fmt: skip
    return PlannedHook(
        hook=retyped(checker, hook, args, (), None),
        entry=entry,
        targets=(_target(hook, used),),
        args=args,
        sleepable=hashed,
        override=override,
        note=note,
    )


def _target(hook: Lsm, used: Function) -> Target:
    return Target(
        name=hook.hook,
        attach=used.name,
        btf_id=used.proto.id,
        parameters=len(used.proto.params),
    )


def _unknown(checker: Checker, hook: Lsm) -> None:
    names = [
        name.removeprefix("bpf_lsm_")
        for name in checker.host.functions
        if name.startswith("bpf_lsm_")
    ]
    near = ", ".join(nearest(hook.hook, names))
    allowed = f"nearest: {near}" if near else ""
    if not names:
        allowed = "this kernel has no BPF LSM: CONFIG_BPF_LSM"
    message = f"there is no LSM hook {quoted(hook.hook)}"
    checker.fail(hook.place, path_of(hook), message, allowed, "hook")


def _choose(
    checker: Checker, hook: Lsm, function: Function, args: tuple[PlannedArgument, ...], hashed: bool
) -> tuple[Mechanism, Function, OverrideBy, str] | None:
    """Return mechanism, function, what carries out Override, and a note; None after a mistake."""
    host, what = checker.host, f"LSM hook {hook.hook}"
    if hashed:  # only a sleepable LSM program can ask for the hash
        chosen = checker.choose(hook, [(_M.LSM, None)], what, sleepable=True)
        return (_M.LSM, function, OverrideBy.RESULT, chosen[2]) if chosen else None
    reasons = []
    security = host.function(_SECURITY.get(hook.hook, f"security_{hook.hook}"))
    for used, by, kind in (
        (function, OverrideBy.LSM, _M.LSM),
        (security, OverrideBy.FMOD_RET, _M.FMOD_RET),
    ):
        if used is None:
            continue
        why = host.why_not(kind, False)
        if why:
            reasons.append(f"{kind.value}: {why}")
            continue
        for entry in (_M.FENTRY, _M.KPROBE):
            why = host.why_not(entry, False)
            if entry is _M.FENTRY and not why:
                why = why_no_trampoline(host, [_target(hook, used)], args)
            if not why:
                return entry, used, by, "; ".join(reasons)
            reasons.append(f"{entry.value}: {why}")
    checker.fail(hook.place, path_of(hook), f"{what} cannot be hooked here: {'; '.join(reasons)}")
    return None
