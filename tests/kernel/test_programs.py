"""Programs of every kind that this kernel takes: compiled without rights, loaded, attached, run."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from collector.bpf import compiler, links, maps, programs
from collector.bpf.btf import Btf, BtfKind
from collector.bpf.btf.members import field_names
from collector.bpf.bytecode import ProgramPlan, assemble, decode, encode
from collector.bpf.features import Features
from collector.bpf.links import Uprobe
from collector.bpf.loader import load_object
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.probes import bpf_folder
from collector.bpf.programs import BOUND_BY_BTF, Kind, ProgramSpec, attach_name
from collector.errors import AttachError, CompileError, ProbeError, VerifierError

pytestmark = pytest.mark.kernel

TRUE = "/usr/bin/true"
COUNTS = MapSpec("counts", MapType.ARRAY, 4, 16, 1, maps.MMAPABLE)
TEXT = """
int count(u64 *ctx)
{
	u32 key = 0;
	u64 *value = bpf_map_lookup_elem(MAP(0), &key);

	if (value)
		__sync_fetch_and_add(value, 1);
	__sync_fetch_and_add(&((u64 *)MAP_VALUE(0))[1], 2);
	return 0;
}
"""
# A program of each kind runs when a process starts, or when one calls `probed`.
TARGETS = {
    Kind.RAW_TRACEPOINT: "sched_process_exec",
    Kind.TP_BTF: "sched_process_exec",
    Kind.TRACEPOINT: "sched/sched_process_exec",
    Kind.LSM: "bprm_check_security",
    Kind.FMOD_RET: "security_bprm_check",
}
FUNCTION = "security_bprm_committing_creds"
UPROBES = {Kind.UPROBE, Kind.URETPROBE, Kind.UPROBE_MULTI, Kind.URETPROBE_MULTI}


@pytest.fixture(scope="module")
def btf():
    return Btf.vmlinux()


@pytest.fixture(scope="module")
def features(btf):
    maps.raise_memlock_limit()
    return Features(btf)


@pytest.fixture(scope="module")
def code():
    return compiled(TEXT, "count")


@pytest.fixture
def probed(tmp_path):
    """A program with a function to probe, and the function's place in the file."""
    source = tmp_path / "probed.c"
    source.write_text(
        "__attribute__((noinline)) int probed(int x) { return x + 1; }\n"
        "int main(void) { return probed(41) != 42; }\n"
    )
    binary = tmp_path / "probed"
    subprocess.run(["gcc", "-O1", "-o", binary, source], check=True)
    symbols = subprocess.run(["nm", binary], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^([0-9a-f]+) T probed$", symbols, re.MULTILINE)
    assert found
    return Uprobe(binary, int(found[1], 16))  # the text segment lies at its own address


def compiled(text, *names):
    """Return the bytecode of functions in a C text."""
    source = compiler.Source(text, names)
    return asyncio.run(compiler.compile_source(source, bpf_folder() / "shim"))


def count_in(counts):
    """Return how often programs counted."""
    return int.from_bytes((counts.lookup(bytes(4)) or b"")[:8], "little")


def assert_refused(built, kind, probed):
    """Check that this kernel really refuses what `Features` says that it does."""

    def load_and_attach():
        loaded = load_object(built)
        try:
            loaded.attach()
            if kind in UPROBES:
                loaded.links["count"] = links.attach_uprobe(loaded.programs["count"], probed)
        finally:
            loaded.close()

    with pytest.raises(ProbeError):
        load_and_attach()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.TAIL_CALL])
def test_kind_runs_from_an_object(kind, features, btf, code, probed):
    target, number = TARGETS.get(kind, FUNCTION), 0
    if kind in BOUND_BY_BTF:
        wanted = BtfKind.TYPEDEF if kind is Kind.TP_BTF else BtfKind.FUNC
        number = btf.find(attach_name(kind, target), wanted)
    plan = ProgramPlan("count", kind, target, number)
    built = decode(encode(assemble([COUNTS], [plan], code)))
    if reason := features.why_not(kind):
        if kind is Kind.LSM and "security module" in reason:
            pytest.skip(reason)  # it loads and attaches, and the kernel does not run it
        assert_refused(built, kind, probed)
        return
    loaded = load_object(built)
    try:
        loaded.attach()
        if kind in UPROBES:
            loaded.links["count"] = links.attach_uprobe(loaded.programs["count"], probed)
        subprocess.run([probed.path], check=True)
        counts = loaded.maps["counts"]
        first = count_in(counts)
        assert first >= 1
        with counts.mapped() as memory:  # the same words without a system call
            assert memory[8] == 2 * memory[0]
        loaded.detach()
        before = count_in(counts)
        subprocess.run([probed.path], check=True)
        assert count_in(counts) == before
    finally:
        loaded.close()


def test_programs_of_different_compilations_share_a_map(code):
    shared = maps.create(COUNTS)
    plan = ProgramPlan("count", Kind.RAW_TRACEPOINT, "sched_process_exec")
    one, two = (
        load_object(assemble([COUNTS], [plan], each), {"counts": shared.fd})
        for each in (code, compiled(TEXT, "count"))
    )
    try:
        one.attach()
        two.attach()
        assert one.maps == two.maps == {}
        subprocess.run([TRUE], check=True)
        value = count_in(shared)
        assert value >= 2
        assert value % 2 == 0
    finally:
        one.close()
        two.close()
        shared.close()


def test_verifier_is_quoted_and_its_log_kept():
    with pytest.raises(VerifierError) as caught:
        programs.load(ProgramSpec("empty", Kind.RAW_TRACEPOINT, bytes.fromhex("9500000000000000")))
    assert str(caught.value) == "load empty: raw_tracepoint: verifier: R0 !read_ok"
    assert caught.value.log.count("\n") > 1


def test_program_that_does_not_load_leaves_nothing(code):
    wrong = {"count": code["count"], "empty": bytes.fromhex("9500000000000000")}
    plans = [ProgramPlan(name, Kind.RAW_TRACEPOINT, "sched_process_exec") for name in wrong]
    before = descriptors()
    with pytest.raises(ProbeError, match="load empty"):
        load_object(assemble([COUNTS], plans, wrong))
    assert descriptors() == before


def descriptors():
    """Return how many file descriptors of BPF objects this process has."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found += os.readlink(f"/proc/self/fd/{name}").startswith("anon_inode:bpf")
    return found


def test_target_that_does_not_exist_is_named(code):
    plan = ProgramPlan("count", Kind.RAW_TRACEPOINT, "sched_process_never")
    loaded = load_object(assemble([COUNTS], [plan], code))
    with pytest.raises(AttachError, match=r"attach sched_process_never: raw_tracepoint: No such"):
        loaded.attach()
    loaded.close()


def test_compiler_is_quoted_and_its_output_kept():
    with pytest.raises(CompileError, match="undeclared identifier 'nothing'") as caught:
        compiled("int count(u64 *ctx) { return nothing; }", "count")
    assert "main.c:1:" in caught.value.log


def test_function_that_is_not_in_the_text_is_named():
    with pytest.raises(CompileError, match="other: no such function"):
        compiled(TEXT, "other")


def test_compiler_has_no_rights():
    # It can still read what every user can, and use CPU time.
    script = (
        "from collector.bpf.compiler import drop_rights; drop_rights();"
        "print(open('/proc/self/status').read())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    status = dict(line.split(":\t", 1) for line in answer.stdout.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["65534"] * 4


@pytest.mark.parametrize(
    "struct", ["task_struct", "mm_struct", "file", "dentry", "linux_binprm", "sock", "cred"]
)
def test_offsets_are_the_compilers(struct, btf, tmp_path):
    """Compare with what gcc makes of the header that bpftool writes."""
    number = btf.find_type(f"struct {struct}")
    lines = ['#include "vmlinux.h"']
    for name in sorted(set(field_names(btf, number))):
        found = btf.struct_member(number, name)
        if not found.bits:
            lines.append(
                f"_Static_assert(__builtin_offsetof(struct {struct}, {name}) == {found.offset}, "
                f'"{name}");\n_Static_assert(sizeof(((struct {struct} *)0)->{name}) == '
                f'{found.size}, "{name} size");'
            )
    assert len(lines) > 10
    lines.append(f'_Static_assert(sizeof(struct {struct}) == {btf.size(number)}, "size");')
    source = tmp_path / "offsets.c"
    source.write_text("\n".join(lines) + "\n")
    dump = subprocess.run(
        ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"],
        capture_output=True, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    (tmp_path / "vmlinux.h").write_bytes(dump.stdout)
    subprocess.run(["gcc", "-std=gnu11", "-w", "-fsyntax-only", source], check=True)


# r1 = 0; r1 += 1; if r1 < 200,000 goto -2; r0 = 0; exit. The verifier follows each round.
LOOP = bytes.fromhex(
    "b701000000000000 0701000001000000 a501feff400d0300 b700000000000000 9500000000000000"
)


def test_signals_in_the_verifier_do_not_refuse_a_program():
    came = []

    def interrupt(number, frame):
        came.append(number)
        if len(came) < 3:
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        programs.load(ProgramSpec("interrupted", Kind.RAW_TRACEPOINT, LOOP)).close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came  # how many meet the verifier is the machine's speed
