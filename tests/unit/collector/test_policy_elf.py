"""Symbols, offsets, build id, digests and USDT notes of programs that gcc made for the test."""

import hashlib
import os
import shutil
import subprocess

import pytest

from collector.policies.elf import Elf, ElfError
from collector.policies.elf_usdt import locations, probe_names, source_of, split_arguments
from collector.policies.plan import Constant, Mechanism, ProgramMemory, ProgramRegister
from collector.policies.plan_policy import plan_policy
from collector.policies.plan_registers import saved_register
from support.policy_kernel import host
from support.workloads import built
from tracingpolicy import PolicyErrors, parse
from tracingpolicy.types import ArgumentType as T

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or os.uname().machine != "x86_64", reason="needs gcc on x86-64"
)

# What DTRACE_PROBE3 of <sys/sdt.h> leaves, written out: two places of one probe.
PROGRAM = r"""
unsigned short probe_semaphore __attribute__((section(".probes"), used));
#define NOTE(label, args) __asm__ volatile( \
  #label ": nop\n.pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n" \
  ".4byte 8, 2f-1f, 3\n.asciz \"stapsdt\"\n1: .8byte " #label "\n.8byte _.stapsdt.base\n" \
  ".8byte probe_semaphore\n.asciz \"shop\"\n.asciz \"sale\"\n.asciz \"" args "\"\n2: .balign 4\n" \
  ".popsection\n")
__asm__(".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
        ".weak _.stapsdt.base\n_.stapsdt.base: .space 1\n.popsection\n");
int work(int a) { NOTE(first, "-4@%edi 8@$7 -4@-20(%rbp)"); return a + 1; }
int main(int argc, char **argv) { NOTE(second, "-4@%esi 8@$7 -4@-24(%rbp)"); return work(argc); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    source = folder / "p.c"
    source.write_text(PROGRAM)
    options = ["-O1", "-fcf-protection=none", "-Wl,--build-id=sha1", "-o"]
    subprocess.run(["gcc", *options, folder / "p", source], check=True)
    return folder / "p"


def nm(program):
    lines = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in lines.splitlines())
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}


def test_symbols_are_those_of_nm(program):
    elf = Elf.open(program)
    symbols = nm(program)
    for name in ("main", "work", "_start"):
        assert elf.symbol(name) == symbols[name]
    assert elf.symbol("wor") is None
    assert elf.symbol("ork") is None
    assert elf.nearest_symbols("wrok") == ["work"]


def test_offset_has_the_code_of_the_function(program):
    elf = Elf.open(program)
    offset = elf.offset_of(elf.symbol("main"))
    shown = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", "-F", program], capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert f"<main> (File Offset: {offset:#x})" in shown
    assert elf.offset_of(1 << 60) is None


def test_build_id_and_digests(program):
    elf = Elf.open(program)
    shown = subprocess.run(
        ["readelf", "-n", program], capture_output=True, text=True, check=True
    ).stdout
    assert f"Build ID: {elf.build_id().hex()}" in shown
    assert elf.digest("sha256") == hashlib.sha256(program.read_bytes()).digest()


def test_probe_has_two_places(program):
    elf = Elf.open(program)
    assert probe_names(elf) == ["shop/sale"]
    first, second = sorted(locations(elf, "shop", "sale"), key=lambda one: one.arguments[0])
    assert first.arguments == ("-4@%edi", "8@$7", "-4@-20(%rbp)")
    assert second.offset != first.offset
    assert elf.data[first.offset] == 0x90  # nop
    assert first.semaphore == second.semaphore
    assert first.semaphore == elf.offset_of(nm(program)["probe_semaphore"])


def plan(spec):
    return plan_policy(parse(f"kind: TracingPolicy\nmetadata: {{name: p}}\nspec:\n{spec}"), host())


def mistakes(spec):
    with pytest.raises(PolicyErrors) as caught:
        plan(spec)
    return [one.message for one in caught.value.mistakes]


def test_uprobe_plan(program):
    symbols = nm(program)
    elf = Elf.open(program)
    (hook, other) = plan(
        f"""
  uprobes:
  - path: {program}
    symbols: [main, work+0x1]
    refCtrOffsets: [0, 8]
    return: true
    args: [{{index: 0, type: int}}, {{index: 1, type: string}}]
    returnArg: {{index: 0, type: int}}
    binaryDigests: ["sha1:{"0" * 40}", "build-id:{elf.build_id().hex()}"]
  - {{path: {program}, addrs: [{symbols["main"]}]}}
"""
    ).hooks
    assert (hook.entry, hook.exit) == (Mechanism.UPROBE_MULTI, Mechanism.URETPROBE_MULTI)
    main = elf.offset_of(symbols["main"])
    assert [(one.name, one.offset, one.ref_ctr_offset) for one in hook.targets] == [
        ("main", main, 0),
        ("work+0x1", elf.offset_of(symbols["work"] + 1), 8),
    ]
    assert all(one.user_memory for one in hook.args)
    assert [(one.name, one.offset) for one in other.targets] == [("", main)]


def test_usdt_plan(program):
    (hook,) = plan(
        f"""
  usdts:
  - path: {program}
    provider: shop
    name: sale
    args: [{{index: 0, type: int32}}, {{index: 1, type: uint64}}, {{index: 2, type: int32}}]
"""
    ).hooks
    one, other = hook.targets
    found = {tuple(x.source for x in (one.args or hook.args)), tuple(x.source for x in other.args)}
    rbp = 32
    assert found == {
        (ProgramRegister(112, 4, True), Constant(7), ProgramMemory(rbp, -20, 4, True)),
        (ProgramRegister(104, 4, True), Constant(7), ProgramMemory(rbp, -24, 4, True)),
    }
    assert [x.type for x in hook.args] == [T.INT32, T.UINT64, T.INT32]


def test_mistakes_in_programs(program):
    found = mistakes(
        f"""
  uprobes:
  - {{path: {program}, symbols: [wrok]}}
  - {{path: {program}, symbols: [main+0x100000000]}}
  - {{path: {program}, addrs: [1152921504606846976]}}
  - {{path: {program}, offsets: [1152921504606846976]}}
  - {{path: {program}, symbols: [main], binaryDigests: ["build-id:00"]}}
  usdts:
  - {{path: {program}, provider: shop, name: sael}}
  - path: {program}
    provider: shop
    name: sale
    args: [{{index: 0, type: string}}, {{index: 3, type: int32}}]
"""
    )
    wanted = ["has no symbol", "is not in the file", "is not in the file", "is behind the end",
              "has none of the digests", "has no probe", "has 4 bytes: no pointer",
              "shop/sale has no argument 3"]  # fmt: skip
    assert [any(want in message for message in found) for want in wanted] == [True] * len(wanted)


def test_rejected_digest_may_be_ignored(program):
    made = plan(
        f"""
  uprobes:
  - path: {program}
    symbols: [main]
    binaryDigests: ["build-id:00"]
    ignore: {{digestVerificationFailure: true}}
"""
    )
    assert (made.hooks, made.statuses[0].state.value) == ((), "digest_rejected")


@pytest.mark.parametrize(
    ("machine", "text", "source"),
    [
        ("x86_64", "8@%rax", ProgramRegister(80, 8, False)),
        ("x86_64", "-1@%al", ProgramRegister(80, 1, True)),
        ("x86_64", "4@(%rax)", ProgramMemory(80, 0, 4, False)),
        ("x86_64", "2@0x10(%rsp)", ProgramMemory(152, 16, 2, False)),
        ("x86_64", "4@-4(%rbp,%rbx,8)", ProgramMemory(32, -4, 4, False, 40, 8)),
        ("x86_64", "4@8(%rbp,%rbx)", ProgramMemory(32, 8, 4, False, 40, 1)),
        ("x86_64", "-4@$-3", Constant(-3)),
        ("x86_64", "8@counter(%rip)", None),
        ("x86_64", "8@8(%rip)", None),
        ("x86_64", "8@%zax", None),
        ("aarch64", "-4@w1", ProgramRegister(8, 4, True)),
        ("aarch64", "8@[sp, 16]", ProgramMemory(248, 16, 8, False)),
        ("aarch64", "8@[x19]", ProgramMemory(152, 0, 8, False)),
        ("aarch64", "4@5", Constant(5)),
    ],
)
def test_argument_places(machine, text, source):
    made = source_of(machine, text)
    assert (made[0] if made else None) == source


def test_arguments_are_split_at_blanks_outside_brackets():
    assert split_arguments("8@[sp, 16] -4@x0  4@(%rax, %rbx)") == (
        "8@[sp, 16]", "-4@x0", "4@(%rax, %rbx)",
    )  # fmt: skip


def test_damaged_files_are_refused(program):
    data = program.read_bytes()
    for size in (0, 4, 40, 64, 200, len(data) // 2):
        try:
            elf = Elf.read(data[:size], "p")
        except ElfError:
            continue
        assert elf.symbol("main") is None or size > 1000
    changed = bytearray(data)
    changed[40:48] = b"\xff" * 8
    with pytest.raises(ElfError, match="damaged"):
        Elf.read(bytes(changed), "p")


def test_stripped_program_has_no_symbols(program, tmp_path):
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    assert Elf.open(stripped).symbol("work") is None
    assert Elf.open(stripped).build_id() == Elf.open(program).build_id()


def test_arguments_of_a_32_bit_program_are_on_its_stack(tmp_path):
    program = built("narrow", tmp_path, "-m32", "-nostdlib", "-static", "-fno-pic")
    symbols, elf = nm(program), Elf.open(program)
    assert elf.symbol("take_text") == symbols["take_text"]
    assert elf.nearest_symbols("take_txt")[0] == "take_text"
    assert [one.arguments for one in locations(elf, "tetra", "narrow")] == [("-4@%ecx", "4@$9")]
    (hook,) = plan(
        f"""
  uprobes:
  - path: {program}
    symbols: [take_text]
    args: [{{index: 0, type: string}}, {{index: 1, type: uint32}}]
"""
    ).hooks
    stack = saved_register("x86_64", "rsp").offset
    assert [one.source for one in hook.args] == [
        ProgramMemory(stack, 4, 4, False),
        ProgramMemory(stack, 8, 4, False),
    ]
