"""Policies as users write them, by their workloads, as whole messages in JSON."""

import os

import pytest

from collector.policies.plan import Mechanism
from support.policies import in_child
from support.policy_library import CASES, CAT, TRUE, prepare
from support.policy_node import facts, host

pytestmark = pytest.mark.kernel
_FUNCTIONS = (Mechanism.FENTRY, Mechanism.KPROBE, Mechanism.KPROBE_MULTI)


REGISTER = {"x86_64": "rsi", "aarch64": "x1"}[os.uname().machine]


def document(case, folder):
    """Return the case's policy for its folder and this machine."""
    names = {"FOLDER": folder, "TRUE": TRUE, "CAT": CAT, "REGISTER": REGISTER}
    spec = case.spec
    for name, value in names.items():
        spec = spec.replace(name, str(value))
    return spec


def is_new(event, earlier):
    """Whether no earlier event has as many arguments."""
    return all(len(event["args"]) != len(one["args"]) for one in earlier)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
async def test_policy(node, tmp_path, case):
    if case.functions and all(host().why_not(one, False) for one in _FUNCTIONS):
        pytest.skip("this kernel lets nothing hook functions")
    prepare(tmp_path)
    await node.load(document(case, tmp_path), case.state)
    wanted = case.events(tmp_path)
    pid = in_child(lambda: case.workload(tmp_path))
    found = [facts(event) for event in node.events(pid, len(wanted))]
    if case.repeated:
        found = [one for n, one in enumerate(found) if is_new(one, found[:n])]
    if not case.ordered:
        found, wanted = (
            sorted(one, key=lambda event: len(event["args"])) for one in (found, wanted)
        )
    assert found == wanted
