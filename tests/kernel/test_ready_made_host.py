"""Ready-made policies credentials and host: one change in many ways, seen or named as missed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from readymade import load, render
from support.policies import plan_of
from support.ready_made import Watch, watching
from support.workloads import built

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

NO_SUCH_WAY = 77

HEAD = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
NEWUSER, NEWNS, NEWUTS = 0x10000000, 0x20000, 0x4000000
def syscall(number, *args):
    return libc.syscall(number, *args)
def private():
    assert libc.unshare(NEWNS | NEWUTS) == 0
    assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
"""
# name -> code, the calls of which at least one must be reported
CREDENTIALS = {
    "setuid": ("os.setuid(65534)", {"setuid"}),
    "setreuid": ("os.setreuid(65534, 65534)", {"setreuid"}),
    "setresuid": ("os.setresuid(65534, 65534, 65534)", {"setresuid"}),
    "effective": ("os.seteuid(65534)", {"setresuid", "setreuid"}),
    "raw": ("syscall(105 if x86 else 146, 65534)", {"setuid"}),
    "thread": (
        "t = threading.Thread(target=lambda: syscall(105 if x86 else 146, 65534));"
        "t.start(); t.join()", {"setuid"},
    ),
    "fsuid": ("libc.setfsuid(65534)", {"setfsuid"}),
    "gid": ("os.setgid(65534)", {"setgid"}),
    "groups": ("os.setgroups([65534])", {"setgroups"}),
    "failed": (
        "os.setuid(65534)\ntry:\n    os.setuid(0)\nexcept OSError:\n    pass", {"setuid"},
    ),
    "capset": (
        "h = (ctypes.c_uint32 * 2)(0x20080522, 0); d = (ctypes.c_uint32 * 6)();"
        "libc.capset(h, d)", {"capset"},
    ),
    "bounding": ("libc.prctl(24, 21, 0, 0, 0)", {"prctl"}),
    "securebits": ("libc.prctl(28, 1 << 4, 0, 0, 0)", {"prctl"}),
    "ambient": ("libc.prctl(47, 4, 0, 0, 0)", {"prctl"}),
    "unshare": ("libc.unshare(NEWUSER)", {"unshare"}),
    "clone": (
        "p = syscall(56 if x86 else 220, NEWUSER | 17, 0, 0, 0, 0)\nif p == 0: os._exit(0)\n"
        "os.waitpid(p, 0)", {"clone"},
    ),
    "clone3": (
        "a = (ctypes.c_uint64 * 8)(NEWUSER, 0, 0, 0, 17, 0, 0, 0)\n"
        "p = syscall(435, a, 64)\nif p == 0: os._exit(0)\nos.waitpid(p, 0)", {"clone3"},
    ),
    "clone3-vfork": (
        "a = (ctypes.c_uint64 * 11)(NEWUSER | 0x4000, 0, 0, 0, 17)\n"
        "p = syscall(435, a, 88)\nif p == 0: os._exit(0)\nos.waitpid(p, 0)", {"clone3"},
    ),
    "entered": ("libc.setns(os.pidfd_open(os.getpid()), NEWUSER | NEWUTS)", {"setns"}),
    "file-capability": (
        'import shutil; shutil.copy("/bin/true", "/tmp/tetra-capable")\n'
        "data = b\"\\x01\\0\\0\\2\\0\\x20\" + bytes(14)\n"  # VFS_CAP_REVISION_2, net_raw
        'os.setxattr("/tmp/tetra-capable", "security.capability", data)\n'
        'os.chmod("/tmp/tetra-capable", 0o755); os.setresuid(65534, 65534, 65534)\n'
        'os.execv("/tmp/tetra-capable", ["true"])', {"set-id"},
    ),
    "descriptor": ("syscall(438, os.pidfd_open(os.getpid()), 0, 0)", {"pidfd_getfd"}),
    "traceme": ("libc.ptrace(0, 0, 0, 0)", {"ptrace"}),
    "attach": ("libc.ptrace(16, 0x3FFFFFFF, 0, 0)", {"ptrace"}),
    "memory": ("libc.process_vm_readv(os.getpid(), None, 0, None, 0, 0)", {"process_vm_readv"}),
    "key": ('syscall(248 if x86 else 217, b"user", b"tetra", b"x", 1, -2)', {"add_key"}),
    "keyctl": ("syscall(250 if x86 else 219, 0, -2, 1)", {"keyctl"}),
}  # fmt: skip
HOST = {
    "unshare": ("libc.unshare(NEWUTS)", {"unshare"}),
    "setns": ('libc.setns(os.open("/proc/self/ns/uts", os.O_RDONLY), 0)', {"setns"}),
    "setns-process": ("libc.setns(os.pidfd_open(os.getpid()), NEWUTS)", {"setns"}),
    "mount": ('private(); libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)', {"mount"}),
    "bind": ('private(); libc.mount(b"/tmp", b"/mnt", None, 0x1000, None)', {"mount"}),
    "fsmount": (
        'private(); f = syscall(430, b"tmpfs", 0); syscall(431, f, 6, None, None, 0)\n'
        'syscall(429, syscall(432, f, 0, 0), b"", -100, b"/mnt", 4)', {"move_mount"},
    ),
    "tree": (
        'private(); syscall(429, syscall(428, -100, b"/tmp", 1), b"", -100, b"/mnt", 4)',
        {"move_mount"},
    ),
    "remount": (
        'private(); libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)\n'
        'f = syscall(433, -100, b"/mnt", 0); syscall(431, f, 0, b"ro", None, 0)\n'
        "assert syscall(431, f, 7, None, None, 0) == 0", {"fspick"},
    ),
    "attributes": (
        'private(); libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)\n'
        'syscall(442, -100, b"/mnt", 0, (ctypes.c_uint64 * 4)(1, 0, 0, 0), 32)', {"mount_setattr"},
    ),
    "clone3": (
        "a = (ctypes.c_uint64 * 8)(NEWUTS, 0, 0, 0, 17, 0, 0, 0)\n"
        "p = syscall(435, a, 64)\nif p == 0: os._exit(0)\nos.waitpid(p, 0)", {"clone3"},
    ),
    "umount": ('private(); libc.umount2(b"/mnt", 2)', {"umount"}),
    "hostname": ('private(); libc.sethostname(b"h", 1)', {"sethostname"}),
    "clock": ("syscall(227 if x86 else 112, 0, None)", {"clock_settime"}),
    "swap": ('libc.swapon(b"/none", 0)', {"swapon"}),
    "module": ('syscall(313 if x86 else 273, -1, b"", 0)', {"finit_module"}),
    "module-gone": ('syscall(176 if x86 else 106, b"none_such", 0)', {"delete_module"}),
    "program": ("syscall(321 if x86 else 280, 5, None, 0)", {"bpf"}),
    "chroot": ('os.chroot("/tmp")', {"chroot"}),
    "setting": ('open("/proc/sys/kernel/threads-max", "r+").close()', {"setting"}),
    "setting-relative": (
        'os.chdir("/proc/sys/kernel"); os.open("../kernel/threads-max", os.O_WRONLY)', {"setting"},
    ),
    "setting-link": (
        'os.open("/proc/self/root/proc/sys/kernel/threads-max", os.O_WRONLY)', {"setting"},
    ),
    "setting-openat2": (
        "how = (ctypes.c_uint64 * 3)(1, 0, 0)\n"
        'syscall(437, -100, b"/proc/sys/kernel/threads-max", how, 24)', {"setting"},
    ),
    "setting-creat": (
        'syscall(85, b"/proc/sys/kernel/threads-max", 0) if x86 else '
        'open("/proc/sys/kernel/threads-max", "w")', {"setting"},
    ),
    "setting-tree": (  # opened through a mount of its own, which has no place among the others
        't = syscall(428, -100, b"/proc/sys/kernel", 1 | 0x8000)\n'
        'os.open("threads-max", os.O_WRONLY, dir_fd=t)', {"setting"},
    ),
    "device": ('os.open("/dev/kmsg", os.O_RDONLY)', {"device"}),
    "device-elsewhere": (
        'os.mknod("/tmp/tetra-node", 0o20600, os.makedev(1, 11))\ntry:\n'
        '    os.open("/tmp/tetra-node", os.O_RDONLY)\nfinally:\n    os.unlink("/tmp/tetra-node")',
        {"device"},
    ),
    "device-handle": (
        'class Handle(ctypes.Structure):\n'
        '    _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int),\n'
        '                ("b", ctypes.c_ubyte * 128)]\n'
        'h = Handle(128); m = ctypes.c_int(); at = ctypes.byref\n'
        'assert libc.name_to_handle_at(-100, b"/dev/kmsg", at(h), at(m), 0) == 0\n'
        'assert libc.open_by_handle_at(os.open("/dev", 0), at(h), 0) >= 0', {"device"},
    ),
}  # fmt: skip
# Named in the head: a mount without a place gives a file no path below /proc/sys.
ESCAPES = {"setting-tree"}


@pytest.fixture(scope="module")
def credentials(policies):
    with watching(policies, "credentials") as watch:
        yield watch


@pytest.fixture(scope="module")
def host(policies):
    with watching(policies, "host") as watch:
        yield watch


def seen(watch, code):
    """Run code in a process of its own; return the calls of it that were reported."""
    with subprocess.Popen([sys.executable, "-c", HEAD + code]) as process:
        process.wait(60)
    # What this one does is reported behind it: then the other's records have arrived.
    mark = "libc.prctl(24, 63, 0, 0, 0); libc.setns(-1, 0)"
    with subprocess.Popen([sys.executable, "-c", HEAD + mark]) as marking:
        marking.wait(60)
    watch.wait_for(lambda: watch.calls_of(marking.pid) & {"prctl", "setns"})
    return watch.calls_of(process.pid)


@pytest.mark.parametrize("way", CREDENTIALS)
def test_ways_to_change_credentials(credentials, way):
    code, expected = CREDENTIALS[way]
    assert seen(credentials, code) & expected


def test_a_debugger_is_reported_once_a_second(credentials):
    code = (
        "import time; start = time.monotonic()\nfor _ in range(5000):\n"
        "    libc.process_vm_readv(os.getpid(), None, 0, None, 0, 0)\n"
        "print(time.monotonic() - start)"
    )
    command = [sys.executable, "-c", HEAD + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        took_s = float(process.communicate(timeout=60)[0])
    credentials.wait_for(lambda: "process_vm_readv" in credentials.calls_of(process.pid))
    seen(credentials, "")
    assert len(credentials.loaded.of(process.pid)) <= 2 + took_s


@pytest.mark.parametrize("way", HOST)
def test_ways_to_change_the_host(host, way):
    if way.startswith("device") and not os.path.exists("/dev/kmsg"):
        pytest.skip("/dev/kmsg is not there")
    code, expected = HOST[way]
    assert bool(seen(host, code) & expected) is (way not in ESCAPES)


def test_opening_the_kernels_memory_is_reported(policies, tmp_path):
    """A file of the test in place of /proc/kcore, which not every machine has."""
    path = tmp_path / "kcore"
    for one in (path, tmp_path / "other"):
        one.touch()
    text = render(load("host"), {}).replace("/proc/kcore", str(path))
    plan = plan_of(text)
    with policies.loaded(plan) as loaded:
        watch = Watch(plan, loaded)
        opening = f"os.open({str(path)!r}, os.O_RDONLY)"
        assert seen(watch, opening) & {"device", "setting"}
        assert not seen(watch, opening.replace("kcore", "other"))
        assert not seen(watch, opening.replace("kcore", "none"))


def test_failure_has_its_error(credentials):
    code = "os.setuid(65534)\ntry:\n    os.setuid(0)\nexcept OSError:\n    pass"
    with subprocess.Popen([sys.executable, "-c", HEAD + code]) as process:
        process.wait(60)
    credentials.wait_for(lambda: len(credentials.loaded.of(process.pid)) >= 2)
    assert [r.returned[0] for r in credentials.loaded.of(process.pid)] == [0, -1]


@pytest.mark.parametrize(
    ("path", "message"), [("/proc/sys/kernel/threads-max", "setting"), ("/dev/kmsg", "device")]
)
def test_a_ring_opens_what_is_watched(host, tmp_path_factory, path, message):
    if not os.path.exists(path):
        pytest.skip(f"{path} is not there")
    folder, name = Path(path).parent, Path(path).name
    program = built("evasions", tmp_path_factory.mktemp("evasions"))
    with subprocess.Popen([program, "write", "ring", folder, name]) as process:
        if process.wait(60) == NO_SUCH_WAY:
            pytest.skip("this kernel or machine has no io_uring")
    seen(host, "")
    assert message in host.calls_of(process.pid)
