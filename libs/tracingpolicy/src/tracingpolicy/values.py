"""The typed values of filters, and the small enumerations around them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Network, IPv6Network

from tracingpolicy.cel import Expression


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ListReference:
    """``list:NAME`` among the values of InMap: the list's system calls, by number and ABI."""

    name: str


class FileType(IntEnum):
    """A file's type: ``mode & S_IFMT``."""

    SOCKET = 0o140000
    LINK = 0o120000
    REGULAR = 0o100000
    BLOCK = 0o060000
    DIRECTORY = 0o040000
    CHARACTER = 0o020000
    FIFO = 0o010000


# By operator: int and Range for numbers, ports, protocols, families, states, capability masks;
# bytes for texts; networks for addresses; one Expression for CelExpr; nothing for *Priv.
Value = int | Range | bytes | IPv4Network | IPv6Network | ListReference | FileType | Expression


class Namespace(Enum):
    """A namespace of a process, under its name in documents."""

    UTS = "Uts"
    IPC = "Ipc"
    MNT = "Mnt"
    PID = "Pid"
    PID_FOR_CHILDREN = "PidForChildren"
    NET = "Net"
    TIME = "Time"
    TIME_FOR_CHILDREN = "TimeForChildren"
    CGROUP = "Cgroup"
    USER = "User"


class CapabilitySet(Enum):
    """A capability set of a process."""

    EFFECTIVE = "Effective"
    INHERITABLE = "Inheritable"
    PERMITTED = "Permitted"


class UserId(Enum):
    """Which user id of a process `MatchUsers` compares."""

    UID = "uid"
    EUID = "euid"
    AUID = "auid"


class ContainerField(Enum):
    """What of a container `MatchContainers` compares."""

    ID = "id"
    NAME = "name"
    IMAGE = "image"


class RateLimitScope(Enum):
    """Who shares one rate limit."""

    THREAD = "thread"
    PROCESS = "process"
    GLOBAL = "global"


class DataSource(Enum):
    """Where an element of ``data`` starts."""

    CURRENT_TASK = "current_task"
    PT_REGS = "pt_regs"


class ListType(Enum):
    """How the elements of a list are found."""

    FUNCTIONS = ""
    SYSCALLS = "syscalls"
    GENERATED_SYSCALLS = "generated_syscalls"
    GENERATED_FTRACE = "generated_ftrace"


class Mode(Enum):
    """Whether actions that act are carried out."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class OverrideMethod(Enum):
    """How an enforcer overrides a result."""

    FMOD_RET = "fmod-ret"
    OVERRIDE_RETURN = "override-return"
