"""Policy ``credentials``: ids, capabilities, keys, ptrace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli.renderers.ready.act import Act, call_of, failure_of, numbers, signed, value_of
from eventfilters.accesses import arguments, text_of
from tetragon.capabilities_pb2 import CapabilitiesType
from tetragon.tetragon_pb2 import KprobeArgument

_IDS = ("uid", "euid", "suid", "gid", "egid", "sgid")
_CAPABILITIES_32 = 0xFFFF_FFFF
_CAP_PREFIX = "CAP_"
# include/uapi/linux/prctl.h
_PRCTL = {8: "keepcaps", 24: "drop", 28: "securebits", 47: "ambient"}
_AMBIENT = {2: "raise", 3: "lower", 4: "clear"}
# include/uapi/linux/ptrace.h
_PTRACE = {
    0: "trace me", 4: "poke text", 5: "poke data", 6: "poke user", 13: "set registers",
    15: "set registers", 16: "attach", 0x4205: "set registers", 0x4206: "seize",
}  # fmt: skip
# include/uapi/linux/keyctl.h
_KEYCTL = (
    "get_keyring_id", "join_session_keyring", "update", "revoke", "chown", "setperm", "describe",
    "clear", "link", "unlink", "search", "read", "instantiate", "negate", "set_reqkey_keyring",
    "set_timeout", "assume_authority", "get_security", "session_to_parent", "reject",
    "instantiate_iov", "invalidate", "get_persistent", "dh_compute", "pkey_query", "pkey_encrypt",
    "pkey_decrypt", "pkey_sign", "pkey_verify", "restrict_keyring", "move", "capabilities",
    "watch_key",
)  # fmt: skip
_WITHOUT_KEY = (1, 14, 18, 23, 31)  # the argument is something else than a key
_KEYRINGS = {
    -1: "thread", -2: "process", -3: "session", -4: "user", -5: "user-session", -6: "group",
    -7: "request-key", -8: "requestor",
}  # fmt: skip


def act(body: Any) -> Act:
    """Return the change that was tried."""
    call = call_of(body)
    word = body.message or call
    if word == "set-id":
        return Act("🔑", word, _set_id(body.args))
    found = numbers(body)
    texts = [text for one in arguments(body) if (text := text_of(one))]
    if word == "userns":
        what = "user namespace entered" if "entered" in found else "new user namespace"
    elif call == "capset":
        what = ", ".join(f"{name} {_capabilities(found.get(name, 0))}" for name in found)
    elif call == "prctl":
        what = _prctl(found.get("option", 0), found.get("value", 0))
    elif call == "ptrace":
        request = _PTRACE.get(found.get("request", -1), str(found.get("request")))
        what = request if found.get("request") == 0 else f"{request} {found.get('pid', 0)}"
    elif call == "keyctl":
        what = _keyctl(found.get("operation", -1), signed(found.get("key", 0)))
    elif any(name in found for name in _IDS):
        ids = {name: signed(found[name]) for name in _IDS if name in found}
        what = " ".join(f"{name} {value}" for name, value in ids.items() if value != -1)
    else:
        what = " ".join([*(f"{name} {value}" for name, value in found.items()), *texts])
    emoji = "🔬" if call in ("ptrace", "process_vm_readv", "process_vm_writev") else "🔑"
    return Act(emoji, word, what, failure_of(body))


def _set_id(args: Sequence[KprobeArgument]) -> str:
    if any(one.HasField("cap_permitted_arg") for one in args):
        *_, ambient, permitted = args
        gained = int(permitted.cap_permitted_arg, 16) & ~int(ambient.kernel_cap_t_arg, 16)
        return f"capabilities {_names(gained)}"
    uid, euid, gid, egid = [*(value_of(one) or 0 for one in args), 0, 0, 0, 0][:4]
    parts = [f"uid {uid} -> {euid}"] if uid != euid else []
    return ", ".join(parts + ([f"gid {gid} -> {egid}"] if gid != egid else []))


def _capabilities(mask: int) -> str:
    mask &= _CAPABILITIES_32
    return "all" if mask == _CAPABILITIES_32 else _names(mask)


def _names(mask: int) -> str:
    names = (name for name, bit in CapabilitiesType.items() if mask >> bit & 1)
    # Tetragon's enumeration has one without the prefix: DAC_OVERRIDE.
    return "+".join(_CAP_PREFIX + name.removeprefix(_CAP_PREFIX) for name in names) or "none"


def _keyctl(operation: int, key: int) -> str:
    known = 0 <= operation < len(_KEYCTL)
    name = _KEYCTL[operation] if known else f"operation {operation}"
    return name if operation in _WITHOUT_KEY else f"{name} {_KEYRINGS.get(key, key)}"


def _prctl(option: int, value: int) -> str:
    name = _PRCTL.get(option, f"option {option}")
    if name == "drop":
        known = CapabilitiesType.DESCRIPTOR.values_by_number.get(value)
        return f"drop {known.name if known is not None else value}"
    if name == "ambient":
        return f"ambient {_AMBIENT.get(value, str(value))}"
    return f"{name} {value:#x}"
