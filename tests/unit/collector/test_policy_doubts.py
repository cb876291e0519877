"""What this kernel shows to be doubtful in a document that Tetragon accepts."""

from collector.policies.plan import Mechanism, SyscallArgument
from collector.policies.plan_policy import check_document
from support.policy_kernel import host
from tracingpolicy.types import ArgumentType

_HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: p}\nspec:\n"


def plan(spec):
    return check_document(_HEAD + spec, "p", host())


def test_a_part_of_a_pointer():
    made = plan("""\
  kprobes:
  - call: fd_install
    syscall: false
    args: [{index: 1, type: int}, {index: 1, type: uint64}]
  - call: sk_alloc
    syscall: false
    return: true
    returnArg: {index: 0, type: int}
""")
    assert [one.type for one in made.hooks[0].args] == [ArgumentType.INT, ArgumentType.UINT64]
    assert made.notices() == [
        "spec.kprobes[0].args[0]: struct file * is a pointer, and int is a part of it",
        "spec.kprobes[1].returnArg: struct sock * is a pointer, and int is a part of it",
    ]


def test_registers_beyond_the_parameters_of_a_system_call():
    made = plan("""\
  kprobes:
  - call: sys_close
    args: [{index: 5, type: int}]
  - call: sys_write
    args: [{index: 1, type: char_buf, sizeArgIndex: 4}]
  - call: sys_getppid
    args: [{index: 0, type: string}]
  - call: sys_getppid
""")
    close, write, getppid, alone = made.hooks
    assert close.args[0].source == SyscallArgument(5)
    assert write.args[0].length == SyscallArgument(3)
    assert close.entry is write.entry is alone.entry is Mechanism.FENTRY
    # The function has no parameters, so only the dispatcher has the registers.
    assert getppid.entry is Mechanism.SYS_ENTER
    assert "has no parameter with the program's registers" in getppid.note
    assert made.notices() == [
        "spec.kprobes[0].args[0]: sys_close has no argument 5: its register is read, "
        "whatever it holds",
        "spec.kprobes[1].args[0]: sys_write has 3 arguments, so none is at 4: "
        "the length is what the register holds",
        "spec.kprobes[2].args[0]: sys_getppid has no argument 0: its register is read, "
        "whatever it holds",
    ]


def test_an_override_that_lets_the_function_run():
    made = plan("""\
  kprobes:
  - call: security_file_open
    syscall: false
    selectors: [{matchActions: [{action: Override}]}]
""")
    path = "spec.kprobes[0].selectors[0].matchActions[0]"
    assert made.notices() == [f"{path}: Override with 0 is not an error: the function runs"]
