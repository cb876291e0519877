"""One target in a process of its own, as ``python -m fuzz`` starts it: ``NAME LIBFUZZER-ARGS``."""

from __future__ import annotations

import importlib
import sys
from random import Random
from typing import cast

import atheris
import structlog

from fuzz import inputs


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    # Only what is imported in here counts as coverage.
    with atheris.instrument_imports(include=[inputs.TARGETS[name]]):
        target = cast(inputs.Target, importlib.import_module(f"fuzz.targets.{name}"))

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        if Random(seed).random() < 0.25:
            return atheris.Mutate(data, max_bytes)
        return inputs.mutate(data, target, max_bytes, seed)

    atheris.Setup(sys.argv, lambda data: target.check(*inputs.split(data)), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
