"""argRegs of Override: assignments to registers of the program, as text and as a plan."""

from __future__ import annotations

import re

from collector.policies.plan import RegisterMove
from collector.policies.plan_registers import saved_register

_MOVE = re.compile(r"\s*%?(?P<to>\w+)\s*=\s*(?P<source>\S+)\s*\Z")
_NUMBER = re.compile(r"[-+]?(0x[0-9a-fA-F]+|\d+)\Z")
_OFFSET = r"(?P<offset>[-+]?(?:0x[0-9a-fA-F]+|\d+))?"
_REGISTER = re.compile(_OFFSET + r"(?P<open>\()?%?(?P<name>[a-z]\w*)(?(open)\))\Z")


def register_move(machine: str, text: str) -> RegisterMove | str:
    """Return an element of argRegs, or what is wrong with it.

    ``dst=src``: src is a number, ``%reg``, ``OFF%reg`` (their sum) or ``OFF(%reg)`` (the eight
    bytes of memory there).
    """
    match = _MOVE.match(text)
    if match is None:
        return "is no assignment"
    to = saved_register(machine, match["to"])
    if to is None or to.size < 8:
        return f"there is no whole register {match['to']}"
    source = match["source"]
    if _NUMBER.match(source):
        return RegisterMove(to.offset, int(source, 0))
    found = _REGISTER.match(source)
    if found is None:
        return f"{source} is neither a number nor a register"
    register = saved_register(machine, found["name"])
    if register is None or register.shift:
        return f"there is no register {found['name']}"
    offset = int(found["offset"] or "0", 0)
    return RegisterMove(to.offset, offset, register.offset, register.size, bool(found["open"]))
