"""Stack addresses to frames: with real files, a real process and a small kallsyms."""

import ctypes
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collector.events.stacks import StackResolver
from collector.events.stacks_elf import read_symbols
from collector.events.stacks_kernel import KernelSymbols
from collector.records.values import BuildIdFrame

KALLSYMS = """\
ffffffff81000000 T _text
ffffffff81000000 T start_kernel
ffffffff81000100 t do_one
ffffffff81000200 D a_variable
ffffffff81000300 W weak_one
ffffffffc0000000 t in_a_module\t[veth]
ffffffffc0000100 d its_data\t[veth]
"""
LIBC = ctypes.CDLL(None)


def address_of(function):
    return ctypes.cast(getattr(LIBC, function), ctypes.c_void_p).value


@pytest.fixture
def kernel(tmp_path):
    file = tmp_path / "kallsyms"
    file.write_text(KALLSYMS)
    return KernelSymbols(file)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (0xFFFFFFFF80FFFFFF, None),
        (0xFFFFFFFF81000000, (b"start_kernel", 0)),
        (0xFFFFFFFF81000110, (b"do_one", 0x10)),
        (0xFFFFFFFF81000200, None),  # data
        (0xFFFFFFFF81000208, None),
        (0xFFFFFFFF81000308, (b"weak_one", 8)),
        (0xFFFFFFFF91000308, None),  # beyond any function: a program, or a module not yet read
        (0xFFFFFFFFC0000020, (b"in_a_module", 0x20)),
        (0xFFFFFFFFC0000100, None),
    ],
)
def test_kernel_addresses_are_in_functions(kernel, address, found):
    assert kernel.find(address) == found or (found and kernel.find(address)[0] == b"_text")


def test_symbols_of_a_later_module_are_read(kernel, tmp_path, monkeypatch):
    late = 0xFFFFFFFFC1000010
    assert kernel.find(late) is None
    with (tmp_path / "kallsyms").open("a") as file:
        file.write("ffffffffc1000000 t later\t[later]\n")
    assert kernel.find(late) is None  # not at each address that is not known
    later_s = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert kernel.find(late) == (b"later", 0x10)


def test_hidden_addresses_leave_kernel_frames_out(tmp_path, capsys):
    file = tmp_path / "kallsyms"
    file.write_text("0000000000000000 T _text\n0000000000000000 t do_one\n")
    resolver = StackResolver(kernel=KernelSymbols(file))
    assert resolver.kernel([0xFFFFFFFF81000110]) == []
    assert "kptr_restrict" in capsys.readouterr().out


def test_kernel_frames_have_an_address_only_where_it_is_exposed(kernel):
    stack = (0xFFFFFFFF81000110, 0, 0xFFFFFFFF81000208)
    (frame,) = StackResolver(kernel=kernel).kernel(stack)
    assert frame == (0, 0x10, b"do_one", b"", b"")
    (frame,) = StackResolver(kernel=kernel, expose_addresses=True).kernel(stack)
    assert frame == (0xFFFFFFFF81000110, 0x10, b"do_one", b"", b"")


def test_user_frames_of_a_living_process():
    address = address_of("getppid") + 4
    (frame,) = StackResolver().user(os.getpid(), 1, [address])
    assert frame.symbol == b"getppid"
    assert b"libc.so" in frame.module
    assert frame.build_id == build_id(frame.module)
    assert frame.offset == address - base_of(frame.module)
    assert frame.address == 0


def base_of(module):
    """Where offset 0 of the file would be in this process."""
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        if line.endswith(module) and b" r-xp " in line:
            start, offset = line.split(b"-")[0], line.split()[2]
            return int(start, 16) - int(offset, 16)
    raise AssertionError(module)


def build_id(module):
    note = struct.pack("<III", 4, 20, 3) + b"GNU\0"
    data = Path(os.fsdecode(module)).read_bytes()
    at = data.index(note) + len(note)
    return data[at : at + 20]


def test_an_address_outside_of_every_mapping_is_left_out():
    assert StackResolver().user(os.getpid(), 1, [8, 0]) == []


def test_an_ended_process_keeps_its_fields():
    resolver = StackResolver()
    program = (
        "import ctypes; f = ctypes.CDLL(None).getppid;"
        "print(ctypes.cast(f, ctypes.c_void_p).value, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        address = int(child.stdout.readline())
        alive = resolver.user(child.pid, 5, [address])
        child.kill()
    assert alive[0].symbol == b"getppid"
    assert resolver.user(child.pid, 5, [address]) == alive
    assert resolver.user(child.pid, 6, [address]) == []  # another image of that pid: never seen


def test_frames_by_build_id_need_no_process():
    resolver = StackResolver()
    (frame,) = resolver.user(os.getpid(), 1, [address_of("getppid")])
    named = BuildIdFrame(frame.build_id, frame.offset)
    assert resolver.user(2**22 + 5, 9, [named]) == [frame]
    (unknown,) = resolver.user(2**22 + 5, 9, [BuildIdFrame(b"\1" * 20, 16)])
    assert unknown == (0, 16, b"", b"", b"\1" * 20)


def test_files_that_are_no_programs_have_no_symbols(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("#!/bin/sh\n")
    (tmp_path / "empty").touch()
    for name in ("fifo", "text", "empty", "missing"):
        assert read_symbols(tmp_path / name) is None
    assert read_symbols(tmp_path) is None


def test_damaged_programs_are_refused(tmp_path):
    data = Path("/bin/true").read_bytes()
    file = tmp_path / "program"
    for at in range(0, 64, 2):
        for value in (0, 0xFFFF):
            file.write_bytes(data[:at] + struct.pack("<H", value) + data[at + 2 :])
            symbols = read_symbols(file)
            assert symbols is None or symbols.find(1 << 63) == b""
    for size in (63, 100, len(data) // 2):
        file.write_bytes(data[:size])
        symbols = read_symbols(file)
        assert symbols is None or symbols.find(64) is not None


def test_of_several_names_the_first_of_the_file_is_shown():
    symbols = read_symbols(Path("/lib/x86_64-linux-gnu/libc.so.6"))
    if symbols is None:
        pytest.skip("no x86-64 libc there")
    by_value = {}
    for at, value in enumerate(symbols.values):
        by_value.setdefault(value, []).append(at)
    aliases = next(v for v in by_value.values() if len(v) > 2)
    first = min(aliases, key=lambda at: symbols.ranks[at])
    name = symbols.texts[symbols.names[first] :].split(b"\0")[0]
    address = symbols.values[first]
    offset = next(address - v + o for o, size, v in symbols.segments if v <= address < v + size)
    assert symbols.find(offset) == name


def test_python_itself_has_symbols():
    symbols = read_symbols(Path(sys.executable))
    assert symbols is not None
    assert len(symbols.values) > 100
