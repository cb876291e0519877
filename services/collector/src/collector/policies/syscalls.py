"""System calls of this machine's ABIs: numbers, symbols, and the C types of their arguments.

BTF shows only ``const struct pt_regs *`` for a system call's function; numbers and prototypes are
in ``syscalls.json``, which ``scripts/syscalls`` makes from kernel headers and tracefs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from collector.policies.plan import Syscall


@dataclass(frozen=True, slots=True)
class Abi:
    """A way into the kernel: its name, and the prefixes of the functions that serve it."""

    name: str
    prefixes: tuple[str, ...]
    compat: bool = False


# SYSCALL_DEFINE of arch/x86/include/asm/syscall_wrapper.h and arch/arm64/include/asm/...
_MACHINES: dict[str, tuple[Abi, ...]] = {
    "x86_64": (
        Abi("x64", ("__x64_sys_",)),
        Abi("i386", ("__ia32_compat_sys_", "__ia32_sys_"), compat=True),
    ),
    "aarch64": (
        Abi("arm64", ("__arm64_sys_",)),
        Abi("arm32", ("__arm64_compat_sys_", "__arm64_sys_"), compat=True),
    ),
}
BARE = "__do_sys_"  # the function of a call without parameters, under both ABIs
# Where the function has another name than the call (include/linux/syscalls.h, *.tbl).
_FUNCTIONS: dict[str, dict[str, str]] = {
    "x64": {
        "stat": "newstat",
        "lstat": "newlstat",
        "fstat": "newfstat",
        "sendfile": "sendfile64",
        "uname": "newuname",
        "umount2": "umount",
    },
    "arm64": {
        "fstat": "newfstat",
        "sendfile": "sendfile64",
        "uname": "newuname",
        "umount2": "umount",
        "fadvise64": "fadvise64_64",
    },
    "i386": {
        "oldstat": "stat",
        "oldlstat": "lstat",
        "oldfstat": "fstat",
        "stat": "newstat",
        "lstat": "newlstat",
        "fstat": "newfstat",
        "oldolduname": "olduname",
        "olduname": "uname",
        "uname": "newuname",
        "umount": "oldumount",
        "umount2": "umount",
        "_newselect": "select",
        "select": "old_select",
        "_llseek": "llseek",
        "mmap": "old_mmap",
        "mmap2": "mmap_pgoff",
    },
    "arm32": {
        "stat": "newstat",
        "lstat": "newlstat",
        "fstat": "newfstat",
        "uname": "newuname",
        "umount2": "umount",
        "_newselect": "select",
        "_llseek": "llseek",
        "mmap2": "mmap2",
    },
}


@cache
def _table() -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    text = files("collector.policies").joinpath("syscalls.json").read_bytes()
    table = json.loads(text)
    return table["names"], table["prototypes"]


@dataclass(frozen=True, slots=True)
class SyscallTable:
    """The system calls of one kind of machine."""

    abis: tuple[Abi, ...]
    _numbers: dict[tuple[str, str], int]  # ABI and the function's name without prefix

    @classmethod
    def of(cls, machine: str) -> SyscallTable:
        """Return the table for ``os.uname().machine``; unknown machines have no ABIs."""
        abis = _MACHINES.get(machine, ())
        names, _ = _table()
        numbers = {
            (abi.name, _FUNCTIONS[abi.name].get(name, name)): int(number)
            for abi in abis
            for number, name in names.get(abi.name, {}).items()
        }
        return cls(abis, numbers)

    @property
    def native(self) -> Abi:
        """The ABI of 64-bit programs."""
        return self.abis[0]

    def abi(self, name: str) -> Abi | None:
        """Return an ABI of this machine by its name."""
        return next((one for one in self.abis if one.name == name), None)

    def split(self, symbol: str) -> tuple[Abi, str] | None:
        """Return ABI and bare name of ``sys_x`` or a prefixed function; None if it is neither."""
        for abi in self.abis:
            for prefix in abi.prefixes:
                if symbol.startswith(prefix):
                    return abi, symbol.removeprefix(prefix)
        if symbol.startswith("sys_"):
            return self.native, symbol.removeprefix("sys_")
        return None

    def find(self, abi: Abi, function: str) -> Syscall:
        """Return the system call that a function serves; number -1 where none is known."""
        number = self._numbers.get((abi.name, function), -1)
        return Syscall(number, function, abi.name, abi.compat)

    def by_call(self, abi: Abi, call: str) -> Syscall:
        """Return the system call of a name as in headers, where it differs from the function's."""
        return self.find(abi, _FUNCTIONS[abi.name].get(call, call))

    def functions(self, abi: Abi) -> list[str]:
        """Return the bare names of all functions that serve a number of the ABI."""
        return [name for owner, name in self._numbers if owner == abi.name]


def function_for(abi: Abi, call: str) -> str:
    """Return the bare name of the function that serves a call of this name."""
    return _FUNCTIONS[abi.name].get(call, call)


def prototype(syscall: Syscall) -> list[str] | None:
    """Return the parameters as C texts ``type name``; None where they are not known."""
    _, prototypes = _table()
    calls = {function: call for call, function in _FUNCTIONS[syscall.abi].items()}
    found = prototypes.get(syscall.name)
    return found if found is not None else prototypes.get(calls.get(syscall.name, ""))
