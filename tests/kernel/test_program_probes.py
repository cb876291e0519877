"""Probes in programs: USDT, and uprobes by symbol, offset and address, as whole messages."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from collector.policies.elf import Elf
from collector.policies.elf_usdt import locations
from collector.policies.entry import State
from collector.policies.files import Document
from support.nats_server import NATS_SERVER
from support.policy_node import HEAD, facts
from support.workloads import built

pytestmark = pytest.mark.kernel
# Where the kernel has uprobe.multi, perf uprobes are tested too.
EITHER = pytest.mark.parametrize("single", ["false", "true"], ids=["any", "single"])
OPTIONS = """\
  options:
  - {name: disable-uprobe-multi, value: "%s"}
"""
POSTED = {"action": "KPROBE_ACTION_POST"}


@pytest.fixture(scope="session")
def probes(tmp_path_factory):
    """A program with USDT probes, built."""
    return built("probes", tmp_path_factory.mktemp("workloads"))


@pytest.fixture(scope="session")
def calls(tmp_path_factory):
    """A program with functions of every kind of argument, built."""
    return built("calls", tmp_path_factory.mktemp("workloads"))


def run(*command):
    """Run a program; return its pid and output."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output, _ = child.communicate(timeout=60)
    return child.pid, output


def usdt(path, name, *args):
    return {"path": path, "provider": "tetra", "name": name, "args": list(args), **POSTED}


def uprobe(path, *args, **more):
    body = {"path": path, **more, "args": list(args), **POSTED}
    return body if args else {key: value for key, value in body.items() if key != "args"}


@EITHER
async def test_usdt_arguments_in_registers_memory_and_constants(node, probes, single):
    await node.load(
        (OPTIONS % single)
        + f"""\
  usdts:
  - path: {probes}
    provider: "tetra"
    name: "numbers"
    message: "numbers of a probe"
    args:
    - {{index: 0, type: int32}}
    - {{index: 1, type: int64}}
    - {{index: 2, type: int32}}
    - {{index: 3, type: int32}}
"""
    )
    pid, _ = run(probes)
    found = [facts(event) for event in node.events(pid, 2)]
    wanted = [
        usdt(
            probes, "numbers", {"int_arg": small}, {"long_arg": wide}, {"int_arg": memory},
            {"int_arg": constant},
        )
        for small, wide, memory, constant in (
            (-5, "5000000000", -33, 7),
            (250, "-6", -6, -8),
        )
    ]  # fmt: skip
    assert found == [one | {"message": "numbers of a probe"} for one in wanted]


async def test_usdt_filters_and_texts(node, probes):
    await node.load(f"""\
  usdts:
  - path: {probes}
    provider: "tetra"
    name: "text"
    args:
    - {{index: 0, type: string}}
    - {{index: 1, type: uint64}}
    selectors:
    - matchArgs:
      - {{index: 0, operator: Prefix, values: ["need"]}}
      matchBinaries:
      - {{operator: In, values: ["{probes}"]}}
""")
    run(probes, "hay")
    pid, _ = run(probes, "needle")
    found = [facts(event) for event in node.events(pid)]
    assert found == [usdt(probes, "text", {"string_arg": "needle"}, {"size_arg": "7"})]


@EITHER
async def test_the_semaphore_of_a_usdt_probe_is_raised_while_it_is_used(node, probes, single):
    assert run(probes)[1] == "0\n"
    await node.load(
        (OPTIONS % single)
        + f"""\
  usdts:
  - path: {probes}
    provider: "tetra"
    name: "guarded"
    args:
    - {{index: 0, type: uint64}}
"""
    )
    pid, output = run(probes)
    assert [facts(event) for event in node.events(pid)] == [
        usdt(probes, "guarded", {"size_arg": "44"})
    ]
    assert output == "1\n"
    await node.manager.set_documents([])
    assert run(probes)[1] == "0\n"


def place(calls, symbol):
    """Return the address of a symbol and its offset in the file."""
    elf = Elf.open(calls)
    address = elf.symbol(symbol)
    offset = elf.offset_of(address)
    elf.close()
    return address, offset


@EITHER
async def test_uprobes_by_offset_and_by_address(node, calls, single):
    address, offset = place(calls, "take_sum")
    await node.load(
        (OPTIONS % single)
        + f"""\
  uprobes:
  - path: {calls}
    offsets: [{offset}]
    args:
    - {{index: 0, type: int64}}
  - path: {calls}
    addrs: [{address}]
    return: true
    returnArg: {{index: 0, type: int64}}
    args:
    - {{index: 1, type: int32}}
  - path: {calls}
    symbols: ["take_sum", "take_sum+0x0"]
"""
    )
    pid, _ = run(calls, "sum", "-7", "3")
    found = sorted((facts(event) for event in node.events(pid, 4)), key=str)
    wanted = [
        uprobe(calls, {"long_arg": "-7"}, offset=str(offset)),
        uprobe(calls, {"int_arg": 3}, {"long_arg": "-4"}, offset=str(offset)),
        uprobe(calls, symbol="take_sum"),
        uprobe(calls, symbol="take_sum+0x0"),
    ]
    assert found == sorted(wanted, key=str)


@EITHER
async def test_uprobe_of_a_reference_counter(node, probes, single):
    """The counter of a USDT probe, used by hand: it is raised and shown."""
    elf = Elf.open(probes)
    (one,) = locations(elf, "tetra", "guarded")
    elf.close()
    await node.load(
        (OPTIONS % single)
        + f"""\
  uprobes:
  - path: {probes}
    offsets: [{one.offset}]
    refCtrOffsets: [{one.semaphore}]
"""
    )
    pid, output = run(probes)
    found = [facts(event) for event in node.events(pid)]
    assert found == [uprobe(probes, offset=str(one.offset), ref_ctr_offset=str(one.semaphore))]
    assert output == "1\n"


async def test_digests_of_a_program(node, calls):
    elf = Elf.open(calls)
    build_id, digest = elf.build_id().hex(), elf.digest("sha256").hex()
    elf.close()
    spec = """\
  uprobes:
  - path: PATH
    symbols: ["take_sum"]
    binaryDigests: DIGESTS
  - path: PATH
    symbols: ["take_sum"]
    ignore: {digestVerificationFailure: true}
    binaryDigests: ["build-id:00112233"]
""".replace("PATH", calls)
    for digests in (f'["build-id:{build_id.upper()}"]', f'["sha1:{"00" * 20}", "sha256:{digest}"]'):
        await node.load(spec.replace("DIGESTS", digests), State.PARTIALLY_ENABLED)
        pid, _ = run(calls, "sum", "1", "2")
        found = [facts(event) for event in node.events(pid)]
        assert found == [uprobe(calls, symbol="take_sum")]
    await node.manager.set_documents([])
    document = HEAD + spec.replace("DIGESTS", f'["sha512:{"00" * 64}"]')
    await node.manager.set_documents([Document(Path("/p/test.yaml"), document)])
    (entry,) = node.manager.entries
    assert entry.state is State.LOAD_ERROR
    assert re.search(r"spec\.uprobes\[0\]\.binaryDigests: .* has none of the digests", entry.error)


BASH = Path("/bin/bash").resolve()


def bash_has_readline():
    elf = Elf.open(BASH)
    found = elf.symbol("readline") is not None
    elf.close()
    return found


def type_into_bash(lines):
    """Run an interactive bash; return its pid."""
    child = subprocess.Popen(
        [BASH, "--norc", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True, env={"PATH": "/bin"},
    )  # fmt: skip
    child.communicate(lines, timeout=60)
    return child.pid


@pytest.mark.skipif(not bash_has_readline(), reason="this bash has its readline in a library")
async def test_a_line_that_bash_reads(node):
    await node.load(f"""\
  uprobes:
  - path: {BASH}
    symbols: ["readline"]
    return: true
    returnArg: {{index: 0, type: string}}
    selectors:
    - matchBinaries:
      - {{operator: In, values: ["{BASH}"]}}
      matchReturnArgs:
      - {{index: 0, operator: Prefix, values: ["echo"]}}
""")
    pid = type_into_bash("true\necho a line\nexit\n")
    found = [facts(event) for event in node.events(pid)]
    assert found == [uprobe(str(BASH), {"string_arg": "echo a line"}, symbol="readline")]


@pytest.fixture
def stripped(tmp_path):
    """A Go program without symbols."""
    program = tmp_path / "stripped"
    subprocess.run(["strip", "-o", program, NATS_SERVER], check=True)
    return program


async def test_function_of_a_go_program_without_symbols(node, stripped):
    """By the table of the Go runtime."""
    await node.load(f"""\
  uprobes:
  - path: {stripped}
    symbols: ["main.main"]
""")
    pid, output = run(stripped, "--version")
    assert output.startswith("nats-server: v")
    found = [facts(event) for event in node.events(pid)]
    assert found == [uprobe(str(stripped), symbol="main.main")]


@pytest.fixture(scope="session")
def narrow(tmp_path_factory):
    """A 32-bit program, built."""
    if os.uname().machine != "x86_64":
        pytest.skip("arm64 kernels have no uprobes in 32-bit programs")
    options = ["-m32", "-nostdlib", "-static", "-fno-pic", "-fno-stack-protector"]
    return built("narrow", tmp_path_factory.mktemp("workloads"), *options)


@EITHER
async def test_functions_of_a_32_bit_program(node, narrow, single):
    await node.load(
        (OPTIONS % single)
        + f"""\
  uprobes:
  - path: {narrow}
    symbols: ["take_sum"]
    return: true
    args: [{{index: 0, type: int}}, {{index: 1, type: int32}}]
    returnArg: {{index: 0, type: int}}
  - path: {narrow}
    symbols: ["take_text"]
    return: true
    args: [{{index: 0, type: string}}, {{index: 1, type: uint32}}]
    returnArg: {{index: 0, type: int}}
    selectors:
    - matchArgs:
      - {{index: 0, operator: Prefix, values: ["narrow"]}}
"""
    )
    pid, _ = run(narrow)
    found = [facts(event) for event in node.events(pid, 2)]
    numbers = {"int_arg": 4711}, {"int_arg": -11}, {"int_arg": 4700}
    texts = {"string_arg": "narrow text"}, {"uint_arg": 11}, {"int_arg": -7}
    assert found == [
        uprobe(narrow, *numbers, symbol="take_sum"),
        uprobe(narrow, *texts, symbol="take_text"),
    ]


async def test_usdt_probe_of_a_32_bit_program(node, narrow):
    await node.load(f"""\
  usdts:
  - path: {narrow}
    provider: "tetra"
    name: "narrow"
    args: [{{index: 0, type: int32}}, {{index: 1, type: uint32}}]
""")
    pid, _ = run(narrow)
    found = [facts(event) for event in node.events(pid)]
    assert found == [usdt(narrow, "narrow", {"int_arg": -33}, {"uint_arg": 9})]
