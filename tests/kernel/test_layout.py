"""C and Python agree on the layout of everything that they share."""

import shutil
import subprocess

import pytest

from collector.bpf import base
from collector.bpf.probes import bpf_folder
from collector.records.layouts import LAYOUTS

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.struct)
def test_layout_is_the_compilers(layout, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    lines = [
        "#include <stdint.h>",
        "typedef uint32_t u32; typedef uint64_t u64;",
        f'#include "{bpf_folder()}/{layout.header}"',
    ]
    for name, offset in layout.offsets().items():
        at = f"__builtin_offsetof(struct {layout.struct}, {name})"
        lines.append(f'_Static_assert({at} == {offset}, "{name}");')
    size = f"sizeof(struct {layout.struct}) == {layout.format.size}"
    lines.append(f'_Static_assert({size}, "size");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run(["gcc", "-fsyntax-only", source], check=True)


def test_number_of_loss_counters_is_the_compilers(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    source = tmp_path / "losses.c"
    source.write_text(
        "#include <stdint.h>\n"
        "typedef uint32_t u32; typedef uint64_t u64;\n"
        f'#include "{bpf_folder()}/lib/values.h"\n'
        f'_Static_assert(LOSSES == {base.LOSSES}, "slots");\n'
    )
    subprocess.run(["gcc", "-fsyntax-only", source], check=True)
