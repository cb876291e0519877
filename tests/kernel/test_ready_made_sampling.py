"""Policy syscalls at the functions of system calls: what it sees, and frequent calls left out."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collector.policies.host import may_misread_code
from collector.policies.plan import Mechanism
from collector.policies.syscalls import SyscallTable
from support.policies import host
from support.ready_made import watching
from tracingpolicy.ordinary import ORDINARY

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CPUS = Path("/sys/devices/system/cpu")
PYTHON = os.path.realpath(sys.executable)
TABLE = SyscallTable.of(os.uname().machine)
# Many calls in one process, ordinary ones and others.
CALLS = """
import fcntl, mmap, os, resource, select, signal, socket, time
os.getpgid(0), os.getsid(0), os.times(), os.uname(), os.umask(0o22), os.getloadavg()
os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
os.memfd_create("x"), os.eventfd(0), os.pipe(), os.urandom(8), os.getgroups(), os.getresuid()
resource.getrlimit(resource.RLIMIT_CORE), resource.getrusage(resource.RUSAGE_SELF)
signal.sigpending(), signal.setitimer(signal.ITIMER_REAL, 0), signal.getitimer(0)
one, other = socket.socketpair()
one.sendall(b"x"), other.recv(1), one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
select.epoll().poll(0), select.select([], [], [], 0), select.poll().poll(0)
os.statvfs("/"), os.stat("/"), os.access("/", os.R_OK), os.listdir("/")
os.readlink("/proc/self/exe")
if not os.fork(): os.kill(os.getpid(), signal.SIGKILL) # exit_group is that of the parent
os.wait()
try: os.kill(2**22, 0)
except ProcessLookupError: pass
try: os.mkdir("/")
except FileExistsError: pass
"""


@pytest.fixture(scope="module", autouse=True)
def one_cpu():
    """In a guest of QEMU: see `may_misread_code`."""
    others = list(CPUS.glob("cpu[0-9]*/online")) if may_misread_code() else []
    for one in others:
        one.write_text("0")
    host.cache_clear()  # another file's tests may have planned with more CPUs
    yield
    for one in others:
        one.write_text("1")
    host.cache_clear()


@pytest.fixture
def sampled(policies):
    """The policy at functions; skipped where the kernel has only the tracepoint."""
    with watching(policies, "syscalls") as watch:
        if watch.loaded.translation.programs[0].mechanism is not Mechanism.CALL_FUNCTIONS:
            pytest.skip("programs cannot be attached to many functions here (kprobe.multi, x86-64)")
        yield watch


def number(name):
    return TABLE.by_call(TABLE.native, name).number


def calls_of(watch, path, *words):
    """Run a program under a new name; return the calls that were reported of it."""
    os.symlink(PYTHON, path)
    with subprocess.Popen([path, "-S", "-E", *words]) as process:
        pass
    assert process.returncode == 0
    exited = number("exit_group")
    watch.wait_for(lambda: any(exited in values(one) for one in watch.loaded.of(process.pid)))
    return {value for one in watch.loaded.of(process.pid) for value in values(one)}


def sampled_by(frequent):
    return {one.number for one in frequent.sampled}


def values(record):
    return [getattr(one, "id", one) for one in record.args]


def test_functions_see_the_calls_that_the_tracepoint_sees(policies, sampled, tmp_path):
    at_functions = calls_of(sampled, tmp_path / "one", "-c", CALLS)
    with watching(policies, "syscalls", sample="false") as traced:
        assert traced.loaded.translation.programs[0].mechanism is Mechanism.RAW_TRACEPOINT
        at_tracepoint = calls_of(traced, tmp_path / "two", "-c", CALLS)
    ordinary = {number(name) for name in ORDINARY}
    assert len(at_tracepoint - ordinary) > 30
    assert at_functions - ordinary == at_tracepoint - ordinary
    assert len(at_functions & ordinary) > 10


def test_frequent_calls_are_left_out_until_they_are_rare_again(sampled, tmp_path):
    (frequent,) = sampled.loaded.installed.frequent
    stop = threading.Event()

    def repeat():
        while not stop.is_set():
            os.getppid()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        sampled.wait_for(lambda: number("getppid") in sampled_by(frequent))
        # Others are reported at once, such as getpgid(2); a repeated call by a sample.
        script = (
            "import os, time\nos.getpgid(0)\nfor _ in range(200): os.getppid(); time.sleep(0.1)"
        )
        assert number("getpgid") in calls_of(sampled, tmp_path / "one", "-c", script)
        found = {value for one in sampled.loaded.records for value in values(one)}
        assert number("getppid") in found
    finally:
        stop.set()
        thread.join()
    sampled.wait_for(lambda: number("getppid") not in sampled_by(frequent), 60)
    again = calls_of(sampled, tmp_path / "two", "-c", "import os; os.getppid()")
    assert number("getppid") in again


def test_removal_ends_the_samples(policies):
    with watching(policies, "syscalls") as watch:
        found = list(watch.loaded.installed.frequent)
    assert all(one._followed is None for one in found)
    assert not any(one.name == "system-calls" for one in threading.enumerate())
