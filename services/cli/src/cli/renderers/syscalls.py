"""Names and prototypes of system calls for ``raw_syscalls/sys_enter`` events.

They stand in ``syscalls.json``, which ``scripts/syscalls`` makes from kernel headers and tracefs.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from tetragon.tetragon_pb2 import KprobeArgument

_NATIVE_ABI = {"x86_64": "x64", "aarch64": "arm64"}


class _Table(NamedTuple):
    names: Mapping[str, Mapping[str, str]]  # by ABI and number
    prototypes: Mapping[str, Sequence[str]]  # by name: "const char * filename" and so on


@lru_cache(maxsize=1)
def _table() -> _Table:
    return _Table(**json.loads(files("cli.renderers").joinpath("syscalls.json").read_bytes()))


def describe(number: int, abi: str | None, args: Sequence[KprobeArgument]) -> str:
    """Return the call as ``name(type parameter=value, ...)``, or as much of it as is known.

    ``abi`` is x64, i386, arm64 or arm32; None stands for that of this machine.
    """
    native = _NATIVE_ABI.get(platform.machine(), "")
    name = _table().names.get(abi or native, {}).get(str(number))
    if name is None:
        return "unknown"
    if abi not in (None, native):
        return f"{abi}/{name}"
    parameters = _table().prototypes.get(name)
    if parameters is None:
        return name
    return f"{name}({', '.join(_parameter(p, i, args) for i, p in enumerate(parameters))})"


def _parameter(parameter: str, index: int, args: Sequence[KprobeArgument]) -> str:
    kind, _, name = parameter.rpartition(" ")
    if index >= len(args) or args[index].WhichOneof("arg") != "size_arg":
        return f"{kind} {name}=?"
    value = args[index].size_arg
    return f"{kind}{name}=0x{value:x}" if kind.endswith("*") else f"{kind} {name}={value}"
