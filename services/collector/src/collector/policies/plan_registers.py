"""Registers by name: their place in ``struct pt_regs``.

Offsets are those of arch/x86/include/asm/ptrace.h and arch/arm64/include/asm/ptrace.h.
"""

from __future__ import annotations

from collector.policies.plan import SavedRegister

_X86_ORDER = "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss"
_X86_OFFSETS = {name: 8 * place for place, name in enumerate(_X86_ORDER.split())}


def _x86() -> dict[str, SavedRegister]:
    found: dict[str, SavedRegister] = {}

    def add(name: str, base: str, size: int, shift: int = 0) -> None:
        found[name] = SavedRegister(_X86_OFFSETS[base], size, shift)

    for base in ("ax", "bx", "cx", "dx"):
        add(f"r{base}", base, 8)
        add(f"e{base}", base, 4)
        add(base, base, 2)
        add(f"{base[0]}l", base, 1)
        add(f"{base[0]}h", base, 1, 8)
    for base in ("si", "di", "bp", "sp"):
        add(f"r{base}", base, 8)
        add(f"e{base}", base, 4)
        add(base, base, 2)
        add(f"{base}l", base, 1)
    for number in range(8, 16):
        base = f"r{number}"
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            add(base + suffix, base, size)
    add("rip", "ip", 8)
    add("eflags", "flags", 4)
    add("rflags", "flags", 8)
    add("orig_rax", "orig_ax", 8)
    add("cs", "cs", 2)
    add("ss", "ss", 2)
    return found


def _arm64() -> dict[str, SavedRegister]:
    found = {f"x{number}": SavedRegister(8 * number, 8) for number in range(31)}
    found |= {f"w{number}": SavedRegister(8 * number, 4) for number in range(31)}
    found |= {f"r{number}": SavedRegister(8 * number, 8) for number in range(31)}
    found["fp"], found["lr"] = found["x29"], found["x30"]
    found["sp"], found["pc"] = SavedRegister(248, 8), SavedRegister(256, 8)
    found["pstate"] = SavedRegister(264, 8)
    return found


_REGISTERS = {"x86_64": _x86(), "aarch64": _arm64()}


def saved_register(machine: str, name: str) -> SavedRegister | None:
    """Return a register of the machine; None if it has none of that name."""
    return _REGISTERS.get(machine, {}).get(name)


def register_names(machine: str) -> list[str]:
    """Return the names of all registers."""
    return list(_REGISTERS.get(machine, {}))
