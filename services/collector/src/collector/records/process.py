"""Decode the records of process life: exec, fork, exit, and pieces of long arguments.

Kernel words end here: ``tgid`` is ``pid``, the kernel's ``pid`` is ``tid``.
"""

from __future__ import annotations

import struct

from collector.errors import DecodeError
from collector.records import layouts
from collector.records.layouts import (
    DataRecord,
    ExecRecord,
    ExitRecord,
    ForkRecord,
    ThrottleRecord,
)

EXEC, FORK, EXIT, DATA, THROTTLE, RETIRE = 1, 2, 3, 4, 5, 6  # enum record_kind
DATA_ARGS, DATA_ENVS = 1, 2  # enum data_field

INLINE_MAX = 4096  # maps.h: longer arguments arrive ahead of their record, in pieces
_UNFINISHED_MAX = 1024  # pieces whose exec record was lost are discarded above this number

# enum process_flags: the bits that the kernel side sets, and those that this side adds; Tetragon's
# numbers.
FLAG_EXECVE = 0x0000001
FLAG_PROCFS = 0x0000004
FLAG_ERROR_ENVS = 0x0000008
FLAG_TRUNC_ARGS = 0x0000010
FLAG_ERROR_FILENAME = 0x0000100
FLAG_ERROR_ARGS = 0x0000200
FLAG_NO_CWD = 0x0000800
FLAG_ROOT_CWD = 0x0001000
FLAG_ERROR_CWD = 0x0002000
FLAG_CLONE = 0x0004000
FLAG_DATA_FILENAME = 0x0800000
FLAG_DATA_ARGS = 0x1000000
FLAG_IN_INIT_TREE = 0x2000000

_EXEC_SIZE = layouts.EXEC.format.size
_DATA_SIZE = layouts.DATA.format.size
_unpack_exec = layouts.EXEC.format.unpack_from
_unpack_fork = layouts.FORK.format.unpack_from
_unpack_exit = layouts.EXIT.format.unpack_from
_unpack_data = layouts.DATA.format.unpack_from
# As NamedTuple._make, which also counts the values: a format gives as many as its mirror has.
_new = tuple.__new__
_unpack_throttle = layouts.THROTTLE.format.unpack_from
_THROTTLE_SIZE = layouts.THROTTLE.format.size


def _at(name: str) -> int:
    return ExecRecord._fields.index(name)


_PID, _KTIME = _at("pid"), _at("ktime_ns")
# filename_len, cgroup_len, args_len, envs_len, cwd_len
_LENGTHS = slice(_at("filename_len"), _at("cwd_len") + 1)


def decode_fork(data: bytes) -> ForkRecord:
    """Return the fork record in ``data``; raise `DecodeError` if it is cut short."""
    try:
        return _new(ForkRecord, _unpack_fork(data))
    except struct.error as error:
        raise DecodeError("fork record", len(data)) from error


def decode_exit(data: bytes) -> ExitRecord:
    """Return the exit record in ``data``; raise `DecodeError` if it is cut short."""
    try:
        return _new(ExitRecord, _unpack_exit(data))
    except struct.error as error:
        raise DecodeError("exit record", len(data)) from error


def decode_throttle(data: bytes) -> ThrottleRecord:
    """Return the throttle record in ``data``; raise `DecodeError` if it is cut short."""
    try:
        values = _unpack_throttle(data)
    except struct.error as error:
        raise DecodeError("throttle record", len(data)) from error
    record = ThrottleRecord(*values)
    end = _THROTTLE_SIZE + record.name_len
    if len(data) < end:
        raise DecodeError("throttle record", len(data))
    return record._replace(name=data[_THROTTLE_SIZE:end])


class ExecDecoder:
    """Decodes exec records; keeps the pieces of long arguments until their exec record comes."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, int, int], bytearray] = {}  # (field, pid, ktime) -> so far

    @property
    def unfinished(self) -> bool:
        """Whether pieces arrived whose exec record did not."""
        return bool(self._pieces)

    def decode(self, data: bytes) -> ExecRecord:
        """Return the exec record in ``data``; raise `DecodeError` if it is cut short."""
        try:
            values = _unpack_exec(data)
        except struct.error as error:
            raise DecodeError("exec record", len(data)) from error
        filename_len, cgroup_len, args_len, envs_len, cwd_len = values[_LENGTHS]
        at = _EXEC_SIZE
        filename = data[at : (at := at + filename_len)]
        cgroup = data[at : (at := at + cgroup_len)]
        if args_len > INLINE_MAX:
            args = bytes(self._pieces.pop((DATA_ARGS, values[_PID], values[_KTIME]), b""))
        else:
            args = data[at : (at := at + args_len)]
        if envs_len > INLINE_MAX:
            envs = bytes(self._pieces.pop((DATA_ENVS, values[_PID], values[_KTIME]), b""))
        else:
            envs = data[at : (at := at + envs_len)]
        cwd = data[at : at + cwd_len]
        if len(cwd) != cwd_len:
            raise DecodeError("exec record", len(data))
        return _new(ExecRecord, values + (filename, cgroup, args, envs, cwd))  # noqa: RUF005

    def add_piece(self, data: bytes) -> None:
        """Keep the piece in ``data``; raise `DecodeError` if it is cut short."""
        try:
            piece = DataRecord._make(_unpack_data(data))
        except struct.error as error:
            raise DecodeError("data record", len(data)) from error
        if len(self._pieces) > _UNFINISHED_MAX:  # the kernel counted their lost exec records
            self._pieces.clear()
        so_far = self._pieces.setdefault((piece.field, piece.pid, piece.ktime_ns), bytearray())
        if piece.offset == len(so_far):
            so_far += data[_DATA_SIZE : _DATA_SIZE + piece.len]
