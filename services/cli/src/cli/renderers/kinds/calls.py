"""Events of policies in readable form: a call with its arguments, its result and its policy.

    -> openat(-100, /etc/passwd, 0) = 3 {files}
    -> tcp_connect(tcp 10.0.0.1:40000 > 1.1.1.1:443) {egress}

Nothing is escaped here: the renderer does that with whole texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cli.processes import parent_of, process_of
from cli.renderers.kinds.base import TopView, TreeView, name_of
from tetragon.bpf_pb2 import BpfCmd
from tetragon.capabilities_pb2 import CapabilitiesType
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import (
    KernelModule,
    KprobeAction,
    KprobeArgument,
    KprobeSkb,
    KprobeSock,
    Process,
    ProcessCredentials,
    UserNamespace,
)

if TYPE_CHECKING:
    from cli.renderers.pen import Pen
    from cli.renderers.ready.act import Act

_ABI_PREFIX = re.compile(r"^__(?:x64|arm64|ia32)_sys_")
_BYTES_SHOWN = 64
_PASSIVE = frozenset(
    {
        KprobeAction.KPROBE_ACTION_UNKNOWN,
        KprobeAction.KPROBE_ACTION_POST,
        KprobeAction.KPROBE_ACTION_TRACKSOCK,
        KprobeAction.KPROBE_ACTION_UNTRACKSOCK,
    }
)


def call(name: str, args: Iterable[KprobeArgument], result: str = "", policy: str = "") -> str:
    """Return ``-> NAME(ARGS) = RESULT {POLICY}``."""
    text = f"-> {short_name(name)}({', '.join(map(argument, args))})"
    if result:
        text += f" = {result}"
    return f"{text} {{{policy}}}" if policy else text


def short_name(name: str) -> str:
    """Return ``openat`` for ``__x64_sys_openat``, other names unchanged."""
    return _ABI_PREFIX.sub("", name)


def outcome(*actions: KprobeAction.ValueType) -> str:
    """Return the names of actions that did something to the process."""
    done = dict.fromkeys(action for action in actions if action not in _PASSIVE)
    return " ".join(_action(action) for action in done)


def _action(action: int) -> str:
    value = KprobeAction.DESCRIPTOR.values_by_number.get(action)
    return value.name.removeprefix("KPROBE_ACTION_") if value is not None else f"action {action}"


def argument(arg: KprobeArgument) -> str:
    """Return the value, behind its label if it has one."""
    member = arg.WhichOneof("arg")
    text = "?" if member is None else _TEXTS.get(member, str)(getattr(arg, member))
    return f"{arg.label}={text}" if arg.label else text


def _file(value: Any) -> str:
    if value.path:
        return f"{value.path}..." if value.flags else str(value.path)
    kinds = {"p": "pipe", "s": "socket", "d": "/", "c": "device"}
    return f"<{kinds.get(value.permission[:1], 'no name')}>"


def _bytes(value: bytes) -> str:
    return _shown(value, len(value))


def _truncated(value: Any) -> str:
    return _shown(value.bytes_arg, value.orig_size)


def _shown(data: bytes, size: int) -> str:
    text = data[:_BYTES_SHOWN].decode(errors="backslashreplace")
    return f'"{text}"... ({size} bytes)' if size > _BYTES_SHOWN else f'"{text}"'


def _flow(value: KprobeSock | KprobeSkb) -> str:
    protocol = value.protocol.removeprefix("IPPROTO_").lower()
    if value.family in ("AF_INET", "AF_INET6"):
        source, target = f"{value.saddr}:{value.sport}", f"{value.daddr}:{value.dport}"
        return f"{protocol} {source} > {target}"
    return value.family.removeprefix("AF_").lower() or protocol


def _skb(value: KprobeSkb) -> str:
    return f"{_flow(value)} {value.len} bytes"


def _address(value: Any) -> str:
    if value.family in ("AF_INET", "AF_INET6"):
        return f"{value.addr}:{value.port}"
    return str(value.family.removeprefix("AF_").lower()) or "?"


def _unix_address(value: Any) -> str:
    return str(value.path) or "unix"


def _credentials(value: ProcessCredentials) -> str:
    ids = f"uid {value.uid.value}"
    if value.euid.value != value.uid.value:
        ids += f" (effective {value.euid.value})"
    ids += f", gid {value.gid.value}"
    held = list(value.caps.effective)
    if len(held) >= len(CapabilitiesType.values()) - 1:
        return f"{ids}, all capabilities"
    known = CapabilitiesType.DESCRIPTOR.values_by_number  # a later kernel may have more
    names = [known[one].name if one in known else f"capability {one}" for one in held]
    return f"{ids}, {' '.join(names)}" if names else ids


def _user_namespace(value: UserNamespace) -> str:
    return "the host's" if value.ns.is_host else f"level {value.level.value}, {value.ns.inum}"


def _program(value: Any) -> str:
    kind = value.ProgType.removeprefix("BPF_PROG_TYPE_").lower()
    return f"{kind} {value.ProgName or '<no name>'}, {value.InsnCnt} instructions"


def _map(value: Any) -> str:
    kind = value.MapType.removeprefix("BPF_MAP_TYPE_").lower()
    return f"{kind} {value.MapName or '<no name>'}, {value.MaxEntries} entries"


def _perf_event(value: Any) -> str:
    kind = value.Type.removeprefix("PERF_TYPE_").lower()
    return f"{kind} {value.KprobeFunc}".rstrip()


def _module(value: KernelModule) -> str:
    unsigned = value.HasField("signature_ok") and not value.signature_ok.value
    return f"{value.name} (signature bad)" if unsigned else value.name


def _syscall(value: Any) -> str:
    from cli.renderers import syscalls

    return syscalls.describe(value.id, value.abi, ()).partition("(")[0]


def _command(value: int) -> str:
    known = BpfCmd.DESCRIPTOR.values_by_number.get(value)
    return known.name if known is not None else str(value)


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "file_arg": _file,
    "path_arg": _file,
    "linux_binprm_arg": _file,
    "bytes_arg": _bytes,
    "truncated_bytes_arg": _truncated,
    "sock_arg": _flow,
    "skb_arg": _skb,
    "sockaddr_arg": _address,
    "sockaddrun_arg": _unix_address,
    "process_credentials_arg": _credentials,
    "user_ns_arg": _user_namespace,
    "capability_arg": lambda value: value.name or str(value.value.value),
    "bpf_attr_arg": _program,
    "bpf_prog_arg": _program,
    "bpf_map_arg": _map,
    "perf_event_arg": _perf_event,
    "module_arg": _module,
    "net_dev_arg": lambda value: value.name,
    "syscall_id": _syscall,
    "bpf_cmd_arg": _command,
    "error_arg": lambda value: f"<{value.Message}>",
}


def act_of(body: Any) -> Act | None:
    """Return what an event of a ready-made policy says; None for every other event."""
    if not body.tags:
        return None
    from cli.renderers import ready

    return ready.act_of(body)


def compact_act(event: GetEventsResponse, act: Act, pen: Pen) -> str:
    """Return the compact line of an event of a ready-made policy."""
    process = process_of(event) or Process()
    outcome = (pen.red(act.outcome),) if act.outcome else ()
    return pen.line(event, process, act.emoji, act.word, pen.plain(act.what), *outcome)


def tree(tree: TreeView, event: GetEventsResponse) -> None:
    """Count the event at its process, that of a ready-made policy by what was done."""
    process = process_of(event)
    if process is None:
        return
    act = act_of(getattr(event, event.WhichOneof("event") or ""))
    tree.note(event, process, parent_of(event), act.word if act is not None else name_of(event))


def top(model: TopView, event: GetEventsResponse) -> None:
    """Count the event, that of a ready-made policy with its file or peer."""
    model.note(event)
    act = act_of(getattr(event, event.WhichOneof("event") or ""))
    if act is None:
        return
    if act.file:
        model.access("file", act.file, failed=bool(act.outcome))
    if act.peer:
        model.access("peer", act.peer, failed=bool(act.outcome))


def words(name: Callable[[Any], str]) -> dict[str, Callable[[GetEventsResponse], str]]:
    """Return the fields of --format that events of policies have; ``name`` names what was met."""

    def of_body(text: Callable[[Any], str]) -> Callable[[GetEventsResponse], str]:
        return lambda event: text(getattr(event, event.WhichOneof("event") or ""))

    return {
        "policy": of_body(lambda body: body.policy_name),
        "function": of_body(name),
        "args": of_body(lambda body: ", ".join(map(argument, body.args))),
        "action": of_body(lambda body: _action(body.action)),
    }
