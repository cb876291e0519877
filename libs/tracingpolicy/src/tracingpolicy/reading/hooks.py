"""The hooks of each section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from tracingpolicy.actions import ActionKind
from tracingpolicy.model import (
    OWN_API,
    Argument,
    Fentry,
    HookKind,
    Kprobe,
    Lsm,
    Tracepoint,
    Usdt,
)
from tracingpolicy.position import Place
from tracingpolicy.reading.arguments import Role, read_argument, read_arguments
from tracingpolicy.reading.context import HookContext, PolicyContext
from tracingpolicy.reading.document import Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.reading.selectors import read_selector
from tracingpolicy.selectors import Selector
from tracingpolicy.types import OWN_TYPES, ArgumentType

MAX_MESSAGE_BYTES, MIN_TEXT_BYTES = 256, 2
MAX_TAGS, MAX_TAG_BYTES = 16, 128
MAX_SELECTORS = 64
COMMON = ("args", "message", "tags", "selectors")
_KERNEL = (*COMMON, "call", "syscall", "return", "returnArg", "returnArgAction", "data", "ignore")
_TRACEPOINT = (*COMMON, "subsystem", "event", "raw", "sampleFrequent")
_USDT = (*COMMON, "path", "provider", "name", "btfPath")
_LSM = (*COMMON, "hook")
SYSCALL_PREFIXES = ("__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__x64_compat_sys_",
                    "__arm64_sys_", "__arm64_compat_sys_", "compat_sys_", "sys_")  # fmt: skip
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*\Z")
_EVENT = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_SOCKETS = (ArgumentType.SOCK, ArgumentType.SOCKET, ArgumentType.FD_SOCK)
_OWNER = {
    "tracksock": ActionKind.TRACK_SOCK,
    "untracksock": ActionKind.UNTRACK_SOCK,
}


class Common(TypedDict):
    """What every kind of hook has."""

    index: int
    args: tuple[Argument, ...]
    data: tuple[Argument, ...]
    message: bytes
    tags: tuple[bytes, ...]
    selectors: tuple[Selector, ...]
    place: Place


@dataclass(slots=True)
class HookReader:
    """Reads the hooks of one document."""

    report: Report
    policy: PolicyContext

    def common(self, fields: Fields, index: int, hook: HookContext) -> Common:
        """Return what all hooks have; ``hook`` gets the arguments."""
        hook.args, hook.data = read_arguments(fields, hook.kind, hook.raw)
        if not self.policy.own_api:
            self._check_own_types(fields, hook)
        selectors = fields.each(
            "selectors", lambda node, path: read_selector(self.report, node, path, hook)
        )
        if len(selectors) > MAX_SELECTORS:
            fields.fail(f"{len(selectors)} selectors", "selectors", f"at most {MAX_SELECTORS}")
        return Common(
            index=index,
            args=tuple(one for one in hook.args if one is not None),
            data=tuple(one for one in hook.data if one is not None),
            message=_message(fields),
            tags=_tags(fields),
            selectors=selectors,
            place=fields.place(),
        )

    def _check_own_types(self, fields: Fields, hook: HookContext) -> None:
        for one in (*hook.args, *hook.data, hook.returned):
            if one is not None and one.type in OWN_TYPES:
                message = f"{fields.path}: Tetragon has no type {one.type.value}"
                self.report.add(one.place.of("type"), message, f"apiVersion: {OWN_API}")

    def kprobe(self, node: Node, path: str, index: int) -> Kprobe:
        """Return an element of kprobes."""
        return self._function(node, path, index, HookKind.KPROBE)

    def fentry(self, node: Node, path: str, index: int) -> Fentry:
        """Return an element of fentries."""
        made = self._function(node, path, index, HookKind.FENTRY)
        assert isinstance(made, Fentry)
        return made

    def _function(self, node: Node, path: str, index: int, kind: HookKind) -> Kprobe:
        fields = Fields(self.report, node, path, _KERNEL, required=("call",))
        call, syscall = fields.text("call"), fields.flag("syscall", True)
        self._check_call(fields, call, syscall)
        returns, returned = read_return(fields, kind)
        hook = HookContext(
            self.policy,
            kind,
            syscall=syscall,
            overridable=syscall or call.startswith(("security_", "list:")),
            returned=returned,
            returns=returns,
        )
        return (Fentry if kind is HookKind.FENTRY else Kprobe)(
            call=call,
            syscall=syscall,
            returns=returns,
            return_arg=returned,
            return_arg_action=_owner_action(fields, returned),
            ignore_call_not_found=ignored(fields, "callNotFound"),
            **self.common(fields, index, hook),
        )

    def _check_call(self, fields: Fields, call: str, syscall: bool) -> None:
        if not fields.given("call"):
            return
        if call.startswith("list:"):
            name = call.removeprefix("list:")
            if name not in self.policy.lists:
                fields.fail(
                    f"list {quoted(name)} is not in spec.lists",
                    "call",
                    ", ".join(sorted(self.policy.lists)),
                )
        elif not _FUNCTION.match(call) or len(call) > 255:
            fields.fail(
                f"{quoted(call)} is not the name of a function",
                "call",
                "a function, a system call as sys_openat, or list:NAME",
            )
        elif syscall and not call.startswith(SYSCALL_PREFIXES):
            how = "true" if fields.has("syscall") else "true by default"
            fields.fail(
                f"{call} is not a system call, and syscall is {how}",
                "call",
                f"sys_{call} for the system call, or syscall: false for the function",
            )

    def tracepoint(self, node: Node, path: str, index: int) -> Tracepoint:
        """Return an element of tracepoints."""
        fields = Fields(self.report, node, path, _TRACEPOINT, required=("subsystem", "event"))
        for key in ("subsystem", "event"):
            text = fields.text(key)
            if fields.given(key) and not _EVENT.match(text):
                fields.fail(f"{quoted(text)} is not a name in tracefs", key)
        raw = fields.flag("raw")
        self._check_sampling(fields)
        hook = HookContext(self.policy, HookKind.TRACEPOINT, raw=raw)
        return Tracepoint(
            subsystem=fields.text("subsystem"),
            event=fields.text("event"),
            raw=raw,
            sample_frequent=fields.flag("sampleFrequent"),
            **self.common(fields, index, hook),
        )

    def _check_sampling(self, fields: Fields) -> None:
        if not fields.has("sampleFrequent"):
            return
        if not self.policy.own_api:
            message = "Tetragon has no sampleFrequent"
            fields.fail(message, "sampleFrequent", f"apiVersion: {OWN_API}")
        elif (fields.text("subsystem"), fields.text("event")) != ("raw_syscalls", "sys_enter"):
            message = "only calls of raw_syscalls/sys_enter can be sampled"
            fields.fail(message, "sampleFrequent", "subsystem: raw_syscalls, event: sys_enter")

    def usdt(self, node: Node, path: str, index: int) -> Usdt:
        """Return an element of usdts."""
        required = ("path", "provider", "name")
        fields = Fields(self.report, node, path, _USDT, required=required)
        for key in required:
            fields.not_empty(key)
        return Usdt(
            path=check_path(fields, "path"),
            provider=fields.text("provider"),
            name=fields.text("name"),
            btf_path=check_path(fields, "btfPath"),
            **self.common(fields, index, HookContext(self.policy, HookKind.USDT)),
        )

    def lsm(self, node: Node, path: str, index: int) -> Lsm:
        """Return an element of lsmhooks."""
        fields = Fields(self.report, node, path, _LSM, required=("hook",))
        name = fields.text("hook")
        if fields.given("hook"):
            for prefix in ("security_", "bpf_lsm_"):
                if name.startswith(prefix):
                    bare = name.removeprefix(prefix)
                    fields.fail(f"the name has no prefix: write {bare}", "hook")
            if not _FUNCTION.match(name):
                fields.fail(
                    f"{quoted(name)} is not the name of an LSM hook", "hook", "file_open, ..."
                )
        context = HookContext(self.policy, HookKind.LSM)
        return Lsm(hook=name, **self.common(fields, index, context))


def read_return(fields: Fields, kind: HookKind) -> tuple[bool, Argument | None]:
    """Return ``return`` and ``returnArg``."""
    returns, node = fields.flag("return"), fields.entries.get("returnArg")
    if node is None:
        if returns:
            fields.fail("return: true needs returnArg", "return")
        return returns, None
    if not returns:
        fields.doubt("without return: true it has no effect", "returnArg")
    role = Role(kind, "returnArg" if returns else "unused")
    returned = read_argument(fields.report, node, f"{fields.path}.returnArg", role)
    return returns, returned if returns else None


def _owner_action(fields: Fields, returned: Argument | None) -> ActionKind | None:
    text = fields.text("returnArgAction")
    if not text:
        return None
    kind = _OWNER.get(text.lower())
    if kind is None:
        fields.fail(
            f"{quoted(text)} is not an action on returned values",
            "returnArgAction",
            "TrackSock, UntrackSock; Post is the default",
        )
    elif returned and returned.type not in _SOCKETS:
        fields.fail(
            f"{kind.value} needs a returnArg of type sock, not {returned.type.value}",
            "returnArgAction",
        )
    elif not fields.flag("return"):
        fields.fail(f"{kind.value} needs return: true", "returnArgAction")
    return kind


def ignored(fields: Fields, key: str) -> bool:
    """Return ``ignore.KEY``."""
    node = fields.entries.get("ignore")
    if node is None:
        return False
    return Fields(fields.report, node, f"{fields.path}.ignore", (key,)).flag(key)


def check_path(fields: Fields, key: str) -> str:
    """Return the path of a file; empty and NUL cannot be opened."""
    text = fields.text(key)
    if "\0" in text:
        fields.fail("a path has no NUL", key)
        return ""
    return text


def _message(fields: Fields) -> bytes:
    data = fields.text("message").encode(errors="surrogatepass")
    if len(data) == 1:
        fields.fail(
            "the text is too short", "message", f"{MIN_TEXT_BYTES} to {MAX_MESSAGE_BYTES} bytes"
        )
    if len(data) > MAX_MESSAGE_BYTES:
        fields.doubt(f"events have its first {MAX_MESSAGE_BYTES} bytes only", "message")
    return data[:MAX_MESSAGE_BYTES]


def _tags(fields: Fields) -> tuple[bytes, ...]:
    tags: list[bytes] = []
    for text, node in fields.texts("tags"):
        data = text.encode(errors="surrogatepass")
        if len(data) < MIN_TEXT_BYTES:
            message = f"{fields.path}.tags: {quoted(text)} is too short"
            fields.report.add(node.position, message, f"at least {MIN_TEXT_BYTES} bytes")
        if len(data) > MAX_TAG_BYTES:
            fields.doubt(f"events have its first {MAX_TAG_BYTES} bytes only", f"tags[{len(tags)}]")
        tags.append(data[:MAX_TAG_BYTES])
    if len(tags) > MAX_TAGS:
        fields.fail(f"{len(tags)} tags", "tags", f"at most {MAX_TAGS}")
    return tuple(tags)
