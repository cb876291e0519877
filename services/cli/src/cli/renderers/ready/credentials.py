"""Policy ``credentials``: ids, capabilities, keys, ptrace."""

from __future__ import annotations

from typing import Any

from cli.renderers.ready.act import Act, call_of, failure_of, numbers, signed, value_of
from eventfilters.accesses import arguments, text_of
from tetragon.capabilities_pb2 import CapabilitiesType

_IDS = ("uid", "euid", "suid", "gid", "egid", "sgid")
_CAPABILITIES_32 = 0xFFFF_FFFF
# include/uapi/linux/prctl.h
_PRCTL = {8: "keepcaps", 24: "drop", 28: "securebits", 47: "ambient"}
_AMBIENT = {2: "raise", 3: "lower", 4: "clear"}
# include/uapi/linux/ptrace.h
_PTRACE = {
    0: "trace me", 4: "poke text", 5: "poke data", 6: "poke user", 13: "set registers",
    15: "set registers", 16: "attach", 0x4205: "set registers", 0x4206: "seize",
}  # fmt: skip


def act(body: Any) -> Act:
    """Return the change that was tried."""
    call = call_of(body)
    word = body.message or call
    if word == "set-id":
        return Act("🔑", word, _set_id([value_of(one) or 0 for one in body.args]))
    found = numbers(body)
    texts = [text for one in arguments(body) if (text := text_of(one))]
    if word == "userns":
        what = "new user namespace"
    elif call == "capset":
        what = ", ".join(f"{name} {_capabilities(found.get(name, 0))}" for name in found)
    elif call == "prctl":
        what = _prctl(found.get("option", 0), found.get("value", 0))
    elif call == "ptrace":
        request = _PTRACE.get(found.get("request", -1), str(found.get("request")))
        what = request if found.get("request") == 0 else f"{request} {found.get('pid', 0)}"
    elif any(name in found for name in _IDS):
        ids = {name: signed(found[name]) for name in _IDS if name in found}
        what = " ".join(f"{name} {value}" for name, value in ids.items() if value != -1)
    else:
        what = " ".join([*(f"{name} {value}" for name, value in found.items()), *texts])
    emoji = "🔬" if call in ("ptrace", "process_vm_readv", "process_vm_writev") else "🔑"
    return Act(emoji, word, what, failure_of(body))


def _set_id(ids: list[int]) -> str:
    uid, euid, gid, egid = [*ids, 0, 0, 0, 0][:4]
    parts = [f"uid {uid} -> {euid}"] if uid != euid else []
    return ", ".join(parts + ([f"gid {gid} -> {egid}"] if gid != egid else []))


def _capabilities(mask: int) -> str:
    mask &= _CAPABILITIES_32
    if mask == _CAPABILITIES_32:
        return "all"
    names = [name for name, bit in CapabilitiesType.items() if bit < 32 and mask >> bit & 1]
    return "+".join(names) or "none"


def _prctl(option: int, value: int) -> str:
    name = _PRCTL.get(option, f"option {option}")
    if name == "drop":
        known = CapabilitiesType.DESCRIPTOR.values_by_number.get(value)
        return f"drop {known.name if known is not None else value}"
    if name == "ambient":
        return f"ambient {_AMBIENT.get(value, str(value))}"
    return f"{name} {value:#x}"
