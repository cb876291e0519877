"""Policies as users write them, by their workloads, as whole messages in JSON."""

import pytest

from collector.policies.plan import Mechanism
from support.policies import in_child
from support.policy_library import CASES, TRUE, prepare
from support.policy_node import facts, host

pytestmark = pytest.mark.kernel
_FUNCTIONS = (Mechanism.FENTRY, Mechanism.KPROBE, Mechanism.KPROBE_MULTI)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
async def test_policy(node, tmp_path, case):
    if case.functions and all(host().why_not(one, False) for one in _FUNCTIONS):
        pytest.skip("this kernel lets nothing hook functions")
    prepare(tmp_path)
    await node.load(case.spec.replace("FOLDER", str(tmp_path)).replace("TRUE", TRUE))
    wanted = case.events(tmp_path)
    pid = in_child(lambda: case.workload(tmp_path))
    found = node.events(pid, len(wanted))
    assert [facts(event) for event in found] == wanted
