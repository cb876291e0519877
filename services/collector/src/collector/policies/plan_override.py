"""Override and Set: the mechanism that carries them out on this kernel, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import NamedTuple

from collector.bpf.btf import BtfKind
from collector.bpf.programs import Kind
from collector.policies.check import Checker, path_of
from collector.policies.override import register_move
from collector.policies.plan import Mechanism, OverrideBy, RegisterMove, Target
from tracingpolicy.actions import ActionKind
from tracingpolicy.model import Hook
from tracingpolicy.selectors import Action

_M = Mechanism
_ERRORS = "-4095 to -1"
_REGISTERS_OUT = "a kernel newer than Linux 6.18; Sigkill"
Pairs = list[tuple[Mechanism, Mechanism | None]]
# Functions that system calls pass through, and that a policy can refuse on every kernel.
_UNDER = {
    "security_file_open": ("open", "openat", "openat2", "creat"),
    "security_bprm_check": ("execve", "execveat"),
    "security_socket_connect": ("connect",),
    "security_socket_bind": ("bind",),
    "security_socket_listen": ("listen",),
    "security_socket_create": ("socket", "socketpair"),
    "security_path_mkdir": ("mkdir", "mkdirat"),
    "security_path_unlink": ("unlink", "unlinkat"),
    "security_path_symlink": ("symlink", "symlinkat"),
    "security_path_link": ("link", "linkat"),
    "security_path_rename": ("rename", "renameat", "renameat2"),
    "security_sb_mount": ("mount",),
    "security_ptrace_access_check": ("ptrace",),
    "security_kernel_read_file": ("finit_module",),
    "security_kernel_load_data": ("init_module",),
    "security_bpf": ("bpf",),
    "security_task_kill": ("kill", "tkill", "tgkill"),
}
_ANY_SECURITY_FUNCTION = "security_file_open"
UNDER = {call: function for function, calls in _UNDER.items() for call in calls}


class Place(NamedTuple):
    """An action and where it stands."""

    path: str
    action: Action


def places(hook: Hook, kind: ActionKind) -> Iterator[Place]:
    """Return the actions of a kind among matchActions."""
    for number, selector in enumerate(hook.selectors):
        for position, action in enumerate(selector.actions):
            if action.kind is kind:
                path = f"{path_of(hook)}.selectors[{number}].matchActions[{position}]"
                yield Place(path, action)


def choose_override(
    checker: Checker, hook: Hook, targets: tuple[Target, ...], pairs: Pairs
) -> tuple[OverrideBy | None, Pairs] | None:
    """Return how Override takes effect at functions, and the mechanisms that fit; None: mistake."""
    found = list(places(hook, ActionKind.OVERRIDE))
    if not found:
        return None, pairs
    hooks = [one for one in targets if one.attach.startswith("security_")]
    if any(_returns_nothing(checker, one.attach) for one in hooks):
        _refuse_void(checker, found)
        return None
    why_no_gate = next(filter(None, (_why_no_gate(checker, one) for one in targets)), "")
    if not why_no_gate:
        if not _check_errors(checker, found):
            return None
        behind = (_M.FENTRY, _M.KPROBE)  # each function its own program: it knows its gate
        return OverrideBy.FMOD_RET, [pair for pair in pairs if pair[0] in behind]
    why_no_helper = _why_no_helper(checker, targets)
    if not why_no_helper:
        return OverrideBy.HELPER, [pair for pair in pairs if pair[0] is _M.KPROBE]
    for place in found:
        _refuse(checker, place, targets[0], f"{why_no_gate}; {why_no_helper}")
    return None


def _returns_nothing(checker: Checker, name: str) -> bool:
    function = checker.host.function(name)
    if function is None:
        return False
    return function.btf.type(function.btf.strip(function.proto.result)).kind is BtfKind.VOID


def _refuse_void(checker: Checker, found: list[Place]) -> None:
    for place in found:
        message = "the function returns nothing, so there is nothing to override"
        checker.fail(place.action.place, place.path, message, "Sigkill or Signal", "action")


def _why_no_gate(checker: Checker, target: Target) -> str:
    if target.module:
        return f"{OverrideBy.FMOD_RET.value}: {target.name} is in module {target.module}"
    why = checker.host.acting.why_no_gate(Kind.FMOD_RET, target.btf_id)
    return f"{OverrideBy.FMOD_RET.value}: {why}" if why else ""


def _why_no_helper(checker: Checker, targets: tuple[Target, ...]) -> str:
    name = OverrideBy.HELPER.value
    if any(one.syscall is None for one in targets):
        return f"{name}: it works on system calls"
    why = checker.host.acting.why_no_override_helper()
    return f"{name}: {why}" if why else ""


def _refuse(checker: Checker, place: Place, target: Target, reasons: str) -> None:
    message = f"{target.name} cannot be overridden here: {reasons}"
    checker.fail(place.action.place, place.path, message, _way_out(checker, target), "action")


def _way_out(checker: Checker, target: Target) -> str:
    under = gate_under(checker, target)
    if not under:
        return "Sigkill or Signal"
    return (
        f"Override on {under}; NotifyEnforcer here with {under} in spec.enforcers; "
        "Sigkill or Signal here"
    )


def gate_under(checker: Checker, target: Target) -> str:
    """Return the function below a system call that can be overridden on this kernel, or ""."""
    if target.syscall is None:
        return ""
    known = UNDER.get(target.syscall.name)
    function = checker.host.function(known or _ANY_SECURITY_FUNCTION)
    if function is None or checker.host.acting.why_no_gate(Kind.FMOD_RET, function.proto.id):
        return ""
    return known or "the security_ function that the call passes"


def _check_errors(checker: Checker, found: list[Place]) -> bool:
    good = True
    for place in found:
        error = place.action.arg_error
        if error == 0:
            checker.doubt(place.path, "Override with 0 is not an error: the function runs")
        elif not -4095 <= error <= -1:
            message = f"{error} is not an error number: the function would run"
            checker.fail(place.action.place, place.path, message, _ERRORS, "argError")
            good = False
    return good


def choose_lsm_override(
    checker: Checker, hook: Hook, by: OverrideBy, name: str, function: int
) -> OverrideBy | None:
    """Return ``by`` if Override works at an LSM hook, None without one or after a mistake."""
    found = list(places(hook, ActionKind.OVERRIDE))
    if not found or not _check_errors(checker, found):
        return None
    if _returns_nothing(checker, name):
        _refuse_void(checker, found)
        return None
    kind = Kind.FMOD_RET if by is OverrideBy.FMOD_RET else Kind.LSM
    why = checker.host.acting.why_no_gate(kind, function)
    if why:
        for place in found:
            message = f"this hook cannot be overridden here: {by.value}: {why}"
            checker.fail(place.action.place, place.path, message, "Sigkill or Signal", "action")
        return None
    return by


# --- programs of user space -------------------------------------------------------------------

Moves = MappingProxyType[Action, tuple[RegisterMove, ...]]


def plan_register_override(
    checker: Checker, hook: Hook, jumps: dict[Action, int]
) -> tuple[OverrideBy | None, Moves]:
    """Return how Override takes effect at a uprobe, and its assignments.

    ``jumps``: for actions with argNew..., how far their function is from the uprobe.
    """
    found = list(places(hook, ActionKind.OVERRIDE))
    if not found:
        return None, MappingProxyType({})
    why = checker.host.acting.why_no_register_writes()
    moves: dict[Action, tuple[RegisterMove, ...]] = {}
    for place in found:
        if why:
            message = f"the registers of a program cannot be written here: {why}"
            checker.fail(place.action.place, place.path, message, _REGISTERS_OUT, "action")
        moves[place.action] = _moves(checker, place, jumps)
    return OverrideBy.REGISTERS, MappingProxyType(moves)


def _moves(checker: Checker, place: Place, jumps: dict[Action, int]) -> tuple[RegisterMove, ...]:
    made = []
    for position, text in enumerate(place.action.arg_regs):
        move = register_move(checker.host.machine, text)
        if isinstance(move, str):
            allowed = "reg=NUMBER, reg=%reg, reg=OFF%reg, reg=OFF(%reg)"
            checker.fail(place.action.place, place.path, move, allowed, "argRegs", position)
        else:
            made.append(move)
    if place.action in jumps:
        ip = register_move(checker.host.machine, f"{_IP[checker.host.machine]}=0")
        assert isinstance(ip, RegisterMove)
        made.append(RegisterMove(ip.to, jumps[place.action], ip.to))
    return tuple(made)


_IP = {"x86_64": "rip", "aarch64": "pc"}
