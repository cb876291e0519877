"""The diffs of docs/extending.md apply to the current files, all together and in their order."""

import re

import pytest

from support.extending_page import ROOT, apply_to, diffs


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Return a copy of the files that the page names, with all its diffs applied."""
    top = tmp_path_factory.mktemp("extending")
    apply_to(top)
    return top


def test_every_file_of_the_page_is_changed(changed):
    names = {name for _text, name, _added in diffs()}
    assert len(names) >= 14
    for name in names:
        old = ROOT / name
        assert not old.exists() or old.read_bytes() != (changed / name).read_bytes()


def test_python_of_the_page_compiles(changed):
    modules = list(changed.rglob("*.py"))
    assert modules
    for module in modules:
        compile(module.read_bytes(), str(module), "exec")


def test_kind_of_record_has_a_number_of_its_own(changed):
    text = (changed / "bpf/lib/events.h").read_text()
    numbers = dict(re.findall(r"\b(RECORD_\w+) = (\d+)", text))
    assert "RECORD_RENAME" in numbers
    assert len(set(numbers.values())) == len(numbers)


def test_slots_of_loss_are_counted(changed):
    slots = re.findall(r"^\t(LOST_\w+),", (changed / "bpf/lib/values.h").read_text(), re.MULTILINE)
    base = (changed / "services/collector/src/collector/bpf/base.py").read_text()
    assert f"\nLOSSES = {len(slots)} " in base
    sensor = (changed / "services/collector/src/collector/sensors/rename.py").read_text()
    assert f"\n_LOST = {slots.index('LOST_RENAME')} " in sensor


def test_field_has_a_number_of_its_own(changed):
    text = (changed / "proto/tetragon/events.proto").read_text()
    found = re.search(r"^message Filter \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    assert found
    numbers = re.findall(r"^  .* = (\d+)(?: \[.*\])?;", found[1], re.MULTILINE)
    assert "10020" in numbers
    assert len(set(numbers)) == len(numbers)
