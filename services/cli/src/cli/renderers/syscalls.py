"""Names and prototypes of system calls for ``raw_syscalls/sys_enter`` events.

Neither is carried in the code: names come from the kernel headers' numbering where they are
installed, prototypes from tracefs where it can be read. What is not known is told as a number.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tetragon.tetragon_pb2 import KprobeArgument

_NATIVE_ABI = {"x86_64": "x64", "aarch64": "arm64"}
_HEADERS = {
    "x64": ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h"),
    "i386": ("x86_64-linux-gnu/asm/unistd_32.h", "asm/unistd_32.h"),
    "arm64": ("aarch64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h"),
    "arm32": ("arm-linux-gnueabihf/asm/unistd-common.h",),
}
_DEFINE = re.compile(r"^#define\s+__NR3?2?6?4?_(\w+)\s+(?:\(__NR_SYSCALL_BASE \+ )?(\d+)\)?$", re.M)
_FIELD = re.compile(r"field:(.+?)(\w+);\s*offset:(\d+);")


def describe(number: int, abi: str | None, args: Sequence[KprobeArgument]) -> str:
    """Return the call as ``name(type parameter=value, ...)``, or as much of it as is known."""
    native = _NATIVE_ABI.get(platform.machine(), "")
    abi = abi or native
    name = _names(abi).get(number)
    if name is None:
        return "unknown"
    if abi != native:
        return f"{abi}/{name}"
    parameters = _prototype(name)
    if parameters is None:
        return name
    return f"{name}({', '.join(_parameter(p, i, args) for i, p in enumerate(parameters))})"


def _parameter(parameter: tuple[str, str], index: int, args: Sequence[KprobeArgument]) -> str:
    kind, name = parameter
    if index >= len(args) or args[index].WhichOneof("arg") != "size_arg":
        return f"{kind} {name}=?"
    value = args[index].size_arg
    return f"{kind}{name}=0x{value:x}" if kind.endswith("*") else f"{kind} {name}={value}"


@lru_cache(maxsize=8)
def _names(abi: str) -> dict[int, str]:
    for header in _HEADERS.get(abi, ()):
        try:
            text = Path("/usr/include", header).read_text()
        except OSError:
            continue
        return {int(number): name for name, number in reversed(_DEFINE.findall(text))}
    return {}


@lru_cache(maxsize=512)
def _prototype(name: str) -> list[tuple[str, str]] | None:
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        try:
            text = Path(root, "events/syscalls", f"sys_enter_{name}", "format").read_text()
        except OSError:
            continue
        # Behind the common fields (8 bytes) and the call's number come the parameters.
        fields = _FIELD.findall(text)
        return [(kind.strip(), name) for kind, name, offset in fields if int(offset) >= 16]
    return None
