"""Functions of Go programs without symbols: a real program, and each form of the table."""

import random
import shutil
import subprocess
from struct import pack

import pytest

from collector.policies.elf import Elf
from collector.policies.elf_go import GoFunctions
from collector.policies.plan_policy import plan_policy
from support.nats_server import NATS_SERVER
from support.policy_kernel import host
from tracingpolicy import PolicyErrors, parse

TEXT = 0x401000
FUNCTIONS = {"runtime.main": 0x40, "main.main": 0x80, "main.(*Till).Sell": 0x100}


def words(size, *values):
    return b"".join(value.to_bytes(size, "little") for value in values)


def table(version, size=8, start=TEXT):
    """Return the section as a Go compiler of that version writes it."""
    names, at = b"\0", {}
    for name in FUNCTIONS:
        at[name] = len(names)
        names += name.encode() + b"\0"
    relative = version >= 18
    width, base = (4, 0) if relative else (size, TEXT)
    pairs_size = (2 * len(FUNCTIONS) + 1) * width
    pairs, records = b"", b""
    fields = {2: 1, 16: 7, 18: 8, 20: 8}[version]
    head_size = 8 + fields * size
    # The oldest counts all places from the start of the section.
    first = head_size + pairs_size + (len(names) if version == 2 else 0)
    for name, offset in FUNCTIONS.items():
        place = len(records) + (first if version == 2 else pairs_size)
        pairs += words(width, base + offset, place)
        named = at[name] + (head_size + pairs_size if version == 2 else 0)
        records += words(width, base + offset) + words(4, named, 0)
    pairs += words(width, base + 0x200)
    magic = {2: 0xFFFFFFFB, 16: 0xFFFFFFFA, 18: 0xFFFFFFF0, 20: 0xFFFFFFF1}[version]
    head = pack("<IHBB", magic, 0, 1, size)
    if version == 2:
        return head + words(size, len(FUNCTIONS)) + pairs + names + records
    behind = head_size + len(names)
    counted = (len(FUNCTIONS), 0, *((start,) if relative else ()))
    return head + words(size, *counted, head_size, 0, 0, 0, behind) + names + pairs + records


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("version", [2, 16, 18, 20])
def test_every_form_of_the_table(version, size):
    found = GoFunctions.read(table(version, size), TEXT)
    assert list(found.all_names()) == list(FUNCTIONS)
    assert {name: found.address(name) for name in FUNCTIONS} == {
        name: TEXT + offset for name, offset in FUNCTIONS.items()
    }
    assert found.address("main.mai") is None
    assert found.address("ain.main") is None


def test_start_of_the_code_that_a_loader_would_write_is_that_of_the_section():
    assert GoFunctions.read(table(20, start=0), TEXT).address("main.main") == TEXT + 0x80


@pytest.mark.parametrize("version", [2, 16, 18, 20])
def test_damaged_table_has_fewer_functions_and_raises_nothing(version):
    data, chance = table(version), random.Random(version)
    for cut in range(len(data)):
        if found := GoFunctions.read(data[:cut], TEXT):
            found.address("main.main")
            list(found.all_names())
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(4):
            changed[chance.randrange(4, len(data))] = chance.randrange(256)
        if found := GoFunctions.read(bytes(changed), TEXT):
            found.address("main.main")
            list(found.all_names())
    assert GoFunctions.read(b"\0" * 64, TEXT) is None


@pytest.fixture(scope="module")
def stripped(tmp_path_factory):
    if shutil.which("strip") is None:
        pytest.skip("strip is not installed: apt-get install binutils")
    path = tmp_path_factory.mktemp("go") / "program"
    subprocess.run(["strip", "-o", path, NATS_SERVER], check=True)
    return path


def test_functions_of_a_stripped_program_are_those_of_its_symbols(stripped):
    whole, without = Elf.open(NATS_SERVER), Elf.open(stripped)
    assert without.section(".symtab") is None
    for name in ("main.main", "runtime.main", "net/http.(*Server).Serve", "os.(*File).Write"):
        assert without.symbol(name) == whole.symbol(name)
        assert without.symbol(name)
    assert "main.main" in without.nearest_symbols("main.mian")


def test_uprobe_of_a_stripped_program(stripped):
    def plan(symbol):
        text = f"uprobes:\n  - {{path: {stripped}, symbols: ['{symbol}']}}"
        return plan_policy(
            parse(f"kind: TracingPolicy\nmetadata: {{name: p}}\nspec:\n  {text}"), host()
        )

    (hook,) = plan("main.main").hooks
    elf = Elf.open(stripped)
    assert hook.targets[0].offset == elf.offset_of(elf.symbol("main.main"))
    with pytest.raises(PolicyErrors, match=r'has no symbol "main.mian" \(allowed: nearest: .*main'):
        plan("main.mian")
