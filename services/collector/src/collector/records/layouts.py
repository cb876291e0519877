"""The memory layouts that C and Python share: records and map values.

Each type here mirrors one C struct, field by field. A kernel test compares offsets and sizes with
the C compiler's; `version` changes with any of them, so that saved records are never misread.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Annotated, Any, NamedTuple, get_type_hints

EVENTS_H = "lib/events.h"
VALUES_H = "lib/values.h"


class C(NamedTuple):
    """How C stores a field: a letter of the struct module, and the C name where it differs."""

    letter: str
    name: str = ""


U32 = Annotated[int, C("I")]
U64 = Annotated[int, C("Q")]


class ForkRecord(NamedTuple):
    """A new process; threads are not reported."""

    kind: U32
    flags: U32
    ktime_ns: U64  # boot clock, suspend included: bpf_ktime_get_boot_ns()
    pid: U32
    parent_pid: U32
    parent_ktime_ns: U64  # 0: unknown to the kernel's process map
    start_boottime_ns: Annotated[int, C("Q", "start_boottime")]
    nspid: U32
    pad: U32


class ExitRecord(NamedTuple):
    """The last thread of a process exited."""

    kind: U32
    exit_code: U32  # raw task_struct.exit_code: signal in bits 0-6, status from bit 8
    ktime_ns: U64
    image_ktime_ns: U64  # start of the image that ended: with pid its key
    pid: U32
    tid: U32


class DataRecord(NamedTuple):
    """A piece of arguments or environment, ahead of its exec record; its bytes follow."""

    kind: U32
    field: U32  # DATA_ARGS or DATA_ENVS
    ktime_ns: U64
    pid: U32
    offset: U32
    len: U32
    pad: U32


class Namespaces(NamedTuple):
    """Inode numbers of a process's namespaces; 0 where unknown. Names as in /proc/PID/ns."""

    uts: int
    ipc: int
    mnt: int
    pid: int
    pid_for_children: int
    net: int
    time: int
    time_for_children: int
    cgroup: int
    user: int


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
    """A process got a new image. The last five fields follow the C struct in the ring."""

    kind: U32
    flags: U32
    ktime_ns: U64
    pid: U32
    nspid: U32
    parent_ktime_ns: U64  # 0: unknown to the kernel's process map
    parent_pid: U32
    auid: U32
    replaced_ktime_ns: U64  # the fork or the image this one replaces; 0: none known
    cgroup_id: U64
    inode: U64
    cap_permitted: U64
    cap_effective: U64
    cap_inheritable: U64
    uid: U32
    gid: U32
    euid: U32
    egid: U32
    suid: U32
    sgid: U32
    fsuid: U32
    fsgid: U32
    securebits: U32
    secureexec: U32
    nlink: U32
    filename_len: U32
    cgroup_len: U32
    args_len: U32
    envs_len: U32
    cwd_len: U32
    ns_uts: Annotated[int, C("I", "ns[NS_UTS]")]
    ns_ipc: Annotated[int, C("I", "ns[NS_IPC]")]
    ns_mnt: Annotated[int, C("I", "ns[NS_MNT]")]
    ns_pid: Annotated[int, C("I", "ns[NS_PID]")]
    ns_pid_for_children: Annotated[int, C("I", "ns[NS_PID_FOR_CHILDREN]")]
    ns_net: Annotated[int, C("I", "ns[NS_NET]")]
    ns_time: Annotated[int, C("I", "ns[NS_TIME]")]
    ns_time_for_children: Annotated[int, C("I", "ns[NS_TIME_FOR_CHILDREN]")]
    ns_cgroup: Annotated[int, C("I", "ns[NS_CGROUP]")]
    ns_user: Annotated[int, C("I", "ns[NS_USER]")]
    start_boottime_ns: Annotated[int, C("Q", "start_boottime")]
    arg_start: U64
    sessionid: U32  # of the login, 0xffffffff: none
    pad: U32
    filename: bytes = b""
    cgroup: bytes = b""  # leaf name
    args: bytes = b""  # argv[0] too, each with its NUL
    envs: bytes = b""
    cwd: bytes = b""

    @property
    def credentials(self) -> Credentials:
        """The fields of struct cred."""
        return Credentials(
            self.uid, self.gid, self.euid, self.egid, self.suid, self.sgid, self.fsuid, self.fsgid,
            self.securebits, self.cap_permitted, self.cap_effective, self.cap_inheritable,
        )  # fmt: skip

    @property
    def namespaces(self) -> Namespaces:
        """The inode numbers of the namespaces."""
        return Namespaces(
            self.ns_uts, self.ns_ipc, self.ns_mnt, self.ns_pid, self.ns_pid_for_children,
            self.ns_net, self.ns_time, self.ns_time_for_children, self.ns_cgroup, self.ns_user,
        )  # fmt: skip


class ThrottleRecord(NamedTuple):
    """The events of a cgroup are withheld from now on, or no longer. Its name follows."""

    kind: U32
    type: U32  # enum ThrottleType
    ktime_ns: U64
    cgroup_id: U64
    policy: U32  # number of the loaded policy; 0: execs, forks and exits
    name_len: U32
    exec: U64  # with THROTTLE_STOP: events that were withheld since the last one
    exit: U64
    tracing: U64
    name: bytes = b""  # of the cgroup, its path's last component


class ThrottleKey(NamedTuple):
    """Whose rate it is."""

    cgroup_id: U64
    policy: U32
    pad: U32 = 0


class ThrottleValue(NamedTuple):
    """The rate of one cgroup's events, and what was withheld of them."""

    window_even: Annotated[int, C("Q", "window[0]")]
    window_odd: Annotated[int, C("Q", "window[1]")]
    count_even: Annotated[int, C("Q", "count[0]")]
    count_odd: Annotated[int, C("Q", "count[1]")]
    over_ns: U64  # when the rate was last too high, boot clock; 0: never
    exec: Annotated[int, C("Q", "withheld[WITHHELD_EXEC]")]
    fork: Annotated[int, C("Q", "withheld[WITHHELD_FORK]")]
    exit: Annotated[int, C("Q", "withheld[WITHHELD_EXIT]")]
    tracing: Annotated[int, C("Q", "withheld[WITHHELD_POLICY]")]


class WithheldKey(NamedTuple):
    """A living image that was not reported."""

    ktime_ns: U64
    pid: U64


class WithheldValue(NamedTuple):
    """The rest of the kernel's entry."""

    known_ktime_ns: U64  # the pid's last image that the process table has; 0: none
    cgroup_id: U64
    is_clone: U32
    pad: U32


class ProcessValue(NamedTuple):
    """The entry of a living process in the kernel's process map, by its pid."""

    ktime_ns: U64  # when the image started; never 0
    parent_ktime_ns: U64
    parent_pid: U32
    flags: U32
    start_boottime_ns: Annotated[int, C("Q", "start_boottime")]


class Layout:
    """The C struct ``struct`` of ``header`` as the fields of ``mirror`` that have a C letter."""

    def __init__(self, mirror: type[Any], struct: str, header: str) -> None:
        self.mirror = mirror
        self.struct = struct
        self.header = header
        found = [
            (name, note)
            for name, hint in get_type_hints(mirror, include_extras=True).items()
            for note in getattr(hint, "__metadata__", ())
            if isinstance(note, C)
        ]
        self.names = tuple(note.name or name for name, note in found)  # as C names them
        self.format = Struct("<" + "".join(note.letter for _, note in found))

    def offsets(self) -> dict[str, int]:
        """Return the byte offset of each field by its C name."""
        letters = self.format.format.lstrip("<")
        return {name: Struct("<" + letters[:index]).size for index, name in enumerate(self.names)}


EXEC = Layout(ExecRecord, "exec_record", EVENTS_H)
FORK = Layout(ForkRecord, "fork_record", EVENTS_H)
EXIT = Layout(ExitRecord, "exit_record", EVENTS_H)
DATA = Layout(DataRecord, "data_record", EVENTS_H)
PROCESS_VALUE = Layout(ProcessValue, "process_value", VALUES_H)
THROTTLE = Layout(ThrottleRecord, "throttle_record", EVENTS_H)
THROTTLE_KEY = Layout(ThrottleKey, "throttle_key", VALUES_H)
THROTTLE_VALUE = Layout(ThrottleValue, "throttle_value", VALUES_H)
WITHHELD_KEY = Layout(WithheldKey, "withheld_key", VALUES_H)
WITHHELD_VALUE = Layout(WithheldValue, "withheld_value", VALUES_H)

LAYOUTS = (
    EXEC, FORK, EXIT, DATA, PROCESS_VALUE, THROTTLE, THROTTLE_KEY, THROTTLE_VALUE, WITHHELD_KEY,
    WITHHELD_VALUE,
)  # fmt: skip


def version() -> str:
    """Return a digest of all layouts: records of another version cannot be decoded."""
    described = [f"{one.struct} {one.format.format} {' '.join(one.names)}" for one in LAYOUTS]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()
