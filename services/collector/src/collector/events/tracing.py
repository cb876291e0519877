"""Records of policies to serialized GetEventsResponse: process_kprobe and the other five kinds.

What the events of a hook have in common (names, message, tags, tags of fields, the function for
each argument) is encoded once, in a `Form`; an event is its form, the bytes of the process and its
parent as the process events have them, and the values. tests/unit compare each message with
protobuf's own parser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from collector.events import kernel_names, tracing_arguments
from collector.events.encoder import Encoder
from collector.events.stacks import Frame, StackResolver
from collector.events.tracing_arguments import Encode
from collector.policies.table import Argument, EventKind, Hook, LoadedPolicy
from collector.processes.table import Key, Process
from collector.records.values import LoaderRecord, TracingRecord
from tetragon import events_pb2, tetragon_pb2
from wire.write import DELIMITED, VARINT, message, tag, varint

_MESSAGES: dict[EventKind, Any] = {
    EventKind.KPROBE: tetragon_pb2.ProcessKprobe,
    EventKind.TRACEPOINT: tetragon_pb2.ProcessTracepoint,
    EventKind.UPROBE: tetragon_pb2.ProcessUprobe,
    EventKind.USDT: tetragon_pb2.ProcessUsdt,
    EventKind.LSM: tetragon_pb2.ProcessLsm,
    EventKind.LOADER: tetragon_pb2.ProcessLoader,
}
_ACTIONS = max(tetragon_pb2.KprobeAction.values()) + 1
# Of the event with which a policy reached its limit of signals and was switched to mode monitor.
FELL_BACK_TAG = b"enforcement:fell-back-to-monitor"
HEADS_MAX = 1024  # heads of events that are kept; above it all are dropped and made again

# The names of a machine's native and 32-bit system calls in SyscallId.
_ABIS = {"x86_64": ("x64", "i386"), "aarch64": ("arm64", "arm32")}


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What is the same in every event of one hook. Compared by identity."""

    event: bytes  # tag in GetEventsResponse
    process: bytes
    parent: bytes
    ancestors: bytes
    fixed: bytes  # fields that never change
    actions: tuple[bytes, ...]  # the action field, by number
    args: tuple[Encode, ...]
    data: tuple[Encode, ...] = ()
    returned: Encode | None = None
    return_actions: tuple[bytes, ...] = ()
    kernel_stack: bytes = b""
    user_stack: bytes = b""
    ima_hash: bytes = b""
    fell_back: bytes = b""  # one more of the tags


def form(policy: LoadedPolicy, hook: Hook, machine: str = "x86_64") -> Form:
    """Return the form of a hook's events."""
    kind = _MESSAGES[hook.kind]
    fields = kind.DESCRIPTOR.fields_by_name

    def field(name: str, wire_type: int = DELIMITED) -> bytes:
        return tag(fields[name].number, wire_type) if name in fields else b""

    encoders = _argument_encoders(hook.kind, machine)
    returned = None
    if hook.returned is not None:  # without a label, as in Tetragon
        # Of a uprobe it is the last argument.
        name = "return" if hook.kind is EventKind.KPROBE else "args"
        returned = encoders(field(name), Argument(hook.returned.type))
    actions = _numbers(field("action", VARINT)) if "action" in fields else ()
    return_actions = _numbers(field("return_action", VARINT)) if "return_action" in fields else ()
    response = events_pb2.GetEventsResponse.DESCRIPTOR.fields_by_name
    return Form(
        event=tag(response[hook.kind.value].number),
        process=field("process"),
        parent=field("parent"),
        ancestors=field("ancestors"),
        fixed=_fixed(kind, policy, hook),
        actions=actions,
        args=tuple(encoders(field("args"), argument) for argument in hook.args),
        data=tuple(encoders(field("data"), argument) for argument in hook.data),
        returned=returned,
        return_actions=return_actions,
        kernel_stack=field("kernel_stack_trace"),
        user_stack=field("user_stack_trace"),
        ima_hash=field("ima_hash"),
        fell_back=message(field("tags"), FELL_BACK_TAG) if "tags" in fields else b"",
    )


def _fixed(kind: Any, policy: LoadedPolicy, hook: Hook) -> bytes:
    facts = {
        "function_name": hook.function,
        "subsys": hook.subsystem,
        "event": hook.event,
        "path": hook.path,
        "symbol": hook.symbol,
        "offset": hook.offset,
        "ref_ctr_offset": hook.ref_ctr_offset,
        "provider": hook.provider,
        "name": hook.name,
        "policy_name": policy.name,
        "message": hook.message,
        "tags": hook.tags,
    }
    known = kind.DESCRIPTOR.fields_by_name
    encoded: bytes = kind(
        **{name: fact for name, fact in facts.items() if fact and name in known}
    ).SerializeToString()
    return encoded


def _numbers(field_tag: bytes) -> tuple[bytes, ...]:
    return (b"", *(field_tag + varint(number) for number in range(1, _ACTIONS)))


def _argument_encoders(kind: EventKind, machine: str) -> Callable[[bytes, Argument], Encode]:
    """Quirks of Tetragon: labels of tracepoints and uprobes, and bpf_cmd of uprobes, vanish."""
    if kind is EventKind.TRACEPOINT:
        syscall = tracing_arguments.syscall_with(*_ABIS.get(machine, (machine, machine)))
        return lambda field, argument: tracing_arguments.tracepoint_encoder(
            field, argument.type, syscall
        )
    if kind is EventKind.UPROBE:
        return lambda field, argument: tracing_arguments.encoder(
            field, "int" if argument.type == "bpf_cmd" else argument.type
        )
    return lambda field, argument: tracing_arguments.encoder(field, *argument)


class TracingEncoder:
    """Encodes the events of policies; shares the bytes of processes with the process events."""

    def __init__(self, encoder: Encoder, stacks: StackResolver) -> None:
        self._encoder = encoder
        self._stacks = stacks
        # By hook, process and thread; before each head what else it was made from.
        self._heads: dict[tuple[Form, Key, int], tuple[object, int, bytes | None, bytes]] = {}

    def event(
        self,
        form: Form,
        record: TracingRecord,
        offset_ns: int,
        process: Process | None,
        parent: Process | None,
        ancestors: Sequence[Process] = (),
    ) -> bytes:
        """Return the event of one call; ``offset_ns`` turns the boot clock into the calendar."""
        body = self._family(form, record, offset_ns, process, parent, ancestors)
        for encode, value in zip(form.args, record.args, strict=False):
            body.append(encode(value))
        if record.returned and form.returned is not None:
            body.append(form.returned(record.returned[0]))
        for encode, value in zip(form.data, record.data, strict=False):
            body.append(encode(value))
        if form.actions:
            body.append(form.actions[record.action])
        if form.return_actions:
            body.append(form.return_actions[record.return_action])
        if record.fell_back:
            body.append(form.fell_back)
        if record.kernel_stack and form.kernel_stack:
            body += _frames(form.kernel_stack, self._stacks.kernel(record.kernel_stack))
        if record.user_stack and form.user_stack:
            frames = self._stacks.user(record.pid, record.image_ktime_ns, record.user_stack)
            body += _frames(form.user_stack, frames)
        if record.ima_hash is not None and form.ima_hash:
            body.append(_ima_hash(form.ima_hash, *record.ima_hash))
        return self._encoder.response(form.event, b"".join(body), record.ktime_ns + offset_ns)

    def loader_event(
        self,
        form: Form,
        record: LoaderRecord,
        offset_ns: int,
        process: Process | None,
        parent: Process | None,
        ancestors: Sequence[Process] = (),
    ) -> bytes:
        """Return a process_loader event. Unlike Tetragon's it always has a time."""
        body = self._family(form, record, offset_ns, process, parent, ancestors)
        body.append(tracing_arguments.text(b"\x12", record.path))
        if record.build_id:
            body.append(message(b"\x1a", record.build_id))
        return self._encoder.response(form.event, b"".join(body), record.ktime_ns + offset_ns)

    def _family(
        self,
        form: Form,
        record: TracingRecord | LoaderRecord,
        offset_ns: int,
        process: Process | None,
        parent: Process | None,
        ancestors: Sequence[Process],
    ) -> list[bytes]:
        encoder = self._encoder
        above = None if parent is None else encoder.process(parent)
        if process is None:
            unknown = not record.image_ktime_ns  # the kernel side did not know it either
            start_ns = record.image_ktime_ns or record.start_boottime_ns
            own = encoder.bare_process(record.pid, start_ns + offset_ns, "unknown" * unknown)
            head = _head(form, own, above)
        elif isinstance(record, LoaderRecord):  # Tetragon makes no copy there
            head = _head(form, encoder.process(process), above)
        else:
            head = self._head_of_thread(form, process, record.tid, above)
        return [head, *(message(form.ancestors, encoder.process(one)) for one in ancestors)]

    def _head_of_thread(self, form: Form, process: Process, tid: int, above: bytes | None) -> bytes:
        """Return the head of an event of a thread, which most often has just had another one."""
        key = form, process.key, tid
        # Compared by identity: the encoder keeps the bytes of a process until they change.
        own, references = self._encoder.cached(process), process.references
        known = self._heads.get(key)
        if known is not None and known[0] is own and known[1] == references and known[2] is above:
            return known[3]
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        head = _head(form, self._encoder.thread_copy(process, tid), above)
        self._heads[key] = own, references, above, head
        return head


def _head(form: Form, own: bytes, above: bytes | None) -> bytes:
    """Return what an event begins with: its process, the parent, and what never changes."""
    if above is None:
        return b"".join((form.process, varint(len(own)), own, form.fixed))
    return b"".join(
        (form.process, varint(len(own)), own, form.parent, varint(len(above)), above, form.fixed)
    )


_FRAME_ADDRESS, _FRAME_OFFSET = tag(1, VARINT), tag(2, VARINT)
_FRAME_SYMBOL, _FRAME_MODULE, _FRAME_BUILD_ID = tag(3), tag(4), tag(10000)


def _frames(field_tag: bytes, frames: Sequence[Frame]) -> list[bytes]:
    return [
        message(
            field_tag,
            tracing_arguments.number(_FRAME_ADDRESS, frame.address)
            + tracing_arguments.number(_FRAME_OFFSET, frame.offset)
            + tracing_arguments.text(_FRAME_SYMBOL, frame.symbol)
            + tracing_arguments.text(_FRAME_MODULE, frame.module)
            + (message(_FRAME_BUILD_ID, frame.build_id) if frame.build_id else b""),
        )
        for frame in frames
    ]


def _ima_hash(field_tag: bytes, algorithm: int, digest: bytes) -> bytes:
    if algorithm not in kernel_names.IMA_HASHES:
        return b""
    name, size = kernel_names.IMA_HASHES[algorithm]
    return message(field_tag, f"{name}:{digest[:size].hex()}".encode())
