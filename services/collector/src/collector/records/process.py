"""Decode ring buffer records; the only module that knows the layout of ``bpf/events.h``.

Kernel words end here: ``tgid`` becomes ``pid``, the kernel's ``pid`` becomes ``tid``.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from collector.errors import DecodeError

EXEC, FORK, EXIT, DATA = 1, 2, 3, 4  # enum record_kind
DATA_ARGS, DATA_ENVS = 1, 2  # enum data_field

INLINE_MAX = 4096  # maps.h: longer arguments come ahead of their record, in pieces

# enum process_flags: the bits the kernel side sets, and those this side adds; Tetragon's numbers.
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

# enum namespace_kind: index into ExecRecord.ns, in the order of tetragon.Namespaces' fields.
NAMESPACES = (
    "uts", "ipc", "mnt", "pid", "pid_for_children", "net",
    "time", "time_for_children", "cgroup", "user",
)  # fmt: skip
NS_MNT, NS_USER = 2, 9

_EXEC = Struct("<IIQIIQIIQQQQQQ8I8I10IQQ")  # struct exec_record
_FORK = Struct("<IIQIIQI4xQ")  # struct fork_record
_EXIT = Struct("<IIQQII")  # struct exit_record
_DATA = Struct("<IIQIII4x")  # struct data_record
_KIND = Struct("<I")


class Credentials(NamedTuple):
    """struct cred at exec. Capabilities and securebits are 0 unless credentials are enabled."""

    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    securebits: int = 0
    permitted: int = 0
    effective: int = 0
    inheritable: int = 0


class ExecRecord(NamedTuple):
    """A process got a new image."""

    flags: int
    ktime_ns: int  # boot clock, suspend included: bpf_ktime_get_boot_ns()
    pid: int
    nspid: int
    parent_ktime_ns: int  # 0: unknown to the kernel's process map
    parent_pid: int
    auid: int
    replaced_ktime_ns: int  # the fork or the image this one replaces; 0: none known
    inode: int
    nlink: int
    secureexec: int
    credentials: Credentials
    ns: tuple[int, ...]
    start_boottime_ns: int
    arg_start: int
    filename: bytes
    cwd: bytes
    cgroup: bytes  # leaf name
    args: bytes  # argv[0] too, each with its NUL
    envs: bytes


class ForkRecord(NamedTuple):
    """A new process; threads are not told."""

    flags: int
    ktime_ns: int
    pid: int
    nspid: int
    parent_ktime_ns: int
    parent_pid: int
    start_boottime_ns: int


class ExitRecord(NamedTuple):
    """The last thread of a process left."""

    exit_code: int  # raw task_struct.exit_code: signal in bits 0-6, status from bit 8
    ktime_ns: int
    image_ktime_ns: int  # start of the image that ended: with pid its name
    pid: int
    tid: int


Record = ExecRecord | ForkRecord | ExitRecord


class Decoder:
    """Bytes of the ring to records; keeps the pieces of long arguments until their exec comes."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, int, int], bytearray] = {}  # (field, pid, ktime) -> so far

    def decode(self, data: bytes) -> Record | None:
        """Return the record in ``data``; None for a piece of one. Raise `DecodeError`."""
        try:
            (kind,) = _KIND.unpack_from(data)
            if kind == EXIT:
                _, code, ktime, image, pid, tid = _EXIT.unpack_from(data)
                return ExitRecord(code, ktime, image, pid, tid)
            if kind == FORK:
                return ForkRecord._make(_FORK.unpack_from(data)[1:])
            if kind == EXEC:
                return self._exec(data)
            if kind == DATA:
                self._piece(data)
                return None
        except Exception as error:
            raise DecodeError("record cut short", size_bytes=len(data)) from error
        raise DecodeError(f"unknown kind {kind}", size_bytes=len(data))

    def _exec(self, data: bytes) -> ExecRecord:
        (
            _, flags, ktime, pid, nspid, parent_ktime, parent_pid, auid, replaced, _cgroup_id,
            inode, permitted, effective, inheritable,
            uid, gid, euid, egid, suid, sgid, fsuid, fsgid,
            securebits, secureexec, nlink, filename_len, cgroup_len, args_len, envs_len, cwd_len,
            *ns, start_boottime, arg_start,
        ) = _EXEC.unpack_from(data)  # fmt: skip
        at = _EXEC.size
        filename = data[at : (at := at + filename_len)]
        cgroup = data[at : (at := at + cgroup_len)]
        if args_len > INLINE_MAX:
            args = bytes(self._pieces.pop((DATA_ARGS, pid, ktime), b""))
        else:
            args = data[at : (at := at + args_len)]
        if envs_len > INLINE_MAX:
            envs = bytes(self._pieces.pop((DATA_ENVS, pid, ktime), b""))
        else:
            envs = data[at : (at := at + envs_len)]
        cwd = data[at : at + cwd_len]
        if len(cwd) != cwd_len:
            raise DecodeError("exec record", size_bytes=len(data))
        return ExecRecord(
            flags, ktime, pid, nspid, parent_ktime, parent_pid, auid, replaced, inode, nlink,
            secureexec,
            Credentials(
                uid, gid, euid, egid, suid, sgid, fsuid, fsgid,
                securebits, permitted, effective, inheritable,
            ),
            tuple(ns), start_boottime, arg_start, filename, cwd, cgroup, args, envs,
        )  # fmt: skip

    @property
    def in_pieces(self) -> bool:
        """Whether pieces came whose exec record did not."""
        return bool(self._pieces)

    def _piece(self, data: bytes) -> None:
        _, field, ktime, pid, offset, length = _DATA.unpack_from(data)
        if len(self._pieces) > 1024:  # their exec records were lost: the kernel counted them
            self._pieces.clear()
        piece = self._pieces.setdefault((field, pid, ktime), bytearray())
        if offset == len(piece):
            piece += data[_DATA.size : _DATA.size + length]
