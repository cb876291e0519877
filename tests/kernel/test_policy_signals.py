"""Sigkill and Signal at every kind of hook that this kernel has, and what they spare."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from collector.policies.install import ModeWord
from kernel.test_policies_arguments import NEEDS_TRACEFS, document, syscall
from support.policies import plan_of
from support.waiting import wait_until
from support.workloads import built

pytestmark = pytest.mark.kernel

SIGKILL, SIGNAL = 3, 10  # enum KprobeAction
EVIL = f"/none/evil-{os.getpid()}"  # other sessions of tests open their own
KILL = "{action: Sigkill}"
TERM = "{action: Signal, argSig: 15}"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built("calls", tmp_path_factory.mktemp("program"))


def opened(actions, more=""):
    """Return a policy that acts on opening EVIL."""
    return syscall(
        "sys_openat",
        "[{index: 1, type: string}]",
        f"  selectors:\n  - matchArgs: [{{index: 1, operator: Equal, values: [{EVIL}]}}]\n"
        f"    matchActions: [{actions}]\n{more}",
    )


def open_evil():
    """Open EVIL in a child that then ends with 7; return its pid and wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an earlier test may have a handler
            os.open(EVIL, os.O_RDONLY)
        finally:
            os._exit(7)
    return pid, os.waitpid(pid, 0)[1]


def outcome(status):
    """Return the signal that ended a process, or its exit code as a negative number."""
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def ticks(pid):
    """Return when a process started, in clock ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.parametrize(
    ("actions", "sent", "action"), [(KILL, 9, SIGKILL), (TERM, 15, SIGNAL)], ids=["kill", "term"]
)
def test_caller_is_killed_before_the_call_returns(policies, actions, sent, action):
    with policies.loaded(plan_of(opened(actions)), ModeWord.ENFORCE) as loaded:
        pid, status = open_evil()
        (record,) = loaded.until(1, pid)
        counts = loaded.counts()
    assert outcome(status) == sent
    assert (record.args, record.action) == ((EVIL.encode(),), action)
    assert (counts.signal, counts.monitor_signal, counts.posted) == (1, 0, 1)


@pytest.mark.parametrize(("actions", "action"), [(KILL, SIGKILL), (TERM, SIGNAL)])
def test_mode_monitor_reports_the_action_and_leaves_it_out(policies, actions, action):
    with policies.loaded(plan_of(opened(actions)), ModeWord.MONITOR) as loaded:
        pid, status = open_evil()
        (record,) = loaded.until(1, pid)
        counts = loaded.counts()
    assert outcome(status) == -7
    assert record.action == action
    assert (counts.signal, counts.monitor_signal, counts.posted) == (0, 1, 1)


def test_mode_off_has_no_effect_at_once(policies):
    with policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE) as loaded:
        assert outcome(open_evil()[1]) == 9
        loaded.shared.set_mode(loaded.slot, ModeWord.OFF)
        assert outcome(open_evil()[1]) == -7
        loaded.shared.set_mode(loaded.slot, ModeWord.ENFORCE)
        assert outcome(open_evil()[1]) == 9


@pytest.mark.parametrize("enforcing", [0, 1], ids=["enforce first", "monitor first"])
def test_two_policies_on_one_call_act_by_their_own_modes(policies, enforcing):
    modes = [ModeWord.MONITOR, ModeWord.MONITOR]
    modes[enforcing] = ModeWord.ENFORCE
    plan = plan_of(opened(KILL))
    with policies.loaded(plan, modes[0]) as first, policies.loaded(plan, modes[1]) as second:
        pid, status = open_evil()
        assert outcome(status) == 9
        assert [one.action for one in first.until(2, pid)] == [SIGKILL, SIGKILL]
        both = [first, second]
        other = both[1 - enforcing]
        assert [one.counts().signal for one in both] == [1 - enforcing, enforcing]
        assert other.counts().monitor_signal == 1
        both[enforcing].shared.set_mode(both[enforcing].slot, ModeWord.OFF)
        assert outcome(open_evil()[1]) == -7
        other.shared.set_mode(other.slot, ModeWord.ENFORCE)
        assert outcome(open_evil()[1]) == 9


def test_signal_is_sent_without_an_event_too(policies):
    with policies.loaded(plan_of(opened(f"{KILL}, {{action: NoPost}}")), ModeWord.ENFORCE) as one:
        pid, status = open_evil()
        assert outcome(status) == 9
        assert (one.of(pid), one.counts().signal, one.counts().not_posted) == ([], 1, 1)


def test_last_action_of_the_list_is_reported(policies):
    actions = f"{KILL}, {{action: Post}}"
    with policies.loaded(plan_of(opened(actions)), ModeWord.ENFORCE) as loaded:
        pid, status = open_evil()
        (record,) = loaded.until(1, pid)
    assert (outcome(status), record.action) == (9, 1)


def test_first_selector_that_matches_acts(policies):
    text = opened(TERM, f"  - matchActions: [{KILL}]\n")
    with policies.loaded(plan_of(text), ModeWord.MONITOR) as loaded:
        pid, _ = open_evil()
        assert loaded.until(1, pid)[0].action == SIGNAL
        assert (loaded.counts(0).monitor_signal, loaded.counts(0).signal) == (1, 0)


def test_signal_at_return(policies):
    text = syscall(
        "sys_openat",
        "[{index: 1, type: string}]",
        "  return: true\n  returnArg: {index: 0, type: int}\n"
        f"  selectors:\n  - matchArgs: [{{index: 1, operator: Equal, values: [{EVIL}]}}]\n"
        "    matchReturnArgs: [{index: 0, operator: Equal, values: ['-2']}]\n"
        f"    matchReturnActions: [{KILL}]\n",
    )
    for mode, ended in ((ModeWord.MONITOR, -7), (ModeWord.ENFORCE, 9)):
        with policies.loaded(plan_of(text), mode) as loaded:
            pid, status = open_evil()
            (record,) = loaded.until(1, pid)
        assert outcome(status) == ended
        assert (record.action, record.return_action, record.returned) == (1, SIGKILL, (-2,))


def explode(generations, alive):
    """Fork two processes each, for some generations; all open EVIL, and write if they survive."""
    try:
        for _ in range(generations - 1):
            if os.fork() and os.fork():
                break
        with suppress(FileNotFoundError):
            os.open(EVIL, os.O_RDONLY)
        os.write(alive, b"x")
    finally:
        os._exit(7)


def test_every_process_of_a_fork_bomb_is_killed_and_reported_or_counted(policies):
    generations = 6
    with policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE) as loaded:
        read, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            explode(generations, alive)
        os.close(alive)
        with open(read, "rb") as pipe:
            survivors = len(pipe.read())  # ends when the last process that holds the pipe has ended
        os.waitpid(pid, 0)
        wanted = 2**generations - 1 - survivors
        wait_until(
            lambda: len(loaded.pump()) + sum(loaded.lost.values()) >= wanted,
            20, lambda: f"{len(loaded.records)} of {wanted}, lost {loaded.lost}",
        )  # fmt: skip
        assert loaded.counts().signal == wanted
        # A preemptible kernel leaves out a program that another task was interrupted in, and counts
        # it (kernel/bpf/trampoline.c, __bpf_prog_enter_recur()); elsewhere none survives.
        assert survivors <= sum(one.info().recursion_misses for one in loaded.installed.programs)
    assert {one.action for one in loaded.records} == {SIGKILL}
    assert len({one.pid for one in loaded.records}) == len(loaded.records)


@contextmanager
def waiting(action):
    """Start a child that runs ``action`` once the test calls what it gets beside its pid."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            if os.read(ready, 1):
                action()
        finally:
            os._exit(7)
    os.close(ready)

    def run():
        os.write(go, b"x")
        return outcome(os.waitpid(pid, 0)[1])

    try:
        yield pid, run
    finally:
        os.close(go)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


@NEEDS_TRACEFS
@pytest.mark.parametrize(
    "hook",
    [
        "subsystem: syscalls, event: sys_enter_openat",
        "subsystem: raw_syscalls, event: sys_enter",
        "subsystem: sched, event: sched_process_exec, raw: true",
    ],
    ids=["tracepoint", "raw_syscalls", "raw tracepoint"],
)
def test_caller_is_killed_at_a_tracepoint(policies, hook):
    with waiting(lambda: os.execv("/bin/true", ["true"])) as (pid, run):
        text = document(
            f"tracepoints:\n- {{{hook}, selectors: [{{matchPIDs: [{{operator: In, values: "
            f"[{pid}]}}], matchActions: [{KILL}]}}]}}"
        )
        with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
            assert run() == 9
            assert loaded.until(1, pid)[0].action == SIGKILL


@pytest.mark.parametrize("at_return", [False, True], ids=["entry", "return"])
def test_program_is_killed_at_its_function(policies, program, at_return):
    action = f"{'matchReturnActions' if at_return else 'matchActions'}: [{KILL}]"
    returns = "\n  return: true\n  returnArg: {index: 0, type: int64}" if at_return else ""
    text = document(
        f"uprobes:\n- path: {program}\n  symbols: [take_sum]{returns}\n"
        "  args: [{index: 0, type: int64}]\n"
        f"  selectors:\n  - matchArgs: [{{index: 0, operator: Equal, values: ['4711']}}]\n"
        f"    {action}\n"
    )
    for mode, ended in ((ModeWord.MONITOR, 0), (ModeWord.ENFORCE, -9)):
        with policies.loaded(plan_of(text), mode) as loaded:
            assert subprocess.run([program, "sum", "4712", "1"], check=False).returncode == 0
            with subprocess.Popen([program, "sum", "4711", "1"], stdout=subprocess.PIPE) as child:
                output, _ = child.communicate(timeout=60)
            (record,) = loaded.until(1, child.pid)
        assert child.returncode == ended
        assert output == (b"4712\n" if ended == 0 else b"")
        assert (record.return_action if at_return else record.action) == SIGKILL


def test_spared_process_lives_and_only_that_one(policies):
    with (
        policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE) as loaded,
        waiting(lambda: os.open(EVIL, os.O_RDONLY)) as (pid, run),
    ):
        loaded.shared.enforcement.spare({pid: ticks(pid)})
        assert run() == -7
        (record,) = loaded.until(1, pid)
        assert (record.action, loaded.counts().spared, loaded.counts().signal) == (SIGKILL, 1, 0)
        loaded.shared.enforcement.spare({})
        assert outcome(open_evil()[1]) == 9


def test_process_that_got_a_spared_number_is_not_spared(policies):
    with (
        policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE) as loaded,
        waiting(lambda: os.open(EVIL, os.O_RDONLY)) as (pid, run),
    ):
        loaded.shared.enforcement.spare({pid: ticks(pid) - 1})
        assert run() == 9
        loaded.shared.enforcement.spare({})


@pytest.fixture
def service(tmp_path):
    """A program and a script of the stack: each opens EVIL and ends with 1."""
    program, script = tmp_path / "nats-server", tmp_path / "tetra-gateway"
    shutil.copy("/bin/cat", program)
    script.write_text(f"#!{sys.executable}\nopen('{EVIL}')\n")
    script.chmod(0o755)
    return {"program": [program, EVIL], "script": [script],
            "in a pid namespace": ["unshare", "--pid", "--fork", program, EVIL]}  # fmt: skip


@pytest.fixture
def spare_programs(policies):
    """Spare programs of the stack meanwhile, by their names, as a user."""
    enforcement = policies.shared.enforcement

    def spare(uid):
        enforcement.start()
        enforcement.spare_programs({("nats-server", uid), ("tetra-gateway", uid)})

    yield spare
    enforcement.spare_programs(set())


def ends(command):
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


@pytest.mark.parametrize("kind", ["program", "script", "in a pid namespace"])
@pytest.mark.parametrize("actions", [KILL, TERM, "{action: Signal, argSig: 19}"],
                         ids=["kill", "term", "stop"])  # fmt: skip
def test_service_is_spared_from_its_first_instruction(
    policies, service, spare_programs, actions, kind
):
    spare_programs(os.geteuid())
    with policies.loaded(plan_of(opened(actions)), ModeWord.ENFORCE) as loaded:
        assert ends(service[kind]) == 1
        assert (loaded.counts().spared, loaded.counts().signal) == (1, 0)


@pytest.mark.parametrize("kind", ["program", "script"])
def test_program_with_a_name_of_the_stack_and_another_user_is_killed(
    policies, service, spare_programs, kind
):
    spare_programs(os.geteuid() + 1)
    with policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE):
        assert ends(service[kind]) == -9


def test_process_that_takes_a_name_of_the_stack_is_killed(policies, spare_programs):
    """Only a program of Python is known by a name that it can change."""
    spare_programs(os.geteuid())
    command = ["bash", "-c", f"printf nats-server > /proc/self/comm; : < {EVIL}"]
    with policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE):
        assert ends(command) == -9


def test_limit_of_signals_switches_to_mode_monitor(policies):
    policies.shared.enforcement.signals_max = 3
    try:
        with policies.loaded(plan_of(opened(KILL)), ModeWord.ENFORCE) as loaded:
            ends = [outcome(open_evil()[1]) for _ in range(5)]
            assert ends == [9, 9, 9, -7, -7]
            assert loaded.shared.mode(loaded.slot) is ModeWord.MONITOR
            assert (loaded.counts().signal, loaded.counts().monitor_signal) == (3, 2)
            loaded.shared.set_mode(loaded.slot, ModeWord.ENFORCE)
            assert outcome(open_evil()[1]) == signal.SIGKILL
    finally:
        policies.shared.enforcement.signals_max = 0
