"""C and Python agree on how a record lies in the ring."""

import shutil
import subprocess

import pytest

from collector.bpf.probes import bpf_folder
from collector.records import process as records

pytestmark = pytest.mark.kernel

# In the order of records.py's formats; padding has no name here.
FIELDS = {
    "exec_record": "kind flags ktime_ns pid nspid parent_ktime_ns parent_pid auid "
    "replaced_ktime_ns cgroup_id inode cap_permitted cap_effective cap_inheritable uid gid euid "
    "egid suid sgid fsuid fsgid securebits secureexec nlink filename_len cgroup_len args_len "
    "envs_len cwd_len ns ns[1] ns[2] ns[3] ns[4] ns[5] ns[6] ns[7] ns[8] ns[9] start_boottime "
    "arg_start",
    "fork_record": "kind flags ktime_ns pid nspid parent_ktime_ns parent_pid start_boottime",
    "exit_record": "kind exit_code ktime_ns image_ktime_ns pid tid",
    "data_record": "kind field ktime_ns pid offset len",
}


@pytest.mark.parametrize("struct", sorted(FIELDS))
def test_offsets_are_the_decoders(struct, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    layout = getattr(records, f"_{struct.removesuffix('_record').upper()}")
    lines = [
        "#include <stdint.h>",
        "typedef uint32_t u32; typedef uint64_t u64;",
        f'#include "{bpf_folder()}/lib/events.h"',
    ]
    offset, names = 0, iter(FIELDS[struct].split())
    number = ""
    for letter in layout.format.lstrip("<"):
        if letter.isdigit():
            number += letter
            continue
        count, number = int(number or 1), ""
        if letter == "x":
            offset += count
            continue
        size = {"I": 4, "Q": 8}[letter]
        for _ in range(count):
            name = next(names)
            lines.append(
                f"_Static_assert(__builtin_offsetof(struct {struct}, {name}) == {offset}, "
                f'"{name}");'
            )
            offset += size
    assert next(names, None) is None
    lines.append(f'_Static_assert(sizeof(struct {struct}) == {layout.size}, "size");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run(["gcc", "-fsyntax-only", source], check=True)
