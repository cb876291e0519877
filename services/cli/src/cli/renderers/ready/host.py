"""Policy ``host``: modules, BPF, mounts, namespaces, clock, devices, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.renderers.ready.act import Act, call_of, failure_of, numbers
from eventfilters.accesses import arguments, files, text_of
from tetragon.bpf_pb2 import BpfCmd
from tetragon.tetragon_pb2 import KprobeArgument

_EMOJIS = {
    "setting": "🔧", "device": "💽", "mount": "💽", "umount": "💽", "move_mount": "💽",
    "pivot_root": "💽", "fsmount": "💽", "mount_setattr": "💽",
    "fspick": "💽", "swapon": "💽", "swapoff": "💽",
    "setns": "🧭", "unshare": "🧭", "bpf": "🐝", "init_module": "🧩", "finit_module": "🧩",
    "delete_module": "🧩", "reboot": "🔁", "kexec_load": "🔁", "kexec_file_load": "🔁",
}  # fmt: skip
# include/uapi/linux/sched.h
_NAMESPACES = {
    0x80: "time", 0x20000: "mount", 0x2000000: "cgroup", 0x4000000: "uts", 0x8000000: "ipc",
    0x10000000: "user", 0x20000000: "pid", 0x40000000: "net",
}  # fmt: skip
# include/uapi/linux/mount.h
_MOUNT = {
    0x20: "remount", 0x1000: "bind", 0x2000: "move", 0x4000: "recursive", 0x20000: "unbindable",
    0x40000: "private", 0x80000: "slave", 0x100000: "shared", 0x1: "read-only",
}  # fmt: skip
# include/uapi/linux/reboot.h
_REBOOT = {
    0x1234567: "restart", 0xCDEF0123: "halt", 0x4321FEDC: "power off", 0xA1B2C3D4: "restart",
    0xD000FCE2: "suspend", 0x45584543: "kexec", 0x89ABCDEF: "enable ctrl-alt-del", 0: "disable "
    "ctrl-alt-del",
}  # fmt: skip


def act(body: Any) -> Act:
    """Return the change."""
    call = call_of(body)
    word = body.message or call
    found = numbers(body)
    path = files(body).path
    texts = {one.label: text for one in arguments(body) if (text := text_of(one) or _name(one))}
    flags = found.get("flags", 0)
    if word == "mount":
        parts = (texts.get("source", "none"), "on", path, texts.get("type", ""))
        what = " ".join(filter(None, (*parts, _words(_MOUNT, flags))))
    elif word in ("setns", "unshare"):
        # A descriptor of a namespace has no path, and may come without its kind.
        what = f"{texts.get('namespace', '')} {_words(_NAMESPACES, flags)}".strip() or "namespace"
    elif word == "bpf":
        known = BpfCmd.DESCRIPTOR.values_by_number.get(found.get("command", -1))
        what = known.name.removeprefix("BPF_").lower() if known is not None else ""
    elif word == "reboot":
        what = _REBOOT.get(found.get("command", -1), "")
    else:
        what = path or " ".join(texts.values())
    return Act(_EMOJIS.get(word, "🔧"), word, what, failure_of(body), file=path)


def _words(known: Mapping[int, str], flags: int) -> str:
    return " ".join(word for bit, word in known.items() if flags & bit)


def _name(argument: KprobeArgument) -> str:
    return argument.bytes_arg.decode(errors="replace") if argument.label == "name" else ""
