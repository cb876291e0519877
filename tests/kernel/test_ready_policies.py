"""Policies that are kept ready: loaded without planning, and never where they do not fit."""

import os
import pickle
from dataclasses import replace
from functools import partial

import pytest

from collector.bpf.cache import BlobCache
from collector.bpf.objects import Objects
from collector.errors import ProbeError, VerifierError
from collector.policies import ready
from collector.policies.backend import KernelBackend
from collector.policies.plan_policy import plan_policy
from collector.policies.planner import KernelPlans, Planner
from collector.policies.ready import ReadyPolicies
from collector.policies.translate import translate
from collector.records.tracing import decode_tracing
from support.policies import BPF, host, in_child, kernel
from tracingpolicy import parse
from tracingpolicy.values import Mode

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]  # compiles, maybe emulated

HEAD = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: kept}
spec:
"""
OPENAT = (
    HEAD
    + """\
      kprobes:
      - call: sys_openat
        syscall: true
        return: true
        args:
        - {index: 1, type: string, label: path}
        - {index: 2, type: int}
        returnArg: {index: 0, type: int}
        selectors:
        - matchArgs:
          - {index: 1, operator: Prefix, values: ["/none/"]}
          matchNamespaces:
          - {namespace: Pid, operator: In, values: ["host_ns"]}
    """
)
OTHERS = [
    """\
      kprobes:
      - call: sys_lseek
        syscall: true
        args: [{index: 0, type: fd}]
        selectors:
        - matchBinaries: [{operator: NotIn, values: ["/usr/bin/none"], followChildren: true}]
    """,
    """\
      kprobes:
      - call: sys_connect
        syscall: true
        args: [{index: 1, type: sockaddr}]
        selectors:
        - matchArgs: [{index: 1, operator: SAddr, values: ["10.0.0.0/8", "::1"]}]
    """,
    """\
      tracepoints:
      - subsystem: sched
        event: sched_process_exec
        raw: true
        args: [{index: 1, type: int}]
        selectors:
        - matchActions: [{action: Post, rateLimit: "1m"}]
    """,
]


def no_types():
    raise AssertionError("the kernel's types were read")


@pytest.fixture
def backend(policies, tmp_path):
    """What makes a backend with one cache, as each start of a collector does."""
    cache = BlobCache(tmp_path / "objects")

    def make(*, reads_types: bool) -> KernelBackend:
        plan = partial(plan_policy, host=host())
        return KernelBackend(
            Planner(
                (lambda: KernelPlans(plan, plan, partial(translate, kernel=kernel())))
                if reads_types
                else no_types
            ),
            policies.shared,
            Objects(cache, "test", BPF),
            ReadyPolicies(cache, "test", BPF),
        )

    return make


async def loaded_hooks(backend, text, **changed):
    """Load a policy and remove it; return its hooks and its counters' layout."""
    policy = replace(parse(text, "kept.yaml"), **changed) if changed else parse(text, "kept.yaml")
    await backend.prepare([policy])
    installed = await backend.install(policy, 7, 3)
    found = installed.loaded, installed.statuses, installed.counters().selectors.keys()
    await installed.remove()
    return found


@pytest.mark.parametrize("text", [OPENAT, *(HEAD + one for one in OTHERS)])
async def test_a_kept_policy_is_loaded_without_the_kernels_types(backend, text):
    first = await loaded_hooks(backend(reads_types=True), text)
    assert await loaded_hooks(backend(reads_types=False), text) == first


async def test_a_kept_policy_reports_what_a_new_one_does(backend, policies):
    def call():
        with pytest.raises(FileNotFoundError):
            os.open("/none/file", os.O_RDONLY)

    found = []
    for reads_types in (True, False):
        policy = parse(OPENAT, "kept.yaml")
        installed = await backend(reads_types=reads_types).install(policy, 7, 3)
        installed.switch(Mode.MONITOR)
        policies.ring.drain()
        pid = in_child(call)
        record = next(one for one in map(decode_tracing, policies.ring.drain()) if one.pid == pid)
        found.append((record.hook, record.args, record.returned))
        await installed.remove()
    assert found[0] == found[1]
    assert found[0][1] == (b"/none/file", os.O_CLOEXEC)


async def test_another_document_or_another_right_is_another_policy(backend, monkeypatch):
    await loaded_hooks(backend(reads_types=True), OPENAT)
    with pytest.raises(AssertionError, match="types were read"):
        await loaded_hooks(backend(reads_types=False), OPENAT.replace("/none/", "/nine/"))
    with pytest.raises(AssertionError, match="types were read"):
        await loaded_hooks(backend(reads_types=False), OPENAT, name="renamed")
    monkeypatch.setattr(ready, "_surroundings", lambda: ["fewer rights"])
    with pytest.raises(AssertionError, match="types were read"):
        await loaded_hooks(backend(reads_types=False), OPENAT)


async def test_a_kept_policy_that_cannot_be_loaded_is_planned_again(backend, monkeypatch):
    first = await loaded_hooks(backend(reads_types=True), OPENAT)
    changed = backend(reads_types=True)
    load, refused = changed._steps, []

    def refuse_first(*args):
        if not refused:
            refused.append(True)
            raise ProbeError("load: hook0: refused")
        return (yield from load(*args))

    monkeypatch.setattr(KernelBackend, "_steps", lambda _, *args: refuse_first(*args))
    assert await loaded_hooks(changed, OPENAT) == first
    assert refused


VARIANTS = (
    HEAD.replace("cilium.io/v1alpha1", "tetra.io/v1")
    + """\
  variants:
  - kprobes: [{call: sys_lseek, args: [{index: 0, type: int}]}]
  - kprobes: [{call: sys_close, args: [{index: 0, type: int}]}]
  - kprobes: [{call: sys_dup, args: [{index: 0, type: int}]}]
"""
)


def calls(installed):
    return [status.hook.call for status in installed.statuses]


@pytest.fixture
def refused(monkeypatch):
    """The calls that the kernel is to refuse; more are loaded."""
    names = {"sys_lseek", "sys_close"}
    load = KernelBackend._steps

    def refuse(self, one):
        hooks = one.ready.plan.hooks
        if {hook.hook.call for hook in hooks} & names:
            raise VerifierError(hooks[0].hook.call, "raw_tracepoint", 22, "too complex")
        return (yield from load(self, one))

    monkeypatch.setattr(KernelBackend, "_steps", refuse)
    return names


async def test_the_next_variant_is_loaded_where_the_kernel_refuses_one(backend, refused):
    policy = parse(VARIANTS, "kept.yaml")
    installed = await backend(reads_types=True).install(policy, 7, 3)
    assert calls(installed) == ["sys_dup"]
    await installed.remove()
    # It is kept: the next start does not try the others again.
    installed = await backend(reads_types=False).install(parse(VARIANTS, "kept.yaml"), 7, 3)
    assert calls(installed) == ["sys_dup"]
    await installed.remove()


async def test_the_first_refusal_is_the_error_where_no_variant_is_left(backend, refused):
    refused.add("sys_dup")
    with pytest.raises(VerifierError, match="load sys_lseek: "):
        await backend(reads_types=True).install(parse(VARIANTS, "kept.yaml"), 7, 3)


def test_a_kept_policy_calls_nothing(tmp_path):
    """Any content of the file becomes only values of the policies' own types."""
    kept = ReadyPolicies(BlobCache(tmp_path / "objects"), "test", BPF)
    policy = parse(OPENAT, "kept.yaml")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    kept.blobs.write(kept._key(policy), pickle.dumps(Evil()))
    assert kept.read(policy) is None
    assert not (tmp_path / "made").exists()
