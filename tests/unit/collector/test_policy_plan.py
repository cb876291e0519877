"""Which mechanism serves a hook, what it is attached to, and where its values come from."""

import pytest

from collector.policies.plan import (
    CurrentTask,
    FunctionArgument,
    HookState,
    Mechanism,
    RecordField,
    Resolved,
    ReturnedValue,
    SavedRegister,
    Syscall,
    SyscallArgument,
    SyscallArguments,
    SyscallNumber,
)
from collector.policies.plan_policy import plan_policy
from support.btf_builder import BtfBuilder
from support.policy_kernel import BTF, SYSCALLS, host, write_tracefs
from tracingpolicy import PolicyErrors, parse
from tracingpolicy.types import ArgumentType as T
from tracingpolicy.values import Range

M = Mechanism


def plan(spec, kernel=None):
    text = f"kind: TracingPolicy\nmetadata: {{name: p}}\nspec:\n{spec}"
    if "sampleFrequent" in spec:
        text = f"apiVersion: tetra.io/v1\n{text}"
    return plan_policy(parse(text), kernel or host())


def sources(hook):
    return [one.source for one in hook.args]


FUNCTION = """
  kprobes:
  - call: fd_install
    syscall: false
    args: [{index: 1, type: file}, {index: 0, type: int}]
"""
RETURN = """
  kprobes:
  - call: sk_alloc
    syscall: false
    return: true
    args: [{index: 1, type: int}]
    returnArg: {index: 0, type: sock}
"""
SYSCALL = """
  kprobes:
  - call: sys_openat
    return: true
    args: [{index: 1, type: string}]
    returnArg: {index: 0, type: int}
"""


@pytest.mark.parametrize(
    ("spec", "refused", "entry", "leave"),
    [
        (FUNCTION, (), M.FENTRY, None),
        (FUNCTION, (M.FENTRY,), M.KPROBE_MULTI, None),
        (FUNCTION, (M.FENTRY, M.KPROBE_MULTI), M.KPROBE, None),
        (RETURN, (), M.FENTRY, M.FEXIT),
        (RETURN, (M.FEXIT,), M.KPROBE_MULTI, M.KRETPROBE_MULTI),
        (RETURN, (M.FENTRY, M.KRETPROBE_MULTI), M.KPROBE, M.KRETPROBE),
        (SYSCALL, (), M.FENTRY, M.FEXIT),
        (SYSCALL, (M.FENTRY, M.KPROBE_MULTI, M.KPROBE), M.SYS_ENTER, M.SYS_EXIT),
        (FUNCTION.replace("kprobes", "fentries"), (), M.FENTRY, None),
        (FUNCTION + "  options: [{name: disable-kprobe-multi, value: 'true'}]\n",
         (M.FENTRY,), M.KPROBE, None),
        ("  lsmhooks: [{hook: file_open}]\n", (), M.FENTRY, None),
        ("  lsmhooks: [{hook: file_open}]\n", (M.LSM,), M.FENTRY, None),
        ("  lsmhooks: [{hook: file_open}]\n", (M.LSM, M.FENTRY), M.KPROBE, None),
        ("  tracepoints: [{subsystem: sched, event: sched_process_exec, raw: true}]\n",
         (), M.RAW_TRACEPOINT, None),
        ("  tracepoints: [{subsystem: sched, event: sched_process_exec, raw: true}]\n",
         (M.RAW_TRACEPOINT,), M.TP_BTF, None),
        ("  tracepoints: [{subsystem: raw_syscalls, event: sys_enter}]\n",
         (), M.RAW_TRACEPOINT, None),
        ("  uprobes: [{path: /proc/self/exe, offsets: [64]}]\n", (), M.UPROBE_MULTI, None),
        ("  uprobes: [{path: /proc/self/exe, offsets: [64]}]\n",
         (M.UPROBE_MULTI,), M.UPROBE, None),
    ],
)  # fmt: skip
def test_first_mechanism_that_works_serves(spec, refused, entry, leave):
    made = plan(spec, host(refused={one: f"not {one.value}" for one in refused}))
    (hook,) = made.hooks
    assert (hook.entry, hook.exit) == (entry, leave)
    (status,) = made.statuses
    assert (status.mechanisms[0], leave or status.mechanisms[-1]) == (entry, status.mechanisms[-1])
    assert all(f"not {one.value}" in hook.note or one.value in hook.note for one in refused[:1])


def test_function():
    (hook,) = plan(FUNCTION).hooks
    (target,) = hook.targets
    assert (target.name, target.attach, target.parameters) == ("fd_install", "fd_install", 2)
    assert target.btf_id == host().btf.find_func("fd_install")
    # What stands above a narrow parameter in its register is undefined.
    assert sources(hook) == [FunctionArgument(1), FunctionArgument(0, 4, False)]


def test_return_value():
    (hook,) = plan(RETURN).hooks
    assert (hook.returned.source, hook.returned.type) == (ReturnedValue(), T.SOCK)
    assert sources(hook) == [FunctionArgument(1, 2, False)]


def test_argument_copied_at_return_needs_the_return():
    (hook,) = plan(
        "  kprobes: [{call: sys_read, args: [{index: 1, type: char_buf, returnCopy: true}]}]\n"
    ).hooks
    assert (hook.exit, hook.returned) == (M.FEXIT, None)


@pytest.mark.parametrize(
    ("call", "name", "attach", "syscall"),
    [
        ("sys_openat", "__x64_sys_openat", "__x64_sys_openat", Syscall(257, "openat", "x64")),
        ("__x64_sys_read", "__x64_sys_read", "__x64_sys_read", Syscall(0, "read", "x64")),
        ("sys_newstat", "__x64_sys_newstat", "__x64_sys_newstat", Syscall(4, "newstat", "x64")),
        ("sys_getppid", "__x64_sys_getppid", "__do_sys_getppid", Syscall(110, "getppid", "x64")),
        ("__ia32_sys_dup", "__ia32_sys_dup", "__ia32_sys_dup", Syscall(41, "dup", "i386", True)),
        ("__ia32_compat_sys_openat", "__ia32_compat_sys_openat", "__ia32_compat_sys_openat",
         Syscall(295, "openat", "i386", True)),
    ],
)  # fmt: skip
def test_system_call(call, name, attach, syscall):
    (target,) = plan(f"  kprobes: [{{call: {call}}}]\n").hooks[0].targets
    assert (target.name, target.attach, target.syscall) == (name, attach, syscall)
    assert syscall.id == syscall.number + (0x8000_0000 if syscall.compat else 0)


def test_arguments_of_system_calls_are_user_registers():
    (hook,) = plan(
        "  kprobes: [{call: sys_write, args: [{index: 1, type: char_buf, sizeArgIndex: 3}]}]\n"
    ).hooks
    (argument,) = hook.args
    assert (argument.source, argument.length) == (SyscallArgument(1), SyscallArgument(2))
    assert argument.user_memory


def test_resolve():
    (hook,) = plan(
        """
  kprobes:
  - call: security_bprm_check
    syscall: false
    args:
    - {index: 0, type: string, resolve: mm.owner.real_parent.comm}
    - {index: 0, type: int, resolve: cred.uid.val}
    - {index: 0, type: path, resolve: file.f_path}
    - {index: 0, type: file, resolve: file}
    - {index: 0, type: kernel_cap_t, resolve: cred.cap}
    - {index: 0, type: int, resolve: "mm.owner.comm[3]"}
    - {index: 0, type: int, resolve: "[1].file", btfType: linux_binprm}
"""
    ).hooks
    found = [(one.type, one.resolved.offsets, one.resolved.size) for one in hook.args]
    assert found == [
        (T.STRING, (0, 0, 32, 0), 0),
        (T.INT, (16, 8), 4),  # an unsigned int: the document's type counts
        (T.PATH, (8, 8), 0),
        (T.FILE, (8,), 8),
        (T.KERNEL_CAP_T, (16, 16), 0),
        (T.INT, (0, 0, 3), 1),
        (T.FILE, (64 + 8,), 8),  # a struct file: its own type counts
    ]


@pytest.mark.parametrize(
    ("declared", "path", "found"),
    [
        ("uint32", "f_mode", T.UINT32),  # unsigned int
        ("int", "f_mode", T.INT),
        ("uint64", "f_mode", T.UINT64),
        ("auto", "f_mode", T.UINT32),
        ("uint16", "f_lock", T.UINT16),  # long int, which Tetragon does not know by name
        ("uint64", "f_lock", T.UINT64),
        ("uint32", "low", T.INT32),  # int, which it knows
        ("uint64", "low", T.INT32),
    ],
)
def test_type_of_a_number_at_the_end_of_a_path(declared, path, found):
    (hook,) = plan(
        f"""
  lsmhooks:
  - hook: file_open
    args: [{{index: 0, type: {declared}, resolve: {path}}}]
"""
    ).hooks
    assert hook.args[0].type is found


def test_pointer_to_a_pointer_and_embedded_structs():
    creds, close = plan(
        """
  kprobes:
  - call: new_creds
    syscall: false
    args: [{index: 0, type: uint32, resolve: uid.val}]
  - call: tcp_close
    syscall: false
    args: [{index: 0, type: sock}, {index: 0, type: uint16, resolve: inet.__sk_common.skc_family}]
"""
    ).hooks
    assert creds.args[0].resolved == Resolved((0, 8), 4, False, "uid_t")
    assert [one.type for one in close.args] == [T.SOCK, T.UINT16]


def test_data():
    (hook,) = plan(
        """
  kprobes:
  - call: sys_read
    data:
    - {type: string, source: current_task, resolve: real_parent.comm}
    - {type: auto, source: current_task, resolve: cred.uid.val}
    - {type: uint8, source: pt_regs, resolve: ah}
"""
    ).hooks
    comm, uid, register = hook.data
    assert (comm.source, comm.resolved.offsets) == (CurrentTask(), (32, 0))
    assert uid.type is T.UINT32
    assert register.source == SavedRegister(80, 1, 8)


def test_filter_has_the_type_of_the_last_member_of_its_path():
    (hook,) = plan(
        """
  lsmhooks:
  - hook: file_open
    args: [{index: 0, type: auto, resolve: low}, {index: 0, type: auto, resolve: f_mode}]
    selectors:
    - matchArgs:
      - {args: [0], operator: InRange, values: ["-5:5"]}
      - {args: [1], operator: CelExpr, values: ["arg0 < int32(0) && arg1 == uint32(5u)"]}
"""
    ).hooks
    first, second = hook.hook.selectors[0].args
    assert first.values == (Range(-5, 5),)
    assert second.operands == (0, 1)


def test_raw_syscalls_take_their_fields_from_the_context():
    enter, leave = plan(
        """
  tracepoints:
  - {subsystem: raw_syscalls, event: sys_enter, args: [{index: 4, type: syscall64}, {index: 5}]}
  - {subsystem: raw_syscalls, event: sys_exit, args: [{index: 4, type: syscall64}, {index: 5}]}
"""
    ).hooks
    assert sources(enter) == [FunctionArgument(1), SyscallArguments()]
    assert sources(leave) == [SyscallNumber(), FunctionArgument(1)]
    assert [one.type for one in enter.args] == [T.SYSCALL64, T.CONST_BUF]
    assert [one.type for one in leave.args] == [T.SYSCALL64, T.INT64]


SAMPLED = """
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    sampleFrequent: true
    args: [{index: 4, type: uint64}, {index: 5}]
"""


def test_frequent_calls_are_sampled_at_their_functions():
    (hook,) = plan(SAMPLED).hooks
    assert hook.entry is M.CALL_FUNCTIONS
    assert sources(hook) == [SyscallNumber(), SyscallArguments()]
    (target,) = hook.targets
    # Both ABIs; a function without parameters serves both. read, close and the like are ordinary.
    assert {"__x64_sys_bpf", "__x64_sys_clone", "__ia32_sys_dup", "__ia32_compat_sys_openat"} <= {
        *target.functions
    }
    found = {one.number: one.symbol for one in target.calls}
    assert found[0] == "__x64_sys_read"
    assert found[4] == "__x64_sys_newstat"
    assert found[110] == "__do_sys_getppid"
    assert not {*target.functions} & {*found.values()}


@pytest.mark.parametrize("why", ["kind", "option", "arm64", "emulated", "document"])
def test_every_call_is_seen_at_the_tracepoint_otherwise(why):
    kernel = host(refused={M.CALL_FUNCTIONS: "no"} if why == "kind" else None)
    text = SAMPLED
    if why == "option":
        text += "  options: [{name: disable-kprobe-multi, value: '1'}]\n"
    elif why == "arm64":
        kernel.machine = "aarch64"
    elif why == "emulated":
        kernel.misreads_code = True
    elif why == "document":
        text = SAMPLED.replace("    sampleFrequent: true\n", "")
    (hook,) = plan(text, kernel).hooks
    assert hook.entry is M.RAW_TRACEPOINT
    assert sources(hook) == [FunctionArgument(1), SyscallArguments()]
    assert bool(hook.note) is (why in ("kind", "arm64", "emulated"))


def test_fields_of_a_format(tmp_path):
    (hook,) = plan(
        """
  tracepoints:
  - subsystem: sched
    event: sched_switch
    args:
    - {index: 4, type: string}
    - {index: 5}
    - {index: 6}
    - {index: 7, type: data_loc}
    - {index: 8, type: string}
    - {index: 8, type: char_buf, sizeArgIndex: 10}
    - {index: 9}
    - {index: 10}
    - {index: 11}
    - {index: 12, type: skb}
    - {index: 3, type: int}
""",
        host(write_tracefs(tmp_path / "tracefs")),
    ).hooks
    assert (hook.entry, hook.targets[0].subsystem) == (M.TRACEPOINT, "sched")
    kinds = [T.STRING, T.INT32, T.INT64, T.DATA_LOC, T.STRING, T.CHAR_BUF, T.SIZE_T, T.CONST_BUF]
    assert [one.type for one in hook.args] == [*kinds, T.UINT8, T.SKB, T.INT]
    assert hook.args[0].source == RecordField("prev_comm", 8, 1, True, 16)
    assert hook.args[3].source == RecordField("reason", 40, 4, True, 0, True)
    assert hook.args[5].length == RecordField("count", 56, 8, False)
    assert hook.args[7].source == RecordField("words", 64, 8, False, 3)


def test_lists(tmp_path):
    made = plan(
        """
  lists:
  - {name: plain, values: [tcp_connect, fd_install]}
  - {name: mixed, values: [tcp_connect, sys_read, __ia32_sys_dup]}
  - {name: calls, type: syscalls, values: [sys_dup, i386/sys_dup, __x64_sys_read, sys_nothing]}
  - {name: all, type: generated_syscalls}
  - {name: traced, type: generated_ftrace, pattern: "^security_"}
  kprobes:
  - {call: "list:plain", syscall: false, args: [{index: 0, type: nop}]}
  - {call: "list:mixed"}
  - {call: "list:calls", ignore: {callNotFound: true}}
  - {call: "list:all", args: [{index: 5, type: int}]}
  - {call: "list:traced"}
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}]
    selectors: [{matchArgs: [{index: 4, operator: InMap, values: ["list:all"]}]}]
""",
        host(write_tracefs(tmp_path / "tracefs")),
    )
    names = [[target.name for target in hook.targets] for hook in made.hooks]
    assert names == [
        ["tcp_connect", "fd_install"],
        ["tcp_connect"],
        ["__x64_sys_read", "__ia32_sys_dup"],
        ["__x64_sys_dup", "__ia32_sys_dup", "__x64_sys_read"],
        [f"__x64_sys_{x}" for x in sorted({*SYSCALLS} - {"stat"})],
        ["security_bprm_check", "security_file_open"],
        ["sys_enter"],
    ]
    assert [one.state for one in made.statuses][2] is HookState.PARTIAL_CALL_NOT_FOUND
    assert made.statuses[2].missing == ("__x64_sys_nothing",)
    assert made.syscall_ids == {"all": (321, 56, 3, 32, 265, 4, 257, 0, 1)}


def test_long_list_of_system_calls_goes_through_the_dispatcher():
    calls = ", ".join(["sys_read"] * 21)
    (hook,) = plan(
        f"  lists: [{{name: a, type: syscalls, values: [{calls}]}}]\n"
        "  kprobes: [{call: 'list:a'}]\n"
    ).hooks
    assert hook.entry is M.SYS_ENTER
    assert {target.attach for target in hook.targets} == {"sys_enter"}


def test_ignored_function_leaves_a_status():
    made = plan("  kprobes: [{call: nothing, syscall: false, ignore: {callNotFound: true}}]\n")
    assert made.hooks == ()
    assert made.statuses[0].state is HookState.CALL_NOT_FOUND


def test_ima_hash_is_read_by_a_sleepable_program():
    spec = """
  lsmhooks:
  - hook: bprm_check_security
    selectors: [{matchActions: [{action: Post, imaHash: true}]}]
"""
    (hook,) = plan(spec).hooks
    assert (hook.entry, hook.sleepable) == (M.LSM, True)


def test_a_return_arg_without_return_has_no_effect():
    (hook,) = plan(FUNCTION + "    returnArg: {index: 0, type: int}\n").hooks
    assert (hook.exit, hook.returned) == (None, None)


def test_a_filter_has_the_ids_of_its_list(tmp_path):
    spec = """
  lists: [{name: l, type: syscalls, values: [sys_read, i386/sys_dup]}]
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}]
    selectors: [{matchArgs: [{index: 4, operator: InMap, values: ["list:l", "7"]}]}]
"""
    (hook,) = plan(spec, host(write_tracefs(tmp_path / "tracefs"))).hooks
    assert hook.hook.selectors[0].args[0].values == (0, 0x80000029, 7)


def test_loader_reads_what_perf_events_are_about():
    made = plan("  loader: true\n")
    (hook,) = made.hooks
    assert (hook.entry, hook.targets[0].attach) == (M.FENTRY, "perf_event_mmap_output")
    assert [one.type for one in hook.args][:3] == [T.STRING, T.CHAR_BUF, T.UINT32]
    assert hook.targets[0].mmap_events
    assert [one.state for one in made.statuses] == [HookState.LOADED]


def test_a_function_that_serves_no_system_call_is_refused():
    """x86-64 has __x64_sys_stat, but its call number of stat leads to __x64_sys_newstat."""
    with pytest.raises(PolicyErrors) as caught:
        plan("  kprobes: [{call: sys_stat}]\n")
    (mistake,) = caught.value.mistakes
    assert mistake.message.endswith("no system call of ABI x64 is served by __x64_sys_stat")
    assert mistake.allowed == "sys_newstat, which serves stat"
    plan("  kprobes: [{call: sys_newstat}]\n")
    plan("  lists: [{name: l, type: generated_syscalls}]\n  kprobes: [{call: 'list:l'}]\n")


@pytest.fixture
def modules(tmp_path):
    """A kernel with files for its modules, none of which is loaded yet."""
    kernel = host()
    kernel.kallsyms, kernel.modules = tmp_path / "kallsyms", tmp_path / "modules"
    kernel.module_btf = tmp_path / "btf"
    kernel.module_btf.mkdir()
    kernel.kallsyms.write_text("ffffffff81000000 T tcp_connect\n")
    kernel.modules.write_text("ext4 1064960 1 - Live 0x0\n")
    return kernel


CALL_OF_A_MODULE = "  kprobes:\n  - {call: dummy_xmit, syscall: false}"


def test_function_of_a_module_without_types_is_refused_by_its_module(modules):
    with pytest.raises(PolicyErrors, match='there is no function "dummy_xmit"'):
        plan(CALL_OF_A_MODULE, modules)
    modules.kallsyms.write_text("ffffffffc0000000 t dummy_xmit\t[dummy]\n")
    modules.modules.write_text("dummy 16384 0 - Live 0x0\next4 1064960 1 - Live 0x0\n")
    with pytest.raises(PolicyErrors) as raised:
        plan(CALL_OF_A_MODULE, modules)
    assert str(raised.value).endswith(
        "dummy_xmit is a function of the module dummy, which has no types here (allowed: "
        f"{modules.module_btf}/dummy: Linux 5.11, CONFIG_DEBUG_INFO_BTF_MODULES)"
    )


def test_module_that_is_loaded_later_has_its_functions(modules):
    with pytest.raises(PolicyErrors, match="there is no function"):
        plan(CALL_OF_A_MODULE, modules)
    modules.kallsyms.write_text("ffffffffc0000000 t dummy_xmit\t[dummy]\n")
    modules.modules.write_text("dummy 16384 0 - Live 0x0\n")
    types = BtfBuilder(first=BTF.count, text_base=len(BTF._text))
    types.function("dummy_xmit", 0, [])
    (modules.module_btf / "dummy").write_bytes(types.bytes())
    (hook,) = plan(CALL_OF_A_MODULE, modules).hooks
    assert (hook.targets[0].module, hook.targets[0].attach) == ("dummy", "dummy_xmit")


def test_function_that_fentry_refuses_goes_by_a_kprobe():
    asked = []

    def why_not(function, positions):
        asked.append((BTF.type(function).name, positions))
        return "no such pointer"

    kernel = host()
    kernel.why_not_arguments = why_not
    text = """  kprobes:
  - {call: request_module, syscall: false, args: [{index: 0, type: string}]}
  - {call: request_module, syscall: false, args: [{index: 2, type: uint64}]}
  - {call: tcp_connect, syscall: false, args: [{index: 0, type: sock}]}
  - {call: set_caps, syscall: false}
  lsmhooks:
  - {hook: file_open, args: [{index: 0, type: file}]}
"""
    hooks = plan(text, kernel).hooks
    assert [one.entry for one in hooks] == [
        M.KPROBE_MULTI, M.FENTRY, M.FENTRY, M.KPROBE_MULTI, M.FENTRY,
    ]  # fmt: skip
    assert hooks[0].note == "fentry: request_module: no such pointer"
    # A string; a struct by value. Not asked about what every kernel takes.
    assert asked == [("request_module", (0,)), ("set_caps", ())]


# --- hooks that the return serves alone -------------------------------------------------------

DISPATCHED = {one: f"not {one.value}" for one in (M.FENTRY, M.KPROBE_MULTI, M.KPROBE)}
OPENED = """
  kprobes:
  - call: sys_openat
    syscall: true
    return: true
    args: [{index: 0, type: int}, {index: 2, type: int}]
    returnArg: {index: 0, type: fd}
    selectors:
    - matchArgs: [{args: [1], operator: Mask, values: ["3"]}]
      matchReturnArgs: [{index: 0, operator: Prefix, values: [/etc]}]
    - matchReturnArgs: [{index: 0, operator: Equal, values: [/etc/shadow]}]
"""


def test_return_alone_serves_a_hook_that_needs_the_opened_file():
    (hook,) = plan(OPENED, host(refused=DISPATCHED)).hooks
    assert (hook.entry, hook.exit, hook.targets[0].attach) == (M.SYS_EXIT, None, "sys_exit")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Memory of the program may have changed.
        ("{index: 2, type: int}]", "{index: 2, type: int}, {index: 1, type: string}]"),
        ("- matchReturnArgs: [{index: 0, operator: Equal, values: [/etc/shadow]}]",
         "- matchArgs: [{args: [0], operator: Equal, values: ['-100']}]"),
        ("    - matchReturnArgs", "      matchActions: [{action: Post, rateLimit: 1s}]\n"
         "    - matchReturnArgs"),
        ("    - matchReturnArgs", "      matchReturnActions: [{action: NoPost}]\n"
         "    - matchReturnArgs"),
        ("    selectors:", "    data: [{type: uint32, source: current_task, resolve: flags}]\n"
         "    selectors:"),
        ("call: sys_openat", "call: sys_clone"),  # returns in the new process too
    ],
)  # fmt: skip
def test_other_hooks_of_system_calls_keep_their_entry(before, after):
    assert before in OPENED
    spec = OPENED.replace(before, after, 1)
    (hook,) = plan(spec, host(refused=DISPATCHED)).hooks
    assert (hook.entry, hook.exit) == (M.SYS_ENTER, M.SYS_EXIT)


REFUSED = """
  kprobes:
  - call: sys_openat
    return: true
    args: [{index: 1, type: string}]
    returnArg: {index: 0, type: int}
    selectors:
    - matchArgs: [{index: 1, operator: Prefix, values: [/etc]}]
      matchReturnArgs: [{index: 0, operator: InMap, values: ["-1", "-13"]}]
"""


def test_return_alone_serves_a_hook_that_reports_failures():
    (hook,) = plan(REFUSED, host(refused=DISPATCHED)).hooks
    assert (hook.entry, hook.exit) == (M.SYS_EXIT, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('["-1", "-13"]', '["-1", "0"]'),
        ("InMap", "NotInMap"),
        ('int}\n', 'uint64}\n'),
        ('["-1", "-13"]', '["13"]'),
        ("type: string", "type: char_buf, sizeArgIndex: 4"),
    ],
)  # fmt: skip
def test_hook_that_may_report_success_keeps_its_entry(before, after):
    assert before in REFUSED
    spec = REFUSED.replace(before, after, 1)
    if "uint64" in spec:
        spec = spec.replace('"-1", "-13"', '"1"')
    (hook,) = plan(spec, host(refused=DISPATCHED)).hooks
    assert (hook.entry, hook.exit) == (M.SYS_ENTER, M.SYS_EXIT)


@pytest.mark.parametrize("spec", [OPENED, REFUSED])
def test_fexit_serves_such_a_hook_alone_too(spec):
    (hook,) = plan(spec).hooks
    assert (hook.entry, hook.exit, hook.targets[0].attach) == (M.FEXIT, None, "__x64_sys_openat")


def test_kretprobe_has_no_arguments_and_keeps_its_entry():
    refused = {one: DISPATCHED[one] for one in (M.FENTRY, M.KPROBE_MULTI)}
    (hook,) = plan(OPENED, host(refused=refused)).hooks
    assert (hook.entry, hook.exit) == (M.KPROBE, M.KRETPROBE)
