"""What fuzzing found worth keeping holds, with no fuzzer: `make fuzz` adds to it."""

import importlib

import pytest

from fuzz import inputs


@pytest.mark.parametrize("name", inputs.TARGETS)
def test_kept_inputs_hold(name):
    target = importlib.import_module(f"fuzz.targets.{name}")
    kept = [path.read_bytes() for path in inputs.kept(name)]
    assert len(kept) >= 5
    for data in [*target.seeds(), *kept]:
        target.check(*inputs.split(data))


@pytest.mark.parametrize("name", inputs.TARGETS)
def test_a_mutation_is_an_input_that_holds(name):
    target = importlib.import_module(f"fuzz.targets.{name}")
    changed = set()
    for seed in range(100):
        for data in target.seeds()[:3]:
            other = inputs.mutate(data, target, inputs.MAX_BYTES, seed)
            assert len(other) <= inputs.MAX_BYTES
            assert inputs.join(*inputs.split(other)) == other
            target.check(*inputs.split(other))
            changed.add(other)
    assert len(changed) > 100


def test_any_bytes_are_an_input():
    assert inputs.split(b"") == (0, [])
    assert inputs.split(b"\x07\xff\xffab") == (7, [b"ab"])
    assert inputs.split(inputs.join(3, [b"a", b"", b"bc"])) == (3, [b"a", b"", b"bc"])
