"""Override and Set in programs: registers that a uprobe writes, memory of a USDT argument."""

import os
import subprocess
from dataclasses import replace

import pytest

from collector.bpf.features import Features
from collector.policies.acting_features import Anything, KernelActions
from collector.policies.install import ModeWord
from collector.policies.plan_policy import check_document
from collector.policies.translate import translate
from kernel.test_policies_arguments import document
from support.policies import btf, host, kernel, plan_of
from support.workloads import built
from tracingpolicy import PolicyErrors

pytestmark = pytest.mark.kernel

OVERRIDE, SET = 5, 15  # enum KprobeAction
FIRST, SECOND = ("rdi", "rsi") if os.uname().machine == "x86_64" else ("x0", "x1")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built("calls", tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    return built("probes", tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def actions():
    return KernelActions(Features(btf()))


def summing(program, action):
    """Return a policy that acts where take_sum is called with 4711."""
    return document(
        f"uprobes:\n- path: {program}\n  symbols: [take_sum]\n"
        "  args: [{index: 0, type: int64}, {index: 1, type: int64}]\n"
        "  selectors:\n  - matchArgs: [{index: 0, operator: Equal, values: ['4711']}]\n"
        f"    matchActions: [{action}]\n"
    )


def total(program, a, b):
    """Return the pid of a process that adds two numbers, and its result."""
    child = subprocess.Popen([program, "sum", str(a), str(b)], stdout=subprocess.PIPE, text=True)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return child.pid, int(output)


REGISTERS = {
    "error": ("{action: Override, argError: -5}", -5),
    "number": (f"{{action: Override, argRegs: ['{FIRST}=1000']}}", 1001),
    "registers": (
        f"{{action: Override, argRegs: ['{FIRST}=%{SECOND}', '{SECOND}=6%{FIRST}']}}",
        4718,
    ),
    "jump": ("{action: Override, argNewSymbol: take_difference}", 4710),
    "set": ("{action: Set, argIndex: 0, argValue: 77}", 78),
}


@pytest.mark.parametrize(("action", "result"), REGISTERS.values(), ids=list(REGISTERS))
def test_function_of_a_program(policies, actions, program, action, result):
    if reason := actions.why_no_register_writes():
        pytest.skip(reason)
    kind, field = (SET, "set") if "Set" in action else (OVERRIDE, "override")
    with policies.loaded(plan_of(summing(program, action)), ModeWord.ENFORCE) as loaded:
        assert total(program, 4711, 1)[1] == result
        assert total(program, 4712, 1)[1] == 4713
        assert getattr(loaded.counts(), field) == 1
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        pid, unchanged = total(program, 4711, 1)
        (record,) = loaded.until(1, pid)
        assert getattr(loaded.counts(), f"monitor_{field}") == 1
    assert (unchanged, record.action, record.args) == (4712, kind, (4711, 1))


@pytest.mark.parametrize("action", [one[0] for one in REGISTERS.values()], ids=list(REGISTERS))
def test_text_for_a_kernel_that_writes_registers_is_compiled(policies, program, action):
    """Also where the running kernel would refuse to load it."""
    newer = replace(host(), acting=Anything())
    plan = check_document(summing(program, action), "test.yaml", newer)
    assert all(policies.compile(translate(plan, kernel())).values())


def test_registers_that_cannot_be_written_are_refused(actions, program):
    if not actions.why_no_register_writes():
        pytest.skip("this kernel lets uprobes write registers")
    with pytest.raises(PolicyErrors, match="registers of a program cannot be written here"):
        plan_of(summing(program, "{action: Override, argError: -5}"))


def test_memory_of_a_usdt_argument(policies, actions, probes):
    text = document(
        f"usdts:\n- path: {probes}\n  provider: tetra\n  name: settable\n"
        "  args: [{index: 0, type: int32}]\n"
        "  selectors: [{matchActions: [{action: Set, argIndex: 0, argValue: 7}]}]\n"
    )
    assert subprocess.run([probes, "set"], check=False).returncode == 33
    if reason := actions.why_no_memory_writes():
        with pytest.raises(PolicyErrors, match="bpf_probe_write_user"):
            plan_of(text)
        pytest.skip(reason)
    with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
        with subprocess.Popen([probes, "set"]) as child:
            assert child.wait(60) == 7
        (record,) = loaded.until(1, child.pid)
        assert (record.action, record.args, loaded.counts().set) == (SET, (33,), 1)
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        assert subprocess.run([probes, "set"], check=False).returncode == 33
