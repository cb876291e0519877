"""Override, signals and NotifyEnforcer at kernel functions and LSM hooks.

Where the running kernel lets nothing hook functions these tests skip; `make test-kernels` runs them
in guests.
"""

import ctypes
import errno
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest

from collector.bpf.programs import Kind
from collector.policies.install import ModeWord
from collector.policies.kept_enforcement import KeptEnforcement
from collector.policies.plan import Mechanism as M
from collector.policies.plan import OverrideBy
from kernel.test_policies_arguments import document
from kernel.test_policy_signals import outcome
from support.calls import PREFIX
from support.modules import DUMMY, is_loaded, unload
from support.policies import Machine, host, plan_of
from support.waiting import wait_until
from tracingpolicy import PolicyErrors

pytestmark = pytest.mark.kernel

SIGKILL, OVERRIDE, NOTIFY = 3, 5, 13  # enum KprobeAction


@pytest.fixture(autouse=True)
def functions_can_be_hooked():
    """Skip all where fentry does not work: gates stand in the same trampoline."""
    if reason := host().why_not(M.FENTRY, False) or host().why_not(M.FMOD_RET, False):
        pytest.skip(reason)


def at_entry(hook, mechanism):
    """Return a planned hook that is served by another mechanism, which has no typed pointers."""
    args = hook.args
    if mechanism is not M.FENTRY:
        args = tuple(replace(one, opened=False) for one in args)
    return replace(hook, entry=mechanism, args=args)


@pytest.fixture(params=[M.FENTRY, M.KPROBE], ids=lambda one: one.value)
def by(request):
    """Each way to hook a function that a gate can stand behind."""
    if reason := host().why_not(request.param, False):
        pytest.skip(reason)

    def forced(text):
        plan = plan_of(text)
        return replace(plan, hooks=tuple(at_entry(hook, request.param) for hook in plan.hooks))

    return forced


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


def kprobe(path, actions, call="security_file_open"):
    """Return a policy on opening a file."""
    return document(
        f"kprobes:\n- call: {call}\n  syscall: false\n  args: [{{index: 0, type: file}}]\n"
        f"  selectors:\n  - matchArgs: [{{index: 0, operator: Equal, values: ['{path}']}}]\n"
        f"    matchActions: [{actions}]\n"
    )


def lsm(path, actions):
    """Return the same at the LSM hook."""
    return document(
        "lsmhooks:\n- hook: file_open\n  args: [{index: 0, type: file}]\n"
        f"  selectors:\n  - matchArgs: [{{index: 0, operator: Equal, values: ['{path}']}}]\n"
        f"    matchActions: [{actions}]\n"
    )


def deny(error):
    return f"{{action: Override, argError: {-error}}}"


def result_of(action):
    """Run ``action`` in a child; return its pid and 0, the error, or the negative signal."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            action()
        except OSError as error:
            code = error.errno
        except BaseException:
            code = 255
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return pid, -outcome(status)


def opening(path):
    return lambda: os.close(os.open(path, os.O_RDONLY))


def test_file_is_not_opened(policies, by, secret):
    with policies.loaded(by(kprobe(secret, deny(errno.EACCES))), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
        counts = loaded.counts()
        assert result_of(opening("/etc/passwd"))[1] == 0
    assert result == errno.EACCES
    assert (record.action, record.args[0].text) == (OVERRIDE, os.fsencode(secret))
    assert (counts.override, counts.monitor_override, counts.posted) == (1, 0, 1)
    assert result_of(opening(secret))[1] == 0


def test_mode_monitor_opens_the_file(policies, by, secret):
    with policies.loaded(by(kprobe(secret, deny(errno.EACCES)))) as loaded:
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
        counts = loaded.counts()
    assert (result, record.action) == (0, OVERRIDE)
    assert (counts.override, counts.monitor_override) == (0, 1)


def test_refused_call_returns_the_error(policies, secret):
    text = kprobe(secret, deny(errno.EIO)).replace(
        "syscall: false\n",
        "syscall: false\n    return: true\n    returnArg: {index: 0, type: int}\n",
    )
    with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
    assert (result, record.returned, record.return_action) == (errno.EIO, (-errno.EIO,), 1)


def test_lsm_hook_refuses(policies, secret):
    text = lsm(secret, f"{{action: Post}}, {deny(errno.EPERM)}")
    with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
        assert (result, record.action) == (errno.EPERM, OVERRIDE)
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
        assert (result, record.action) == (0, OVERRIDE)


@pytest.mark.parametrize("text", [kprobe, lsm], ids=["security", "lsm"])
def test_override_with_error_zero_lets_the_call_pass(policies, secret, text):
    with policies.loaded(plan_of(text(secret, deny(0))), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        (record,) = loaded.until(1, pid)
        assert result_of(opening("/etc/passwd"))[1] == 0
    assert (result, record.action) == (0, OVERRIDE)


def test_sleepable_lsm_program_refuses_itself(policies, secret):
    if reason := host().why_not(M.LSM, True):
        pytest.skip(reason)
    text = lsm(secret, f"{{action: Post, imaHash: true}}, {deny(errno.EPERM)}")
    plan = plan_of(text)
    assert plan.hooks[0].override is OverrideBy.RESULT
    with policies.loaded(plan, ModeWord.ENFORCE) as loaded:
        assert result_of(opening(secret))[1] == errno.EPERM
        assert result_of(opening("/etc/passwd"))[1] == 0
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        assert result_of(opening(secret))[1] == 0


@pytest.mark.parametrize("text", [kprobe, lsm], ids=["security", "lsm"])
@pytest.mark.parametrize("modes", [(ModeWord.ENFORCE, ModeWord.MONITOR),
                                   (ModeWord.MONITOR, ModeWord.ENFORCE)],
                         ids=["enforce first", "monitor first"])  # fmt: skip
def test_two_policies_on_one_function_both_see_a_refused_call(policies, secret, text, modes):
    plan = plan_of(text(secret, deny(errno.EACCES)))
    with policies.loaded(plan, modes[0]) as first, policies.loaded(plan, modes[1]) as second:
        pid, result = result_of(opening(secret))
        assert len(first.until(2, pid)) == 2
        counts = [first.counts(), second.counts()]
        assert result == errno.EACCES
        assert sorted((one.override, one.monitor_override) for one in counts) == [(0, 1), (1, 0)]
        enforcing = first if modes[0] is ModeWord.ENFORCE else second
        enforcing.shared.set_mode(enforcing.slot, ModeWord.MONITOR)
        assert result_of(opening(secret))[1] == 0


def test_policy_that_ends_leaves_the_gate_to_the_others(policies, secret):
    plan = plan_of(kprobe(secret, deny(errno.EACCES)))
    with policies.loaded(plan, ModeWord.ENFORCE):
        with policies.loaded(plan, ModeWord.ENFORCE):
            assert result_of(opening(secret))[1] == errno.EACCES
        assert result_of(opening(secret))[1] == errno.EACCES
    assert result_of(opening(secret))[1] == 0
    assert not policies.shared.enforcement.gates.links


@pytest.mark.parametrize("text", [kprobe, lsm], ids=["function", "lsm"])
def test_opener_is_killed(policies, secret, text):
    with policies.loaded(plan_of(text(secret, "{action: Sigkill}")), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        assert (result, loaded.until(1, pid)[0].action) == (-9, SIGKILL)


def test_opener_is_killed_by_a_kprobe(policies, by, secret):
    plan = by(kprobe(secret, "{action: Signal, argSig: 12}"))
    with policies.loaded(plan, ModeWord.ENFORCE):
        assert result_of(opening(secret))[1] == -12


def test_connection_is_not_made(policies):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = server.getsockname()
        text = document(
            "kprobes:\n- call: security_socket_connect\n  syscall: false\n"
            "  args: [{index: 1, type: sockaddr}]\n  selectors:\n  - matchArgs:\n"
            f"    - {{index: 1, operator: SPort, values: ['{address[1]}']}}\n"
            f"    matchActions: [{deny(errno.EACCES)}]\n"
        )
        with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
            _, result = result_of(lambda: socket.create_connection(address).close())
            with pytest.raises(BlockingIOError):
                server.accept()
            loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
            assert result_of(lambda: socket.create_connection(address).close())[1] == 0
            server.accept()[0].close()
    assert result == errno.EACCES


DENY_AND_KILL = f"{deny(errno.EACCES)}, {{action: Sigkill}}"


@pytest.fixture
def limited(policies):
    """Policies that are loaded meanwhile may send three signals in a minute."""
    policies.shared.enforcement.signals_max = 3
    yield policies
    policies.shared.enforcement.signals_max = 0


def check_limit(policies, plan, secret):
    """Three openers die, the fourth is refused and switches the mode, the fifth opens the file."""
    with policies.loaded(plan, ModeWord.ENFORCE) as loaded:
        runs = [result_of(opening(secret)) for _ in range(5)]
        assert [result for _, result in runs] == [-9, -9, -9, errno.EACCES, 0]
        assert loaded.shared.mode(loaded.slot) is ModeWord.MONITOR
        records = [loaded.until(1, pid)[0] for pid, _ in runs]
        assert [bool(one.fell_back) for one in records] == [False, False, False, True, False]
        counts = loaded.counts()
        assert (counts.signal, counts.monitor_signal) == (3, 2)
        assert (counts.override, counts.monitor_override) == (4, 1)
        loaded.shared.set_mode(loaded.slot, ModeWord.ENFORCE)  # the count starts again
        assert result_of(opening(secret))[1] == -9


def test_limit_of_signals_ends_override_of_a_function_too(limited, by, secret):
    check_limit(limited, by(kprobe(secret, DENY_AND_KILL)), secret)


def test_limit_of_signals_ends_override_of_an_lsm_hook_too(limited, secret):
    check_limit(limited, plan_of(lsm(secret, DENY_AND_KILL)), secret)


def load_module(path):
    """finit_module(2): the module's file is read and checked, or the call is refused."""
    number = {"x86_64": 313, "aarch64": 273}[os.uname().machine]
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).syscall(number, fd, b"", 0):
        raise OSError(ctypes.get_errno(), "finit_module")


def reading(path):
    """Return a policy that refuses to read a file as a module."""
    return document(
        "kprobes:\n- call: security_kernel_read_file\n  syscall: false\n"
        "  args: [{index: 0, type: file}, {index: 1, type: int}]\n  selectors:\n  - matchArgs:\n"
        f"    - {{index: 0, operator: Equal, values: ['{path}']}}\n"
        f"    matchActions: [{deny(errno.EPERM)}]\n"
    )


def test_file_is_not_read_as_a_module(policies, tmp_path):
    """In mode monitor the kernel reads the file and finds that it is no module."""
    path = tmp_path / "evil.ko"
    path.write_bytes(b"no module")
    with policies.loaded(plan_of(reading(path)), ModeWord.ENFORCE) as loaded:
        assert result_of(lambda: load_module(path))[1] == errno.EPERM
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        assert result_of(lambda: load_module(path))[1] == errno.ENOEXEC


def test_module_is_not_loaded(policies):
    """A real one: refused with an event, then loaded in mode monitor."""
    if not DUMMY.exists() or is_loaded("dummy"):
        pytest.skip("no module to load: guests have one")
    try:
        with policies.loaded(plan_of(reading(DUMMY)), ModeWord.ENFORCE) as loaded:
            pid, result = result_of(lambda: load_module(DUMMY))
            (record,) = loaded.until(1, pid)
            assert (result, record.action) == (errno.EPERM, OVERRIDE)
            assert record.args[0].text == os.fsencode(DUMMY)
            assert not is_loaded("dummy")
            loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
            pid, result = result_of(lambda: load_module(DUMMY))
            assert (result, loaded.until(1, pid)[0].action) == (0, OVERRIDE)
            assert is_loaded("dummy")
    finally:
        if is_loaded("dummy"):
            unload("dummy")


def test_hundred_policies_on_one_function(policies, secret):
    """More than a trampoline has room for: the rest are kprobes, in front of the same gate."""
    if reason := host().why_not(M.KPROBE, False):
        pytest.skip(reason)
    plan = plan_of(kprobe(secret, deny(errno.EACCES)))
    crowded = replace(plan, hooks=(at_entry(plan.hooks[0], M.KPROBE),))
    with ExitStack() as stack:
        loaded = [
            stack.enter_context(
                policies.loaded(
                    plan if n < 30 else crowded,  # the same text: compiled once
                    ModeWord.ENFORCE if n in (7, 77) else ModeWord.MONITOR,
                )
            )
            for n in range(100)
        ]
        pid, result = result_of(opening(secret))
        assert result == errno.EACCES
        assert len(loaded[0].until(100, pid)) == 100
        counts = [one.counts() for one in loaded]
        assert sum(one.override for one in counts) == 2
        assert sum(one.monitor_override for one in counts) == 98
        # The kernel waits for every CPU, once for each: together, as the collector does it.
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda one: one.installed.close(), loaded))
    assert not policies.shared.enforcement.gates.links


def test_system_call_returns_the_error_or_is_refused_with_a_way_out(policies, secret):
    """Kernels of Debian have no error injection: the other branch is for those that have."""
    text = document(
        "kprobes:\n- call: sys_openat\n  args: [{index: 1, type: string}]\n"
        f"  selectors:\n  - matchArgs: [{{index: 1, operator: Equal, values: ['{secret}']}}]\n"
        f"    matchActions: [{deny(errno.ENODEV)}]\n"
    )
    function = host().function(f"{PREFIX}openat")
    acting = host().acting
    if acting.why_no_gate(Kind.FMOD_RET, function.proto.id) and acting.why_no_override_helper():
        under = "security_file_open"
        out = f"allowed: Override on {under}; NotifyEnforcer here with {under} in spec.enforcers; "
        with pytest.raises(PolicyErrors, match=out):
            plan_of(text)
        return
    with policies.loaded(plan_of(text), ModeWord.ENFORCE):  # pragma: no cover
        assert result_of(opening(secret))[1] == errno.ENODEV
        assert result_of(opening("/etc/passwd"))[1] == 0


# --- enforcers


def notifying(path, keys, calls="security_file_open"):
    return document(
        f"enforcers: [{{calls: [{calls}]}}]\n"
        "kprobes:\n- call: sys_openat\n  args: [{index: 1, type: string}]\n"
        f"  selectors:\n  - matchArgs: [{{index: 1, operator: Equal, values: ['{path}']}}]\n"
        f"    matchActions: [{{action: NotifyEnforcer, {keys}}}]\n"
    )


def test_enforcer_refuses_what_a_notified_thread_does_next(policies, secret):
    text = notifying(secret, f"argError: -{errno.EROFS}")
    with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
        pid, result = result_of(opening(secret))
        assert (result, loaded.until(1, pid)[0].action) == (errno.EROFS, NOTIFY)
        assert result_of(opening("/etc/passwd"))[1] == 0
        assert loaded.counts().notify == 1
        loaded.shared.set_mode(loaded.slot, ModeWord.MONITOR)
        assert result_of(opening(secret))[1] == 0
        assert (loaded.counts().notify, loaded.counts().monitor_notify) == (1, 1)


def test_enforcer_sends_the_signal_of_a_notification(policies, secret):
    text = notifying(secret, "argSig: 9", calls="sys_openat")
    with policies.loaded(plan_of(text), ModeWord.ENFORCE):
        assert result_of(opening(secret))[1] == -9
        assert result_of(opening("/etc/passwd"))[1] == 0


def test_notification_that_is_cleaned_up_does_nothing(policies, secret):
    clean = (
        "\n  - call: sys_umask\n    selectors: [{matchActions: "
        "[{action: CleanupEnforcerNotification}, {action: NoPost}]}]\n"
    )
    text = notifying(secret, "argSig: 9", calls="sys_getppid") + clean

    def action(between):
        with suppress(OSError):
            os.open(secret, os.O_RDONLY)
        between()
        os.getppid()

    with policies.loaded(plan_of(text), ModeWord.ENFORCE) as loaded:
        assert result_of(lambda: action(lambda: None))[1] == -9
        assert result_of(lambda: action(lambda: os.umask(0o22)))[1] == 0
        assert (loaded.counts().missed, loaded.counts().overwritten) == (1, 0)
        assert result_of(lambda: action(lambda: opening(secret)()))[1] == -9
        assert (loaded.counts().missed, loaded.counts().overwritten) == (1, 1)


# --- enforcement that outlives its process


@contextmanager
def killed(policies, plan, kept):
    """Enforce a plan in a process, and kill the process when the block ends."""
    with policies.loaded(plan):
        pass  # compiled once, here
    ready, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            machine = Machine.create()
            machine.use_compiled(policies)
            machine.shared.enforcement.kept = kept
            with machine.loaded(plan, ModeWord.ENFORCE) as loaded:
                machine.shared.keep(loaded.slot, loaded.installed)
                os.write(written, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(written)
    try:
        assert os.read(ready, 1) == b"x"
        yield
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("text", [kprobe, lsm], ids=["function", "lsm"])
def test_enforcement_outlives_its_process_if_it_is_kept(policies, bpf_file_system, secret, text):
    """Programs and gates of a function have names: both, or neither, stay."""
    plan = plan_of(text(secret, deny(errno.EACCES)))
    folder = bpf_file_system / "tetra" / "enforcement"
    with killed(policies, plan, KeptEnforcement(folder, enabled=True)):
        assert result_of(opening(secret))[1] == errno.EACCES
    for _ in range(3):  # a verdict is used up by the call that it is for
        assert result_of(opening(secret))[1] == errno.EACCES
    assert result_of(opening("/etc/passwd"))[1] == 0
    following = KeptEnforcement(folder, enabled=True)
    with policies.loaded(plan, ModeWord.ENFORCE):
        following.remove_earlier()  # the next collector enforces, so there is no gap
        assert result_of(opening(secret))[1] == errno.EACCES
    wait_until(lambda: result_of(opening(secret))[1] == 0, 20, lambda: "it still enforces")
    assert not folder.exists()


@pytest.mark.parametrize("text", [kprobe, lsm], ids=["function", "lsm"])
def test_enforcement_ends_with_its_process_if_it_is_not_kept(policies, secret, text):
    plan = plan_of(text(secret, deny(errno.EACCES)))
    with killed(policies, plan, None):
        assert result_of(opening(secret))[1] == errno.EACCES
    wait_until(lambda: result_of(opening(secret))[1] == 0, 20, lambda: "it still enforces")
