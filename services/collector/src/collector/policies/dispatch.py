"""The dispatcher of system calls: one raw tracepoint program for all policies.

It jumps by the call's number; programs of one call stand at levels, see bpf/tracing/dispatch.h. A
program for every call stands at a level of all numbers. The two dispatcher programs are written as
instructions, there is nothing to compile.
"""

from __future__ import annotations

import platform
import struct
import threading
from dataclasses import dataclass, field

from collector.bpf import links, programs
from collector.bpf.links import Link
from collector.bpf.maps import BpfMap
from collector.bpf.programs import Kind, Program, ProgramSpec
from collector.errors import ProbeError
from collector.policies.maps import SYSCALL_DIRECTION, SYSCALL_LEVELS, SYSCALLS_MAX
from collector.policies.translation import DirectReads

_U32 = struct.Struct("<I")
# The place of numbers above, x32's and -1: no call of either ABI has this number, so only programs
# for every call are there.
_OTHERS = SYSCALLS_MAX - 1
_EVERY = -1
# Of the call's number in struct pt_regs: orig_ax, and syscallno, which has four bytes and stands
# before four that nothing sets (arch/*/include/asm/ptrace.h).
_NUMBER_OFFSET = {"x86_64": 120, "aarch64": 280}[platform.machine()]


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def enter_program(array: int, levels: int) -> bytes:
    """Return the instructions: r1 context, whose second word is the system call's number."""
    return _program([_instruction(0x79, 7, 1, 8)], array, levels, 0)  # r7 = ctx[1]


def exit_program(array: int, levels: int, direct: DirectReads | None = None) -> bytes:
    """Return the instructions: the number is in the saved registers, ctx[0]."""
    if direct is not None:
        number = [
            _instruction(0x79, 1, 1, 0),  # r1 = ctx[0]
            _instruction(0xB7, 2, value=direct.type),
            _instruction(0x85, src=2, value=direct.function),  # r0 = bpf_rdonly_cast(r1, r2)
            _instruction(0x61, 7, 0, _NUMBER_OFFSET),  # r7 = *(u32 *)(r0 + the offset)
        ]
        return _program(number, array, levels, SYSCALL_DIRECTION)
    number = [
        _instruction(0x79, 3, 1, 0),  # r3 = ctx[0] + its offset
        _instruction(0x07, 3, value=_NUMBER_OFFSET),
        _instruction(0xBF, 1, 10),  # r1 = stack - 8
        _instruction(0x07, 1, value=-8),
        _instruction(0xB7, 2, value=4),
        _instruction(0x85, value=113),  # bpf_probe_read_kernel(r1, 4, r3)
        _instruction(0x61, 7, 10, -8),
    ]
    return _program(number, array, levels, SYSCALL_DIRECTION)


def _program(number: list[bytes], array: int, levels: int, direction: int) -> bytes:
    """Return the program that gets the call's number into r7 and jumps to its first level in use.

    A call that no policy hooks pays for one load. A jump fails while a policy is removed: then the
    level that is left is looked up again.
    """
    code = [
        _instruction(0xBF, 6, 1),  # r6 = ctx
        *number,
        _instruction(0xB5, 7, offset=1, value=_OTHERS),  # if r7 > it: r7 = it
        _instruction(0xB7, 7, value=_OTHERS),
        _instruction(0x18, 8, 2, value=levels),  # r8 = the levels' only value + direction
        _instruction(0, value=direction),
        _instruction(0x0F, 8, 7),  # r8 += r7
    ]
    for _ in range(2):
        code += [
            _instruction(0x71, 3, 8, 0),  # r3 = *r8
            _instruction(0x15, 3, value=0),  # if it is 0: to the end
            _instruction(0x07, 3, value=-1),
            _instruction(0x27, 3, value=SYSCALLS_MAX),
            _instruction(0x0F, 3, 7),
            _instruction(0xBF, 1, 6),
            _instruction(0x18, 2, 1, value=array),
            _instruction(0),
            _instruction(0x85, value=12),  # bpf_tail_call(r1, r2, r3)
        ]
    end = len(code)
    for at, one in enumerate(code):
        if one[0] == 0x15:
            code[at] = one[:2] + struct.pack("<h", end - at - 1) + one[4:]
    return b"".join([*code, _instruction(0xB7, 0, value=0), _instruction(0x95)])


@dataclass(slots=True)
class Dispatcher:
    """Owns the dispatcher programs; attaches each when its first policy needs it."""

    entry: BpfMap
    exit: BpfMap
    level_map: BpfMap
    levels: memoryview  # its value, see bpf/tracing/dispatch.h
    direct: DirectReads | None = None  # how the number is read at return
    _used: dict[tuple[bool, int], set[int]] = field(default_factory=dict)
    # At return, number (_EVERY: all), level: for programs that are not added yet.
    _taken: set[tuple[bool, int, int]] = field(default_factory=set)
    # Policies come in threads. Held until descriptors of `kept` are used: none is closed.
    lock: threading.RLock = field(default_factory=threading.RLock)
    _attached: dict[bool, tuple[Program, Link]] = field(default_factory=dict)

    def take_level(self, number: int, *, at_return: bool) -> int:
        """Return a level for a program of this system call, to be added or removed.

        Raises `ProbeError` where all are in use.
        """
        if not 0 <= number < _OTHERS:
            raise ProbeError(f"attach: system call {number}: numbers are below {_OTHERS}")
        with self.lock:
            used = self._used.get((at_return, number), set()) | {
                level
                for when, which, level in self._taken
                if when is at_return and which in (number, _EVERY)
            }
            for level in range(SYSCALL_LEVELS):
                if level not in used:
                    self._taken.add((at_return, number, level))
                    return level
        raise ProbeError(
            f"attach: system call {number}: {SYSCALL_LEVELS} hooks on it already; remove a policy"
        )

    def add(self, number: int, level: int, program: int, *, at_return: bool) -> None:
        """Let a program run at this system call."""
        array = self.exit if at_return else self.entry
        with self.lock:
            array.update(_U32.pack(level * SYSCALLS_MAX + number), _U32.pack(program))
            self._used.setdefault((at_return, number), set()).add(level)
            self._taken.discard((at_return, number, level))
            self._set_levels(number, level, at_return=at_return)
            if at_return not in self._attached:
                self._attach(at_return=at_return)

    def take_level_everywhere(self) -> int:
        """Return a level that is free at every call's entry; raise `ProbeError`.

        The last one: levels of single calls are taken from the first on.
        """
        with self.lock:
            used = {
                level for (when, _), levels in self._used.items() if not when for level in levels
            }
            used |= {level for when, _, level in self._taken if not when}
            for level in reversed(range(SYSCALL_LEVELS)):
                if level not in used:
                    self._taken.add((False, _EVERY, level))
                    return level
        raise ProbeError(
            f"attach: sys_enter: {SYSCALL_LEVELS} hooks on system calls already; remove a policy"
        )

    def add_everywhere(self, level: int, program: int) -> None:
        """Let a program run at the entry of every system call."""
        with self.lock:
            for number in range(SYSCALLS_MAX):
                self.add(number, level, program, at_return=False)
            self._taken.discard((False, _EVERY, level))

    def remove_everywhere(self, level: int) -> None:
        """Take a program away from all calls, also from the first few if adding it failed."""
        with self.lock:
            self._taken.discard((False, _EVERY, level))
            for number in range(SYSCALLS_MAX):
                if level in self._used.get((False, number), ()):
                    self.remove(number, level, at_return=False)

    def remove(self, number: int, level: int, *, at_return: bool) -> None:
        """Take a program away, or give back a level that was taken for it."""
        array = self.exit if at_return else self.entry
        with self.lock:
            self._taken.discard((at_return, number, level))
            used = self._used.get((at_return, number), set())
            if level not in used:
                return
            used.discard(level)
            self._set_levels(number, level, at_return=at_return)
            array.delete(_U32.pack(level * SYSCALLS_MAX + number))
            if not any(levels for (when, _), levels in self._used.items() if when is at_return):
                self._detach(at_return=at_return)

    def kept(self) -> dict[str, int]:
        """Return what must stay for the programs to run: links, and the arrays of programs."""
        with self.lock:
            found = {f"sys-{'exit' if one else 'enter'}": link.fd
                     for one, (_, link) in self._attached.items()}  # fmt: skip
        return found | {"sys-enter-jumps": self.entry.fd, "sys-exit-jumps": self.exit.fd}

    def close(self) -> None:
        """Detach and release the array of levels."""
        for at_return in tuple(self._attached):
            self._detach(at_return=at_return)
        self.levels.release()

    def _set_levels(self, number: int, changed: int, *, at_return: bool) -> None:
        """Write the next used level of each level, where a changed one makes a difference."""
        used = self._used[at_return, number]
        start = number + (SYSCALL_DIRECTION if at_return else 0)
        following = next((one + 1 for one in sorted(used) if one >= changed), 0)
        for level in range(changed, -1, -1):
            self.levels[start + level * SYSCALLS_MAX] = following
            if level - 1 in used:
                return

    def _attach(self, *, at_return: bool) -> None:
        if at_return:
            name, code = "sys_exit", exit_program(self.exit.fd, self.level_map.fd, self.direct)
        else:
            name, code = "sys_enter", enter_program(self.entry.fd, self.level_map.fd)
        program = programs.load(ProgramSpec(f"on_{name}", Kind.RAW_TRACEPOINT, code))
        self._attached[at_return] = program, links.attach(program, name)

    def _detach(self, *, at_return: bool) -> None:
        if at_return in self._attached:
            program, link = self._attached.pop(at_return)
            link.close()
            program.close()
