"""Policies of documents in the running kernel: loaded, replaced without a gap, removed, counted."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from collector.bpf.cache import BlobCache
from collector.bpf.objects import Objects
from collector.errors import ProbeError
from collector.events.encoder import Encoder
from collector.events.stacks import StackResolver
from collector.events.tracing import TracingEncoder, form
from collector.policies.backend import KernelBackend
from collector.policies.entry import Identity, State
from collector.policies.files import Document
from collector.policies.manager import PolicyManager
from collector.policies.planner import KernelPlans, Planner
from collector.policies.ready import ReadyPolicies
from collector.policies.table import PolicyTable
from collector.policies.translate import translate
from collector.records.tracing import decode_tracing
from support.calls import NUMBERS, PREFIX
from support.policies import BPF, arg, in_child, kernel, match, syscall_plan
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import KprobeArgument, ProcessKprobe
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import Selector
from tracingpolicy.types import ArgumentType

pytestmark = pytest.mark.kernel

EXIT = bytes.fromhex("9500000000000000")  # without a result, which the verifier refuses
OPENAT = NUMBERS["openat"]
ARGS = (
    arg(0, ArgumentType.INT),
    arg(1, ArgumentType.STRING, label="file"),
    arg(2, ArgumentType.INT),
)


def parse(text, file):
    """A policy on openat: NAME PREFIX..., a selector for each prefix."""
    name, *prefixes = text.split()
    selectors = tuple(
        Selector(args=(match(1, Operator.PREFIX, prefix.encode()),)) for prefix in prefixes
    )
    policy = syscall_plan("openat", OPENAT, ARGS, selectors).policy
    return replace(policy, name=name, file=file)


def plan(policy):
    if policy.name == "impossible":
        raise ProbeError("plan: no way to attach")
    (hook,) = policy.kprobes
    made = syscall_plan("openat", OPENAT, hook.args, hook.selectors)
    return replace(made, policy=policy, hooks=(replace(made.hooks[0], hook=hook),))


@pytest.fixture
async def manager(policies, tmp_path):
    objects = Objects(BlobCache(tmp_path / "objects"), "test", BPF)
    table = PolicyTable()
    backend = KernelBackend(
        Planner(lambda: KernelPlans(plan, plan, partial(translate, kernel=kernel()))),
        policies.shared,
        objects,
        ReadyPolicies(objects.cache, "test", BPF),
    )
    manager = PolicyManager(backend, table, parse)
    policies.ring.drain()
    yield manager
    await manager.close()


def documents(**texts):
    return [Document(Path(f"/p/{name}.yaml"), text) for name, text in texts.items()]


def open_all(*paths):
    for path in paths:
        with suppress(OSError):
            os.close(os.open(path, os.O_RDONLY))


def records(policies, pid):
    return [one for one in drained(policies) if one.pid == pid]


def drained(policies):
    found = []
    while some := policies.ring.drain():
        found += map(decode_tracing, some)
    return found


async def test_a_call_becomes_a_complete_event(manager, policies):
    await manager.set_documents(documents(a="files /etc/pass"))
    pid = in_child(lambda: open_all("/etc/passwd", "/etc/group"))
    (record,) = records(policies, pid)
    policy = manager.table.get(record.policy, record.revision)
    encoder = TracingEncoder(Encoder("n"), StackResolver())
    wire = encoder.event(form(policy, policy.hooks[record.hook]), record, 0, None, None)
    wanted = ProcessKprobe(
        function_name=f"{PREFIX}openat",
        args=[
            KprobeArgument(int_arg=-100),
            KprobeArgument(string_arg="/etc/passwd", label="file"),
            KprobeArgument(int_arg=os.O_CLOEXEC),
        ],
        action="KPROBE_ACTION_POST",
        return_action="KPROBE_ACTION_POST",
        policy_name="files",
    )
    wanted.process.pid.value = pid
    wanted.process.flags = "unknown"
    wanted.process.start_time.FromNanoseconds(record.start_boottime_ns)
    event = GetEventsResponse.FromString(wire)
    assert event.process_kprobe == wanted
    assert event.time.ToNanoseconds() == record.ktime_ns


async def test_a_replacement_leaves_no_gap(manager, policies, tmp_path):
    await manager.set_documents(documents(a=f"files {tmp_path}"))
    program = (
        "import os, sys, time\n"
        "for n in range(10**9):\n"
        "    try: os.open(f'{sys.argv[1]}/{n}', 0)\n"
        "    except OSError: pass\n"
        "    time.sleep(0.0005)\n"
    )
    found = []

    async def read(pid):
        while True:  # compiling may take longer than the ring has room for
            found.extend(records(policies, pid))
            await asyncio.sleep(0.02)

    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command) as child:  # noqa: ASYNC220  # it starts at once
        reader = asyncio.create_task(read(child.pid))
        try:
            for number in range(12):  # a selector more each time: another text
                others = " ".join(f"/nothing/{n}" for n in range(number % 4))
                await manager.set_documents(documents(a=f"files {others} {tmp_path}"))
        finally:
            child.kill()
            reader.cancel()
    found += records(policies, child.pid)
    assert sum(manager.get(Identity("files")).counters().lost.values()) == 0
    opened = [int(os.path.basename(one.args[1])) for one in found]
    assert len(opened) > 50
    missing = set(range(min(opened), max(opened) + 1)) - set(opened)
    assert missing == set()
    assert len({one.revision for one in found}) > 4


async def test_a_policy_that_fails_leaves_the_others_alone(manager, policies):
    await manager.set_documents(documents(a="impossible /", b="files /etc/pass"))
    assert manager.get(Identity("impossible")).state is State.LOAD_ERROR
    assert manager.get(Identity("impossible")).error == "plan: no way to attach"
    pid = in_child(lambda: open_all("/etc/passwd"))
    assert len(records(policies, pid)) == 1


async def test_policies_loaded_together_do_not_disturb_each_other(
    manager, policies, tmp_path, monkeypatch
):
    """All hook one call, each has a program of its own there, and the kernel refuses one."""
    steps = KernelBackend._steps

    def refused(self, one):
        if one.ready.plan.policy.name == "p4":
            invalid = dict.fromkeys(one.ready.codes, EXIT)
            one = one._replace(ready=one.ready._replace(codes=invalid))
        return steps(self, one)

    monkeypatch.setattr(KernelBackend, "_steps", refused)
    files = {f"p{n}": tmp_path / str(n) for n in range(9)}
    await manager.set_documents(
        documents(**{name: f"{name} {path}" for name, path in files.items()})
    )
    errors = {entry.identity.name: entry.error for entry in manager.entries if entry.error}
    assert errors.keys() == {"p4"}
    assert "R0 !read_ok" in errors["p4"]
    pid = in_child(lambda: open_all(*files.values()))
    found = [(one.policy, one.revision) for one in records(policies, pid)]
    assert sorted(manager.table.get(*key).name for key in found) == sorted(files.keys() - {"p4"})
    await manager.set_documents([])
    assert not any(policies.shared.dispatcher.levels)
    assert not policies.shared.dispatcher._taken


async def test_a_removed_policy_reports_nothing(manager, policies):
    await manager.set_documents(documents(a="files /etc/pass", b="groups /etc/group"))
    await manager.set_documents(documents(b="groups /etc/group"))
    pid = in_child(lambda: open_all("/etc/passwd", "/etc/group"))
    assert [one.args[1] for one in records(policies, pid)] == [b"/etc/group"]


async def test_counters_of_selectors_continue_over_revisions(manager, policies, tmp_path):
    one, two, three = (f"{tmp_path}/{name}" for name in ("one", "two", "three"))
    await manager.set_documents(documents(a=f"files {one} {two}"))
    in_child(lambda: open_all(one, one, two, three))
    entry = manager.get(Identity("files"))
    counters = entry.counters()
    assert counters.selectors[0, 0].posted == 2
    assert counters.selectors[0, 1].posted == 1
    assert counters.filtered >= 1
    assert counters.memory_bytes > 4096
    assert sum(counters.lost.values()) == 0
    await manager.set_documents(documents(a=f"files {one} {two} {three}"))
    in_child(lambda: open_all(one, three))
    counters = entry.counters()
    assert [counters.selectors[0, n].posted for n in range(3)] == [3, 1, 1]


async def test_losses_are_counted_by_reason(manager, policies, tmp_path):
    path = tmp_path / "file"
    path.touch()
    await manager.set_documents(documents(a=f"files {path}"))
    entry = manager.get(Identity("files"))

    def fill():
        for _ in range(50_000):
            os.close(os.open(path, os.O_RDONLY))

    in_child(fill)
    counters = entry.counters()
    lost = counters.lost["ring full"]
    assert lost > 0
    read = sum(one.policy == entry.number for one in drained(policies))
    assert counters.total.posted == read
    assert read + lost == 50_000
    await manager.set_documents([])
    await manager.set_documents(documents(a=f"files {path}"))
    assert sum(manager.get(Identity("files")).counters().lost.values()) == 0


async def test_compiled_objects_are_kept(manager, policies, tmp_path):
    await manager.set_documents(documents(a="files /etc/pass"))
    await manager.set_documents([])
    kept = {file.name: file.read_bytes() for file in (tmp_path / "objects").iterdir()}
    assert len(kept) == 2  # the object, and the policy that is ready
    await manager.set_documents(documents(a="files /etc/pass"))
    assert {f.name: f.read_bytes() for f in (tmp_path / "objects").iterdir()} == kept
    pid = in_child(lambda: open_all("/etc/passwd"))
    assert len(records(policies, pid)) == 1


async def test_many_policies_are_compiled_side_by_side(manager, policies):
    texts = {f"p{n}": f"policy-{n} /etc/pass" + str(n) * 3 for n in range(6)}
    await manager.set_documents(documents(**texts))
    assert {entry.state for entry in manager.entries} == {State.ENABLED}
    assert [entry.number for entry in manager.entries] == [2, 3, 4, 5, 6, 7]
