"""Gates: programs whose result replaces that of a function, one for each overridden function.

A gate takes the verdict that a policy's program left for this thread (bpf/tracing/override.h) and
returns it; without one the function runs. It is written as instructions: nothing to compile. Gates
are attached before the programs that leave verdicts and detached after them.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field

from collector.bpf import links, programs
from collector.bpf.links import Link
from collector.bpf.programs import Kind, Program, ProgramSpec

_THREAD, _FUNCTION = -16, -8  # struct verdict_key on the stack
_LOOKUP, _DELETE, _CPU, _PID = 1, 3, 8, 14  # enum bpf_func_id
_ERRNO_MASK = 0xFFF  # MAX_ERRNO of include/linux/err.h


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def _call(number: int) -> bytes:
    return _instruction(0x85, value=number)


def _key_and_map(verdicts: int) -> list[bytes]:
    return [
        _instruction(0x18, 1, 1, value=verdicts),  # r1 = the map
        _instruction(0),
        _instruction(0xBF, 2, 10),  # r2 = stack - 16
        _instruction(0x07, 2, value=_THREAD),
    ]


def gate_program(verdicts: int, function: int) -> bytes:
    """Return the instructions of the gate of a function, known by its id in BTF.

    The error is limited to -4095..0, which the verifier requires of LSM programs since v6.12.
    """
    head = [
        _call(_PID),
        _instruction(0x55, 0, offset=2),  # if r0 != 0: it is the thread
        _call(_CPU),
        _instruction(0xA7, 0, value=-1),  # r0 ^= -1
        _instruction(0x7B, 10, 0, _THREAD),
        _instruction(0x7A, 10, offset=_FUNCTION, value=function),
        *_key_and_map(verdicts),
        _call(_LOOKUP),
    ]
    taken = [
        _instruction(0x79, 6, 0),  # r6 = the error
        _instruction(0x87, 6),  # r6 = -r6
        _instruction(0x57, 6, value=_ERRNO_MASK),
        *_key_and_map(verdicts),
        _call(_DELETE),
        _instruction(0xB7, 0),  # r0 = 0 - r6
        _instruction(0x1F, 0, 6),
        _instruction(0x95),
    ]
    none = [_instruction(0xB7, 0), _instruction(0x95)]
    return b"".join([*head, _instruction(0x15, 0, offset=len(taken)), *taken, *none])


@dataclass(slots=True)
class _Gate:
    program: Program
    link: Link
    users: int = 0


@dataclass(slots=True)
class Gates:
    """Owns the gates in use."""

    _gates: dict[tuple[Kind, int], _Gate] = field(default_factory=dict)
    # Policies come in threads. Held until descriptors of `links` are used: none is closed.
    lock: threading.RLock = field(default_factory=threading.RLock)

    def acquire(self, kind: Kind, function: int, name: str, verdicts: int) -> None:
        """Attach the gate of a function unless it is there; raise `ProbeError`."""
        with self.lock:
            gate = self._gates.get((kind, function))
            if gate is None:
                gate = self._gates[kind, function] = _attached(kind, function, name, verdicts)
            gate.users += 1

    def release(self, kind: Kind, function: int) -> None:
        """Detach the gate with its last user."""
        with self.lock:
            gate = self._gates[kind, function]
            gate.users -= 1
            if not gate.users:
                del self._gates[kind, function]
                gate.link.close()
                gate.program.close()

    @property
    def links(self) -> dict[str, int]:
        """Return the descriptors of the gates' links, by a name for each."""
        with self.lock:
            return {f"gate-{kind}-{one}": gate.link.fd for (kind, one), gate in self._gates.items()}


def _attached(kind: Kind, function: int, name: str, verdicts: int) -> _Gate:
    program = programs.load(
        ProgramSpec(f"gate_{name}", kind, gate_program(verdicts, function), function)
    )
    try:
        return _Gate(program, links.attach(program, name))
    except BaseException:
        program.close()
        raise
