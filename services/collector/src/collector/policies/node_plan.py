"""The plan of a document on this kernel, as the control request returns it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from collector.bpf.base import bpf_folder
from collector.bpf.btf import Btf
from collector.bpf.features import Features
from collector.bpf.maps import possible_cpus
from collector.policies.check import Host
from collector.policies.direct_reads import direct_reads
from collector.policies.plan import HookStatus, Plan, PlannedHook
from collector.policies.plan_policy import check_document
from collector.policies.report import describe
from collector.policies.translate import Kernel, translate
from tetra.v1 import plans_pb2 as pb
from tracingpolicy.position import PolicyErrors

_MAX_SOURCE_BYTES = 512 << 10  # an answer has to fit into a message of the bus
_TARGETS_SHOWN = 20


def node_plan(btf: Path, yaml: str, *, with_source: bool) -> pb.NodePlan:
    """Return the hooks or the mistakes of a document, with the C text where it is wanted."""
    types = Btf.vmlinux(btf)
    try:
        features = Features(types)
        plan = check_document(yaml, "policy", Host.of(features))
    except PolicyErrors as errors:
        return pb.NodePlan(mistakes=[
            pb.PolicyMistake(
                line=one.line, column=one.column, message=one.message, allowed=one.allowed
            )
            for one in errors.mistakes
        ])  # fmt: skip
    answer = pb.NodePlan(hooks=_hooks(plan))
    if with_source:
        kernel = Kernel(types, possible_cpus(), bpf_folder(), direct_reads(features))
        shown = translate(plan, kernel).shown
        answer.source = shown.encode()[:_MAX_SOURCE_BYTES].decode(errors="ignore")
    return answer


def _hooks(plan: Plan) -> Iterable[pb.PlannedHook]:
    """Yield every planned hook, then the hooks that have no target on this kernel."""
    by_hook: dict[tuple[object, int], HookStatus] = {
        (status.hook.kind, status.hook.index): status for status in plan.statuses
    }
    for planned in plan.hooks:
        status = by_hook.pop((planned.hook.kind, planned.hook.index), None)
        yield _hook(planned, status.missing if status else ())
    for status in by_hook.values():
        if not status.mechanisms:
            yield pb.PlannedHook(
                hook=describe(status.hook), note=status.note, missing=status.missing
            )


def _hook(planned: PlannedHook, missing: Iterable[str]) -> pb.PlannedHook:
    return pb.PlannedHook(
        hook=describe(planned.hook),
        entry=planned.entry.value,
        exit=planned.exit.value if planned.exit else "",
        targets=[target.name for target in planned.targets[:_TARGETS_SHOWN]],
        target_count=len(planned.targets),
        note=planned.note,
        missing=missing,
    )
