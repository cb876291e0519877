"""What a node answers when it is asked what a policy would become: this kernel's own plan."""

import os

import pytest

from collector.bpf import kernel
from collector.policies.explain import MAX_DOCUMENT_BYTES, Explainer
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from tetra.v1.plans_pb2 import PlanOnNode

pytestmark = pytest.mark.kernel

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: files
spec:
  kprobes:
  - call: sys_openat
    args:
    - index: 1
      type: string
    selectors:
    - matchArgs: [{index: 1, operator: Equal, values: [/etc/passwd]}]
  tracepoints:
  - subsystem: sched
    event: sched_process_exec
    raw: true
"""


@pytest.fixture
def explainer(tmp_path):
    return Explainer(kernel.detect(tmp_path))


async def test_hooks_and_source_of_a_document(explainer):
    plan = await explainer.explain(PlanOnNode(yaml=DOCUMENT, with_source=True))
    assert (plan.error, list(plan.mistakes)) == ("", [])
    assert (plan.kernel, plan.machine) == (os.uname().release, os.uname().machine)
    opened, executed = plan.hooks
    assert opened.hook == "kprobe:sys_openat"
    assert opened.entry in ("fentry", "kprobe.multi", "kprobe", "raw_tracepoint sys_enter")
    assert opened.entry == "fentry" or opened.note.startswith("fentry: ")
    assert opened.target_count == len(opened.targets) >= 1
    assert all(target.endswith("sys_openat") for target in opened.targets)
    assert executed.hook == "tracepoint:sched/sched_process_exec"
    assert executed.entry in ("raw_tracepoint", "tp_btf")
    assert "int hook0(" in plan.source
    assert "policy files" in plan.source
    assert not (await explainer.explain(PlanOnNode(yaml=DOCUMENT))).source


async def test_mistakes_of_document_and_kernel_have_their_positions(explainer):
    wrong = DOCUMENT.replace("call: sys_openat", "call: sys_openit").replace("string", "strung")
    plan = await explainer.explain(PlanOnNode(yaml=wrong))
    assert [(one.line, one.column) for one in plan.mistakes] == [(7, 11), (10, 13)]
    assert "sys_openat" in plan.mistakes[0].allowed
    assert not plan.hooks


async def test_a_document_that_is_too_large_is_not_read(explainer):
    plan = await explainer.explain(PlanOnNode(yaml="#" * (MAX_DOCUMENT_BYTES + 1)))
    assert plan.error == f"document larger than {MAX_DOCUMENT_BYTES} bytes"
