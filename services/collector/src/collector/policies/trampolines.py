"""Functions whose types keep fentry programs away: these are hooked by kprobes."""

from __future__ import annotations

from collections.abc import Sequence

from collector.bpf.btf import Btf, BtfKind, FuncProto
from collector.policies.check import Host
from collector.policies.plan import FunctionArgument, PlannedArgument, Target

_BY_VALUE = (BtfKind.STRUCT, BtfKind.UNION)  # a word or two: kuid_t
_POINTED_TO = (*_BY_VALUE, BtfKind.VOID, BtfKind.FUNC_PROTO)


def why_no_trampoline(
    host: Host, targets: Sequence[Target], args: Sequence[PlannedArgument]
) -> str:
    """Return why fentry cannot serve all of the targets; empty if it can.

    Asks the kernel about functions with types that some kernels refuse, and about no other: a list
    can have thousands.
    """
    positions = {one.source.position for one in args if isinstance(one.source, FunctionArgument)}
    for target in targets:
        if target.module:
            continue  # the kernel answers when the policy is loaded
        proto = host.btf.func_proto(target.btf_id)
        read = {0} if target.syscall else positions
        wanted = tuple(sorted(one for one in read if one < len(proto.params)))
        if _doubtful(host.btf, proto, wanted) and (
            why := host.why_not_arguments(target.btf_id, wanted)
        ):
            return f"{target.attach}: {why}"
    return ""


def _doubtful(btf: Btf, proto: FuncProto, positions: Sequence[int]) -> bool:
    if any(btf.type(btf.strip(one.type)).kind in _BY_VALUE for one in proto.params):
        return True
    pointees = (btf.pointee(proto.params[one].type) for one in positions)
    return any(
        one is not None and btf.type(btf.strip(one)).kind not in _POINTED_TO for one in pointees
    )
