"""What policies share: bits of lists of binaries and of filters on workloads, the kept ones."""

import pytest

from collector.bpf.cache import BlobCache
from collector.errors import ProbeError
from collector.policies.counters import Counters
from collector.policies.groups import GROUPS_MAX, Groups, Workload
from collector.policies.images import LISTS_MAX, BinaryList, Images
from collector.policies.plan import Mechanism
from collector.policies.plan_policy import plan_policy
from collector.policies.ready import Ready, ReadyPolicies
from collector.policies.translation import Generated, Translation
from support.policies import BPF
from support.policy_kernel import host
from tracingpolicy import parse
from tracingpolicy.operators import Operator


def binaries(number):
    return BinaryList(Operator.IN, (b"/bin/%d" % number,))


def test_a_refused_policy_leaves_the_lists_of_others(monkeypatch):
    monkeypatch.setattr(Images, "_start", lambda *_: None)
    monkeypatch.setattr(Images, "_write_lists", lambda _: None)
    images = Images()
    loaded = [binaries(number) for number in range(LISTS_MAX - 4)]
    masks = images.acquire(loaded, {}, [], {})
    with pytest.raises(ProbeError, match="lists of binaries"):
        images.acquire([loaded[0], *(binaries(1000 + n) for n in range(10))], {}, [], {})
    more = images.acquire([binaries(2000 + n) for n in range(4)], {}, [], {})
    assert len({*masks, *more}) == LISTS_MAX


def test_a_refused_policy_takes_no_filters():
    groups = Groups()
    masks = groups.acquire([Workload(namespace=str(n)) for n in range(GROUPS_MAX - 4)])
    for attempt in range(3):
        with pytest.raises(ProbeError, match="filters on containers"):
            groups.acquire([Workload(namespace=f"{attempt}.{n}") for n in range(10)])
    more = groups.acquire([Workload(namespace=f"more{n}") for n in range(4)])
    assert len({*masks, *more}) == GROUPS_MAX


def test_a_kept_policy_of_a_file_whose_name_is_not_utf8(tmp_path):
    text = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: x}\nspec: {}\n"
    kept = ReadyPolicies(BlobCache(tmp_path / "objects"), "test", BPF)
    assert kept.read(parse(text, "caf\udce9.yaml")) is None


def test_the_functions_of_all_calls_are_kept_with_a_policy(tmp_path):
    text = """apiVersion: tetra.io/v1
kind: TracingPolicy
metadata: {name: x}
spec:
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    sampleFrequent: true
    args: [{index: 4, type: uint64}]
    selectors: [{matchArgs: [{args: [0], operator: First}]}]
"""
    policy = parse(text, "x.yaml")
    plan = plan_policy(policy, host())
    (target,) = plan.hooks[0].targets
    made = Generated("hook0", plan.hooks[0].entry, (target,), (0,))
    kept = ReadyPolicies(BlobCache(tmp_path / "objects"), "test", BPF)
    counters = Counters.of(1, 1)
    translation = Translation("", "", (made,), (), (), counters, (), (), None, False, (0,))
    kept.write(policy, Ready(plan, translation, {"hook0": b""}))
    found = kept.read(policy)
    assert found is not None
    assert found.translation.programs[0].mechanism is Mechanism.CALL_FUNCTIONS
    assert found.translation.programs[0].targets[0].calls == target.calls
    assert found.translation.programs[0].targets[0].functions == target.functions
