"""A seccomp profile in the form of container engines, installed in this process."""

from __future__ import annotations

import ctypes
import json
import os
import struct
from importlib.resources import files

_ABI = {"x86_64": "x64", "aarch64": "arm64"}
_LIBC = ctypes.CDLL(None, use_errno=True)
# include/uapi/linux/filter.h, seccomp.h, prctl.h
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2


def program(profile: str) -> bytes:
    """Return the classic BPF program of a profile that allows by name."""
    document = json.loads(profile)
    table = json.loads(files("cli.renderers").joinpath("syscalls.json").read_bytes())["names"]
    numbers = {name: int(number) for number, name in table[_ABI[os.uname().machine]].items()}
    code = [(_LOAD, 0, 0, 0)]  # seccomp_data.nr
    for group in document["syscalls"]:
        assert group["action"] == "SCMP_ACT_ALLOW"
        for name in group["names"]:
            code += [(_JUMP_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ALLOW)]
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    code.append((_RETURN, 0, 0, _ERRNO | document["defaultErrnoRet"]))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def install(filter_: bytes) -> None:
    """Confine this process and its children; for ``preexec_fn``."""
    buffer = ctypes.create_string_buffer(filter_, len(filter_))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    made = Program(len(filter_) // 8, ctypes.addressof(buffer))
    if _LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _LIBC.prctl(
        _SET_SECCOMP, _FILTER, ctypes.byref(made), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
