"""Actions that this kernel cannot carry out: each is refused before loading, with a way out."""

import pytest

from collector.policies.acting_features import Anything
from collector.policies.override import register_move
from collector.policies.plan import Mechanism as M
from collector.policies.plan import OverrideBy, RegisterMove
from collector.policies.plan_policy import check_document
from support.elf_builder import write_program
from support.policy_kernel import host
from tracingpolicy import PolicyErrors


class Nothing(Anything):
    """A kernel on which nothing acts; each method answers its own name."""

    def why_no_gate(self, kind, function):
        return "no gate"

    def why_no_override_helper(self):
        return "no helper"

    def why_no_register_writes(self):
        return "no registers"

    def why_no_memory_writes(self):
        return "no memory"


class OnlyGates(Nothing):
    """A kernel without error injection: gates stand on security_ functions only."""

    def __init__(self, kernel_host):
        self.allowed = {kernel_host.function("security_file_open").proto.id}

    def why_no_gate(self, kind, function):
        return "" if function in self.allowed else "no error injection"


class OnlyHelper(Nothing):
    """A kernel with error injection by kprobes only."""

    def why_no_override_helper(self):
        return ""


def kernel(acting, refused=None):
    made = host(refused=refused)
    made.acting = acting
    return made


def document(spec):
    return f"kind: TracingPolicy\nmetadata: {{name: p}}\nspec:\n{spec}"


def mistakes(spec, acting=None, refused=None):
    with pytest.raises(PolicyErrors) as caught:
        check_document(document(spec), "p", kernel(acting or Nothing(), refused))
    return [str(one).split(": ", 1)[1] for one in caught.value.mistakes]


def acting(hook, action, kind="kprobes"):
    return f"  {kind}: [{{{hook}, selectors: [{{matchActions: [{{{action}}}]}}]}}]\n"


OVERRIDE = "action: Override, argError: -1"
PROGRAM = "path: /proc/self/exe, offsets: [64]"
AT = "spec.kprobes[0].selectors[0].matchActions[0]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (acting("call: sys_openat", OVERRIDE),
         f"{AT}.action: __x64_sys_openat cannot be overridden here: fmod_ret: no gate; "
         "bpf_override_return: no helper (allowed: Sigkill or Signal)"),
        (acting("call: security_file_open, syscall: false", OVERRIDE),
         f"{AT}.action: security_file_open cannot be overridden here: fmod_ret: no gate; "
         "bpf_override_return: it works on system calls (allowed: Sigkill or Signal)"),
        (acting("call: security_bprm_committed_creds, syscall: false", OVERRIDE),
         f"{AT}.action: the function returns nothing, so there is nothing to override "
         "(allowed: Sigkill or Signal)"),
        (acting("hook: bprm_committed_creds", OVERRIDE, "lsmhooks"),
         "spec.lsmhooks[0].selectors[0].matchActions[0].action: the function returns nothing, so "
         "there is nothing to override (allowed: Sigkill or Signal)"),
        (acting("hook: file_open", OVERRIDE, "lsmhooks"),
         "spec.lsmhooks[0].selectors[0].matchActions[0].action: this hook cannot be overridden "
         "here: lsm: no gate (allowed: Sigkill or Signal)"),
        (acting(PROGRAM, OVERRIDE, "uprobes"),
         "spec.uprobes[0].selectors[0].matchActions[0].action: the registers of a program cannot "
         "be written here: no registers (allowed: a kernel newer than Linux 6.18; Sigkill)"),
        (acting(f"{PROGRAM}, args: [{{index: 0, type: int32}}]",
                "action: Set, argValue: 1", "uprobes"),
         "spec.uprobes[0].selectors[0].matchActions[0].argIndex: Set: the registers of a program "
         "cannot be written here: no registers (allowed: an argument in memory, a kernel newer "
         "than Linux 6.18; Sigkill or Signal)"),
        ("  enforcers: [{calls: [sys_openat]}]\n"
         + acting("call: sys_read", "action: NotifyEnforcer, argError: -1"),
         "spec.enforcers[0].calls: __x64_sys_openat cannot be overridden here: fmod_ret: no gate; "
         "bpf_override_return: no helper (allowed: argSig without argError)"),
        ("  options: [{name: override-method, value: override-return}]\n"
         "  enforcers: [{calls: [security_file_open]}]\n"
         + acting("call: sys_read", "action: NotifyEnforcer, argError: -1"),
         "spec.enforcers[0].calls: security_file_open cannot be overridden here: "
         "bpf_override_return: it works on system calls (allowed: argSig without argError)"),
        ("  enforcers: [{calls: [sys_foo]}]\n"
         + acting("call: sys_read", "action: NotifyEnforcer, argSig: 9"),
         'spec.enforcers[0].calls: there is no function "sys_foo"'),
    ],
)  # fmt: skip
def test_actions_that_the_kernel_does_not_support_are_refused(spec, expected):
    assert expected in mistakes(spec)


WHY = "fmod_ret: no error injection; bpf_override_return: no helper"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (acting("call: sys_openat", OVERRIDE),
         f"{AT}.action: __x64_sys_openat cannot be overridden here: {WHY} (allowed: Override on "
         "security_file_open; NotifyEnforcer here with security_file_open in spec.enforcers; "
         "Sigkill or Signal here)"),
        (acting("call: sys_read", OVERRIDE),
         f"{AT}.action: __x64_sys_read cannot be overridden here: {WHY} (allowed: Override on the "
         "security_ function that the call passes; NotifyEnforcer here with the security_ function "
         "that the call passes in spec.enforcers; Sigkill or Signal here)"),
        (acting("call: sys_linkat", OVERRIDE),  # CONFIG_SECURITY_PATH is off: no function below it
         f"{AT}.action: __x64_sys_linkat cannot be overridden here: {WHY} (allowed: Sigkill or "
         "Signal)"),
        ("  enforcers: [{calls: [sys_openat]}]\n"
         + acting("call: sys_read", "action: NotifyEnforcer, argError: -1"),
         f"spec.enforcers[0].calls: __x64_sys_openat cannot be overridden here: {WHY} (allowed: "
         "security_file_open as the enforcer; argSig without argError)"),
    ],
)  # fmt: skip
def test_suggested_alternative_works_on_the_kernel(spec, expected):
    assert expected in mistakes(spec, OnlyGates(host()))


def test_suggested_alternatives_can_be_planned():
    override = acting("call: security_file_open, syscall: false", OVERRIDE)
    enforcer = "  enforcers: [{calls: [security_file_open]}]\n" + acting(
        "call: sys_openat", "action: NotifyEnforcer, argError: -1"
    )
    for spec in (override, enforcer, acting("call: sys_openat", "action: Sigkill")):
        assert planned(spec, OnlyGates(host())).hooks


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("argRegs: ['rax']", "argRegs[0]: is no assignment (allowed: reg=NUMBER, reg=%reg, "
         "reg=OFF%reg, reg=OFF(%reg))"),
        ("argRegs: ['eax=1']", "argRegs[0]: there is no whole register eax (allowed: reg=NUMBER, "
         "reg=%reg, reg=OFF%reg, reg=OFF(%reg))"),
        ("argRegs: ['rax=1', 'rdi=?']", "argRegs[1]: ? is neither a number nor a register "
         "(allowed: reg=NUMBER, reg=%reg, reg=OFF%reg, reg=OFF(%reg))"),
        ("argRegs: ['rax=%nil']", "argRegs[0]: there is no register nil (allowed: reg=NUMBER, "
         "reg=%reg, reg=OFF%reg, reg=OFF(%reg))"),
    ],
)  # fmt: skip
def test_unknown_registers_are_refused(keys, expected):
    spec = acting(PROGRAM, f"action: Override, {keys}", "uprobes")
    assert f"spec.uprobes[0].selectors[0].matchActions[0].{expected}" in mistakes(spec, Anything())


def test_jump_from_several_places_is_refused():
    spec = acting("path: /proc/self/exe, offsets: [64, 80]",
                  "action: Override, argNewOffset: 96", "uprobes")  # fmt: skip
    (found,) = mistakes(spec, Anything())
    assert found.endswith(
        "a jump needs one place: the distance differs between several (allowed: one symbol, "
        "offset or address a hook)"
    )


@pytest.mark.parametrize(
    ("argument", "features", "expected"),
    [
        ("-4@8(%rdi)", Nothing(), "Set: no memory (allowed: Sigkill or Signal)"),
        ("-4@%edi", Nothing(),
         "Set: the registers of a program cannot be written here: no registers (allowed: an "
         "argument in memory, a kernel newer than Linux 6.18; Sigkill or Signal)"),
        ("-8@8(%rdi)", Anything(),
         "Set: the argument has 8 bytes (allowed: an argument of 4 bytes)"),
        ("4@$7", Anything(),
         "Set: the argument is a constant of the program (allowed: memory, or a register)"),
    ],
)  # fmt: skip
def test_set_of_a_read_only_argument_is_refused(tmp_path, argument, features, expected):
    path = write_program(tmp_path / "program", "shop", "sale", argument)
    spec = acting(f"path: {path}, provider: shop, name: sale, args: [{{index: 0, type: int64}}]",
                  "action: Set, argIndex: 0, argValue: 1", "usdts")  # fmt: skip
    at = "spec.usdts[0].selectors[0].matchActions[0].argIndex: "
    assert mistakes(spec, features) == [at + expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("argNewSymbol: nowhere", 'argNewSymbol: PROGRAM has no symbol "nowhere"'),
        ("argNewAddr: 5", "argNewAddr: 0x5 is not in the file PROGRAM"),
    ],
)
def test_jump_to_a_missing_symbol_or_address_is_refused(tmp_path, keys, expected):
    path = write_program(tmp_path / "program", "shop", "sale", "-4@%edi")
    spec = acting(f"path: {path}, offsets: [120]", f"action: Override, {keys}", "uprobes")
    at = "spec.uprobes[0].selectors[0].matchActions[0]."
    assert mistakes(spec, Anything()) == [at + expected.replace("PROGRAM", str(path))]


def test_missing_position_for_set_is_refused():
    spec = acting(f"{PROGRAM}, args: [{{index: 0, type: int32}}]",
                  "action: Set, argIndex: 1, argValue: 1", "uprobes")  # fmt: skip
    assert mistakes(spec, Anything()) == [
        "spec.uprobes[0].selectors[0].matchActions[0].argIndex: position 1 is not in the hook's "
        "args"
    ]


def test_no_program_can_be_attached_at_an_lsm_hook():
    refused = {one: f"no {one.value}" for one in (M.LSM, M.FMOD_RET)}
    assert mistakes(acting("hook: file_open", OVERRIDE, "lsmhooks"), Anything(), refused) == [
        "spec.lsmhooks[0]: LSM hook file_open cannot be hooked here: lsm: no lsm; "
        "fmod_ret: no fmod_ret"
    ]


def test_no_program_can_be_attached_at_an_enforcer():
    spec = "  enforcers: [{calls: [sys_openat]}]\n" + acting(
        "subsystem: raw_syscalls, event: sys_enter", "action: NotifyEnforcer, argSig: 9",
        "tracepoints",
    )  # fmt: skip
    found = mistakes(spec, Anything(), {M.FENTRY: "no fentry", M.KPROBE: "no kprobe"})
    assert found == [
        "spec.enforcers[0].calls: __x64_sys_openat cannot be hooked here: fentry: no fentry; "
        "kprobe: no kprobe"
    ]


def planned(spec, acting_features):
    return check_document(document(spec), "p", kernel(acting_features))


@pytest.mark.parametrize(
    ("spec", "features", "entry", "override"),
    [
        (acting("call: sys_read", OVERRIDE), Anything(), M.FENTRY, OverrideBy.FMOD_RET),
        (acting("call: sys_read", OVERRIDE), OnlyHelper(), M.KPROBE, OverrideBy.HELPER),
        (acting("hook: file_open", OVERRIDE, "lsmhooks"), Anything(), M.FENTRY, OverrideBy.LSM),
        (acting(PROGRAM, OVERRIDE, "uprobes"), Anything(), M.UPROBE_MULTI, OverrideBy.REGISTERS),
    ],
)
def test_first_way_to_override_that_works(spec, features, entry, override):
    (hook,) = planned(spec, features).hooks
    assert (hook.entry, hook.override) == (entry, override)


def test_enforcer_without_errors_needs_no_override():
    spec = "  enforcers: [{calls: [sys_openat]}]\n" + acting(
        "call: sys_read", "action: NotifyEnforcer, argSig: 9"
    )
    (enforcer,) = planned(spec, Nothing()).enforcers
    assert (enforcer.entry, enforcer.override) == (M.FENTRY, None)


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("rax=11", RegisterMove(80, 11)),
        ("rax=-0x10", RegisterMove(80, -16)),
        ("rdi=%rsi", RegisterMove(112, 0, 104)),
        ("%rdi=%esi", RegisterMove(112, 0, 104, 4)),
        ("rip=8%rip", RegisterMove(128, 8, 128)),
        ("rip=(%rsp)", RegisterMove(128, 0, 152, 8, True)),
        ("rdi=-8(%rbp)", RegisterMove(112, -8, 32, 8, True)),
    ],
)
def test_assignments_of_registers(text, move):
    assert register_move("x86_64", text) == move
