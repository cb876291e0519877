"""The actions of selectors, as a table: numbers, keys, and which of them only observe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class ActionKind(Enum):
    """An action under its name in documents."""

    POST = "Post"
    NO_POST = "NoPost"
    TRACK_SOCK = "TrackSock"
    UNTRACK_SOCK = "UntrackSock"
    COUNT_SENT = "CountSent"
    COUNT_RECEIVED = "CountReceived"
    SIGKILL = "Sigkill"
    SIGNAL = "Signal"
    OVERRIDE = "Override"
    NOTIFY_ENFORCER = "NotifyEnforcer"
    CLEANUP_ENFORCER_NOTIFICATION = "CleanupEnforcerNotification"
    SET = "Set"
    GET_URL = "GetUrl"
    DNS_LOOKUP = "DnsLookup"


@dataclass(frozen=True, slots=True)
class ActionInfo:
    """What is the same for every use of one action."""

    number: int  # in the kernel; enum KprobeAction of the API is one more, but has not OWN_ACTIONS
    meaning: str
    keys: tuple[str, ...] = ()  # those that have an effect, beside ``action``
    observes: bool = False  # changes nothing on the host
    enforces: bool = False  # skipped in monitor mode


_A = ActionKind
_COUNTED = ("argSock", "argIndex")

ACTIONS: Mapping[ActionKind, ActionInfo] = MappingProxyType(
    {
        _A.POST: ActionInfo(
            0,
            "report an event",
            ("rateLimit", "rateLimitScope", "kernelStackTrace", "userStackTrace", "imaHash"),
            observes=True,
        ),
        _A.NO_POST: ActionInfo(8, "report no event", observes=True),
        _A.TRACK_SOCK: ActionInfo(
            10, "make the current process the owner of the socket", ("argSock",), observes=True
        ),
        _A.UNTRACK_SOCK: ActionInfo(
            11, "forget the owner of the socket, and its counts", ("argSock",), observes=True
        ),
        _A.COUNT_SENT: ActionInfo(
            64, "add an argument to the bytes sent of the socket", _COUNTED, observes=True
        ),
        _A.COUNT_RECEIVED: ActionInfo(
            65, "add an argument to the bytes received of the socket", _COUNTED, observes=True
        ),
        _A.SIGKILL: ActionInfo(2, "send SIGKILL to the current process", enforces=True),
        _A.SIGNAL: ActionInfo(
            9, "send a signal to the current process", ("argSig",), enforces=True
        ),
        _A.OVERRIDE: ActionInfo(
            4,
            "return an error instead of the call's result",
            ("argError", "argRegs", "argNewSymbol", "argNewAddr", "argNewOffset"),
            enforces=True,
        ),
        _A.NOTIFY_ENFORCER: ActionInfo(
            12, "let an enforcer act on the thread", ("argError", "argSig"), enforces=True
        ),
        _A.CLEANUP_ENFORCER_NOTIFICATION: ActionInfo(13, "drop a pending enforcer notification"),
        _A.SET: ActionInfo(
            14, "write to an argument of a program", ("argIndex", "argValue"), enforces=True
        ),
        _A.GET_URL: ActionInfo(6, "send an HTTP GET", ("argUrl",)),
        _A.DNS_LOOKUP: ActionInfo(7, "send a DNS query", ("argFqdn",)),
    }
)

# Not in Tetragon: a document that has them says so by its API version.
OWN_ACTIONS = frozenset({_A.COUNT_SENT, _A.COUNT_RECEIVED})
