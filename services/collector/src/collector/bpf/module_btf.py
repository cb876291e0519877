"""The BTF objects of kernel modules, by descriptor: what programs on their functions bind to.

`Btf.module` reads a module's types from sysfs; the kernel needs an open descriptor of the same
object when such a program is loaded (attach_btf_obj_fd, since v5.12).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from struct import Struct

from collector.bpf.syscall import Command, address_of, bpf
from collector.errors import ProbeError

_NEXT_ID = Struct("<III")  # union bpf_attr: start_id, next_id, open_flags
_INFO = Struct("<QIIQII")  # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf
_NAME_MAX = 64


def open_module(name: str) -> int:
    """Return a descriptor of a loaded module's BTF, which the caller closes; raise `ProbeError`."""
    for number in _ids():
        try:
            fd = bpf(Command.BTF_GET_FD_BY_ID, _NEXT_ID.pack(number, 0, 0))
        except OSError:
            continue  # unloaded meanwhile
        if _name(fd) == name:
            return fd
        os.close(fd)
    raise ProbeError(f"load: kernel module {name}: its BTF is not loaded")


def _ids() -> Iterator[int]:
    number = 0
    while True:
        attr = bytearray(_NEXT_ID.pack(number, 0, 0))
        try:
            bpf(Command.BTF_GET_NEXT_ID, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        (_, number, _) = _NEXT_ID.unpack(attr)
        yield number


def _name(fd: int) -> str:
    text = ctypes.create_string_buffer(_NAME_MAX)
    info = ctypes.create_string_buffer(
        _INFO.pack(0, 0, 0, address_of(text), _NAME_MAX, 0), _INFO.size
    )
    try:
        bpf(Command.OBJ_GET_INFO_BY_FD, Struct("<IIQ").pack(fd, _INFO.size, address_of(info)))
    except OSError:
        return ""
    return text.value.decode(errors="replace")
