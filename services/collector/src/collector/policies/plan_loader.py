"""``loader: true``: which files processes map to execute them, with their build ids.

perf_event_mmap_output() of kernel/events/core.c runs for every mapping and every perf event that
asked for them, with the path and, since "perf: Add build id data in mmap2 event" (v5.12), the build
id that the kernel read. Our own perf events are known by a number in their attributes.
"""

from __future__ import annotations

from collector.bpf.btf import BtfKind
from collector.bpf.mmap_events import MARK
from collector.errors import BtfError
from collector.policies.check import Checker, path_of
from collector.policies.plan import (
    Constant,
    FunctionArgument,
    HookState,
    HookStatus,
    Mechanism,
    PlannedArgument,
    PlannedHook,
    Source,
    Target,
)
from collector.policies.resolve import ResolveError, Root, resolve
from tracingpolicy.model import Argument, Loader, ResolveStep
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import ArgumentType

_FUNCTION = "perf_event_mmap_output"  # (struct perf_event *event, void *data)
_EVENT, _DATA = FunctionArgument(0), FunctionArgument(1)
_BUILD_ID_SIZE = 20  # BUILD_ID_SIZE_MAX of include/linux/buildid.h
_PROT_EXEC = 4
_T, _M = ArgumentType, Mechanism

# Where each value is: source, struct, path, type. `LoaderRecord.of` reads the first three.
_VALUES: tuple[tuple[Source, str, tuple[ResolveStep, ...], ArgumentType], ...] = (
    (_DATA, "perf_mmap_event", ("file_name",), _T.STRING),
    (_DATA, "perf_mmap_event", ("build_id",), _T.CHAR_BUF),
    (_DATA, "perf_mmap_event", ("build_id_size",), _T.UINT32),
    (_DATA, "perf_mmap_event", ("prot",), _T.UINT32),
    (_DATA, "perf_mmap_event", ("vma", "vm_file"), _T.UINT64),
    (_EVENT, "perf_event", ("attr", "config2"), _T.UINT64),
)
# Positions in _VALUES: executable, of a file, and of our own perf event.
_FILTERS = (
    ValueFilter(operands=(5,), operator=Operator.EQUAL, values=(MARK,)),
    ValueFilter(operands=(3,), operator=Operator.MASK, values=(_PROT_EXEC,)),
    ValueFilter(operands=(4,), operator=Operator.NOT_EQUAL, values=(0,)),
)


def plan_loader(checker: Checker, hook: Loader) -> tuple[tuple[PlannedHook, ...], HookStatus]:
    """Return the planned hook of ``loader``, and its status."""
    nothing = (), HookStatus(hook=hook, state=HookState.LOADED)
    function = checker.host.function(_FUNCTION)
    args = _arguments(checker) if function is not None else None
    if function is None or args is None:
        message = "this kernel reports no mappings with build ids (Linux 5.12)"
        checker.fail(hook.place, path_of(hook), message)
        return nothing
    pairs: list[tuple[Mechanism, Mechanism | None]] = [
        (one, None) for one in (_M.FENTRY, _M.KPROBE_MULTI, _M.KPROBE)
    ]
    chosen = checker.choose(hook, pairs, "loader")
    if chosen is None:
        return nothing
    entry, _, note = chosen
    target = Target(
        name="loader",
        attach=_FUNCTION,
        btf_id=function.proto.id,
        parameters=len(function.proto.params),
        mmap_events=True,
    )
    selected = Loader(
        args=tuple(one.argument for one in args),
        selectors=(Selector(args=_FILTERS),),
        place=hook.place,
    )
    planned = PlannedHook(hook=selected, entry=entry, targets=(target,), args=args, note=note)
    status = HookStatus(hook=hook, state=HookState.LOADED, mechanisms=(entry,), note=note)
    return (planned,), status


def _arguments(checker: Checker) -> tuple[PlannedArgument, ...] | None:
    """Return the values; None where this kernel's structs lack one."""
    try:
        return tuple(_argument(checker, *one) for one in _VALUES)
    except (BtfError, ResolveError):
        return None


def _argument(
    checker: Checker,
    source: Source,
    struct: str,
    path: tuple[ResolveStep, ...],
    kind: ArgumentType,
) -> PlannedArgument:
    btf = checker.host.btf
    number = btf.find(struct, BtfKind.STRUCT)
    if number is None:
        raise ResolveError(f"there is no struct {struct}")
    way, _ = resolve(Root(btf, number), path, kind)
    length = Constant(_BUILD_ID_SIZE) if kind is _T.CHAR_BUF else None
    argument = Argument(index=0, type=kind, resolve=path)
    return PlannedArgument(argument=argument, type=kind, source=source, resolved=way, length=length)
