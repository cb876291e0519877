"""Below the floor, or with another kernel's types: one line that says so, exit code 2."""

import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]  # compiles, maybe emulated

COLLECTOR = Path(sys.executable).parent / "tetra-collector"
BTF = Path("/sys/kernel/btf/vmlinux")
# Hides the kernel's own types, in a mount namespace of its own.
WITHOUT_BTF = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs none "$0" && exec "$@"',
    BTF.parent,
]


def command(tmp_path, *flags):
    return [
        COLLECTOR, "--state-dir", tmp_path / "state", "--cache-dir", tmp_path / "cache",
        "--node-name", f"floor-{os.getpid()}", "--nats-url", "nats://127.0.0.1:9", *flags,
    ]  # fmt: skip


def refusal(tmp_path, *flags, prefix=()):
    """Return the line with which the collector refuses."""
    (tmp_path / "cache").mkdir(exist_ok=True)
    answer = subprocess.run(
        [*prefix, *command(tmp_path, *flags)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert answer.returncode == 2, answer.stderr
    [line] = [line for line in answer.stderr.splitlines() if not line.startswith("{")]  # the log
    assert line.startswith("tetra-collector: error: ")
    print(line)
    return line


def moved(btf: bytes, after: str) -> bytes:
    """Return BTF in which the fields of task_struct behind one are eight bytes further on.

    Layout: Documentation/bpf/btf.rst. Sizes of what follows a type, by its kind.
    """
    _, _, _, header, type_at, type_len, text_at, _ = struct.unpack_from("<HBBIIIII", btf)
    data, at, end = bytearray(btf), header + type_at, header + type_at + type_len

    def name(offset):
        start = header + text_at + offset
        return btf[start : btf.index(b"\0", start)].decode()

    while at < end:
        name_at, info, size = struct.unpack_from("<III", btf, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        extra = {
            1: 4, 3: 12, 4: 12 * count, 5: 12 * count, 6: 8 * count, 13: 8 * count, 14: 4,
            15: 12 * count, 17: 4, 19: 12 * count,
        }.get(kind, 0)  # fmt: skip
        if kind == 4 and name(name_at) == "task_struct":
            members = [at + 12 + 12 * index for index in range(count)]
            names = [name(struct.unpack_from("<I", btf, member)[0]) for member in members]
            for member in members[names.index(after) + 1 :]:
                (place,) = struct.unpack_from("<I", btf, member + 8)
                struct.pack_into("<I", data, member + 8, place + 64)  # in bits
            struct.pack_into("<I", data, at + 8, size + 8)
            return bytes(data)
        at += 12 + extra
    raise AssertionError("no task_struct")


def test_no_btf(tmp_path):
    line = refusal(tmp_path, prefix=WITHOUT_BTF)
    assert f"kernel {os.uname().release}: no type information" in line
    assert "CONFIG_DEBUG_INFO_BTF" in line
    assert "--btf" in line


def test_a_kernel_without_the_ring_buffer(tmp_path):
    # As 4.19 with types would be: the same, without what came with 5.8.
    old = tmp_path / "old.btf"
    old.write_bytes(BTF.read_bytes().replace(b"BPF_FUNC_ringbuf_", b"BPF_FUNC_RINGBUF_"))
    line = refusal(tmp_path, "--btf", old, prefix=WITHOUT_BTF)
    assert "no BPF ring buffer: needs Linux 5.8 or newer" in line


def test_a_btf_file_that_is_not_there(tmp_path):
    assert "no.btf: no such file" in refusal(tmp_path, "--btf", tmp_path / "no.btf")


def test_a_file_that_is_no_btf(tmp_path):
    wrong = tmp_path / "wrong.btf"
    wrong.write_text("types, honestly")
    assert "wrong.btf: not type information" in refusal(
        tmp_path, "--btf", wrong, prefix=WITHOUT_BTF
    )


def test_another_kernels_types_where_the_kernel_has_its_own(tmp_path):
    other = tmp_path / "other.btf"
    other.write_bytes(moved(BTF.read_bytes(), "mm"))
    line = refusal(tmp_path, "--btf", other)
    assert "other.btf: not the types of this kernel" in line
    assert "remove the setting" in line


@pytest.mark.parametrize("after", ["start_boottime", "tgid"])
def test_types_with_shifted_offsets_are_refused(tmp_path, after):
    other = tmp_path / "other.btf"
    other.write_bytes(moved(BTF.read_bytes(), after))
    line = refusal(tmp_path, "--btf", other, prefix=WITHOUT_BTF)
    assert f"other.btf: not the types of this kernel ({os.uname().release})" in line


if other_kernel := os.environ.get("TETRA_OTHER_BTF"):  # scripts/test-kernels: the host's

    def test_types_of_another_kernel(tmp_path):
        assert Path(other_kernel).read_bytes() != BTF.read_bytes()
        refusal(tmp_path, "--btf", other_kernel, prefix=WITHOUT_BTF)


def test_a_file_with_this_kernels_types(tmp_path):
    same = tmp_path / "same.btf"
    shutil.copy(BTF, same)
    (tmp_path / "cache").mkdir()
    process = subprocess.Popen(
        [*WITHOUT_BTF, *command(tmp_path, "--btf", same)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stop = threading.Timer(250, process.kill)
    stop.start()
    try:
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if '"event": "ready"' in line:
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        stop.cancel()
        process.terminate()
        process.communicate(timeout=60)
