"""The collector's four capabilities are enough, also where perf events are not allowed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collector.bpf import base, kernel
from collector.bpf.btf import Btf
from collector.bpf.features import Features
from collector.bpf.programs import Kind

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

TRUE = "/usr/bin/true"
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# include/uapi/linux/capability.h: DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF
FOUR = (2, 19, 38, 39)
# Opens the probes with credentials, says which hooks serve, then what the exec of argv[2] gained.
SCRIPT = """
import asyncio, sys, time
from pathlib import Path
from collector.bpf import base, kernel, probes
from collector.records.process import EXEC, ExecDecoder
info = kernel.detect(Path(sys.argv[1]))
flags = base.compiler_flags(
    info, ring_size_bytes=1 << 20, process_map_entries=4096, enable=("CRED",)
)
found = asyncio.run(probes.open_probes(info, flags, base.bpf_folder()))
print("hooks", *found.hooks, flush=True)
decoder, deadline = ExecDecoder(), time.monotonic() + 60
while time.monotonic() < deadline:
    for data in found.ring.drain():
        if int.from_bytes(data[:4], "little") != EXEC:
            continue
        record = decoder.decode(data)
        if record.filename == sys.argv[2].encode():
            print("secureexec", record.secureexec, flush=True)
            sys.exit()
    time.sleep(0.01)
"""


@pytest.fixture
def paranoid():
    """perf_event_paranoid as Debian sets it: perf events need CAP_SYS_ADMIN."""
    before = PARANOID.read_text()
    PARANOID.write_text("3")
    yield
    PARANOID.write_text(before)


@pytest.fixture
def set_gid(tmp_path):
    """A set-gid program that every user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if os.access(folder, os.W_OK) and str(folder).count("/") > 1:
            folder.chmod(folder.stat().st_mode | 0o55)
    binary = tmp_path / "set-gid"
    shutil.copyfile(TRUE, binary)
    os.chown(binary, 1, 0)
    binary.chmod(0o2755)
    return binary


def limited(*command, **options):
    """Start a command as root with the four capabilities, as compose.yaml starts the collector."""
    only = ",".join(["-all", *(f"+cap_{number}" for number in FOUR)])
    # Locked memory: compose.yaml raises it, for kernels before 5.11.
    unlocked = ["sh", "-c", 'ulimit -l unlimited 2> /dev/null; exec "$@"', "sh"]
    rights = ["setpriv", "--no-new-privs", f"--bounding-set={only}", f"--inh-caps={only}"]
    return subprocess.Popen(
        [*unlocked, *rights, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_credentials_work_with_four_capabilities(paranoid, set_gid, tmp_path):
    features = kernel.detect(tmp_path / "cache").features
    by_fentry = "HAVE_PREPARE_EXEC" not in features
    if by_fentry and not Features(Btf.vmlinux()).can(Kind.FENTRY):
        pytest.skip("a kprobe serves here: it needs CAP_SYS_ADMIN where perf events do")
    child = limited(sys.executable, "-c", SCRIPT, tmp_path / "cache", set_gid)
    try:
        assert child.stdout
        for line in child.stdout:
            if line.startswith("hooks "):
                break
        else:
            pytest.fail(child.communicate(timeout=60)[1])
        hook, *others = line.split()[1:]
        assert set(others) == set(base.HOOKS)
        assert hook == ("security_bprm_committing_creds" if by_fentry else "sched_prepare_exec")
        subprocess.run([set_gid], user=1, group=1, extra_groups=[], check=True)
        output, errors = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 0, errors
    assert output.split() == ["secureexec", "18"]  # SECURE_SETGID | SECURE_SETGID_ROOT


def test_limited_process_has_the_four_and_no_more():
    child = limited("cat", "/proc/self/status")
    status = dict(
        line.split(":\t", 1)
        for line in child.communicate(timeout=60)[0].splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == sum(1 << number for number in FOUR)
