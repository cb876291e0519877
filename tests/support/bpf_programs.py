"""Which BPF programs the kernel has loaded."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from struct import Struct
from typing import cast

from collector.bpf.syscall import Command, bpf

_PROG_GET_NEXT_ID = 11  # enum bpf_cmd
_NEXT_ID = Struct("<III")  # union bpf_attr: start_id, next_id, open_flags


def loaded_programs() -> Iterator[int]:
    """Yield the id of every program; no id is used twice while the machine is up."""
    number = 0
    while True:
        attr = bytearray(_NEXT_ID.pack(number, 0, 0))
        try:
            bpf(cast(Command, _PROG_GET_NEXT_ID), attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        (_, number, _) = _NEXT_ID.unpack(attr)
        yield number
