"""What ListTracingPolicies shows of a node, and what is saved of its policy table."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import VerifierError
from collector.policies import saved
from collector.policies.files import Document
from collector.policies.manager import PolicyManager
from collector.policies.plan import HookState, HookStatus, Mechanism
from collector.policies.report import describe, statuses
from collector.policies.statistics import PolicyCounters, SelectorCounters
from collector.policies.table import Argument, EventKind, Hook, LoadedPolicy, PolicyTable
from tetra.v1.policy_pb2 import PolicyHook, PolicyRevision
from tetragon.sensors_pb2 import (
    TP_MODE_MONITOR_ONLY,
    TP_MODE_UNKNOWN,
    TP_STATE_ENABLED,
    TP_STATE_LOAD_ERROR,
    TracingPolicyStatus,
)
from tracingpolicy.model import (
    Fentry,
    Kprobe,
    Lsm,
    Policy,
    Symbol,
    Tracepoint,
    Uprobe,
    Usdt,
)
from tracingpolicy.position import Mistake, PolicyErrors
from tracingpolicy.selectors import Selector
from unit.collector.test_policy_manager import FakeBackend

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=8)
ARGUMENTS = st.lists(st.builds(Argument, TEXT, TEXT), max_size=3).map(tuple)
HOOKS = st.builds(
    Hook, st.sampled_from(EventKind), TEXT, TEXT, TEXT, TEXT, TEXT, U64, U64, TEXT, TEXT, TEXT,
    st.lists(TEXT, max_size=3).map(tuple), ARGUMENTS, ARGUMENTS,
    st.none() | st.builds(Argument, TEXT, TEXT),
)  # fmt: skip


@given(
    st.builds(
        LoadedPolicy,
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        TEXT,
        TEXT,
        TEXT,
        st.lists(HOOKS, max_size=3).map(tuple),
    )
)
def test_saved_table_is_loaded(policy):
    message = saved.to_message(policy)
    assert saved.from_message(message) == policy
    assert saved.from_bytes(message.SerializeToString()) == policy


@pytest.mark.parametrize(
    "data",
    [b"\xff", PolicyRevision(hooks=[PolicyHook()]).SerializeToString(), b"\x32\x03\x08\xe8\x07"],
)
def test_unknown_bytes_are_refused(data):
    with pytest.raises(ValueError, match="policy"):
        saved.from_bytes(data)


class Backend(FakeBackend):
    """Also knows counters."""

    totals = PolicyCounters()

    async def install(self, policy, number, revision):
        installation = await super().install(policy, number, revision)
        installation.counters = lambda: self.totals
        return installation


def policy(*kprobes, file=""):
    return Policy(name="files", kprobes=kprobes, file=file)


async def listed(backend, parsed, domain="", documents=("a.yaml",)):
    def parse(text, file):
        if isinstance(parsed, Exception):
            raise parsed
        return parsed

    manager = PolicyManager(backend, PolicyTable(), parse)
    await manager.set_documents([Document(Path("/p", name), name) for name in documents])
    return statuses(manager, "node-1", domain)


@pytest.mark.parametrize("parsed", [Policy(name="x", file="/p/caf\udce9.yaml"), PolicyErrors([])])
async def test_a_file_name_that_is_not_utf8_is_shown(parsed):
    (status,) = await listed(Backend(), parsed, documents=("caf\udce9.yaml",))
    assert status.details.file == "/p/caf\N{REPLACEMENT CHARACTER}.yaml"
    assert status.SerializeToString()


async def test_a_loaded_policy_is_shown_with_its_counters():
    kprobe = Kprobe(
        call="fd_install", syscall=False, index=0, selectors=(Selector(label="passwd"), Selector())
    )
    backend = Backend()
    backend.statuses = (
        HookStatus(hook=kprobe, state=HookState.LOADED, mechanisms=(Mechanism.FENTRY,)),
    )
    backend.totals = PolicyCounters(
        filtered=7,
        selectors={
            (0, 0): SelectorCounters(posted=5, not_posted=2, rate_limited=3),
            (0, 1): SelectorCounters(),
        },
        lost=Counter({"ring full": 4, "no scratch space": 0}),
        missed=1,
        runs=10,
        run_time_ns=1000,
        memory_bytes=4096,
    )
    (status,) = await listed(backend, policy(kprobe, file="/p/a.yaml"))
    wanted = TracingPolicyStatus(
        id=2,
        name="files",
        domain="static",
        sensors=["generic_kprobe"],
        enabled=True,
        state=TP_STATE_ENABLED,
        mode=TP_MODE_MONITOR_ONLY,
        kernel_memory_bytes=4096,
    )
    wanted.stats.action_counters.post, wanted.stats.action_counters.nopost = 5, 2
    one = wanted.stats.selector_action_counters.add(
        hook="kprobe:fd_install", selector_label="passwd"
    )
    one.hook_index.value = one.selector_index.value = 0
    one.action_counters.post, one.action_counters.nopost = 5, 2
    wanted.hook_statuses.add(
        section="kprobes", hook_description="fd_install", state="STATUS_LOADED"
    )
    details = wanted.details
    details.node_name, details.file, details.revision = "node-1", "/p/a.yaml", 1
    details.mechanisms.append("fentry")
    details.filtered, details.rate_limited, details.missed = 7, 3, 1
    details.lost["ring full"], details.runs, details.run_time_ns = 4, 10, 1000
    assert status == wanted


async def test_a_policy_that_failed_is_shown_with_its_reason():
    backend = Backend()
    backend.fail["files"] = VerifierError("p", "fentry", 22, "R1 invalid mem access")
    (status,) = await listed(backend, policy(Kprobe(call="x")))
    assert status.state == TP_STATE_LOAD_ERROR
    assert "R1 invalid mem access" in status.error
    assert status.mode == TP_MODE_UNKNOWN
    assert not status.HasField("stats")
    assert not status.enabled


async def test_a_file_without_a_policy_is_shown():
    error = PolicyErrors([Mistake("/p/a.yaml", 3, 7, "unknown key")])
    (status,) = await listed(Backend(), error)
    assert (status.name, status.state) == ("a.yaml", TP_STATE_LOAD_ERROR)
    assert status.error == "/p/a.yaml:3:7: unknown key"


async def test_the_domain_is_a_filter():
    assert await listed(Backend(), policy(Kprobe(call="x")), "grpc") == []
    assert len(await listed(Backend(), policy(Kprobe(call="x")), "static")) == 1


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (Kprobe(call="sys_read"), "kprobe:sys_read"),
        (Kprobe(call="list:x"), "kprobe:list:x"),
        (Fentry(call="fd_install"), "fentry:fd_install"),
        (Tracepoint(subsystem="s", event="e"), "tracepoint:s/e"),
        (Lsm(hook="file_open"), "lsm:file_open"),
        (Usdt(path="/b", provider="p", name="n"), "usdt:/b:p/n"),
        (Uprobe(path="/b", offsets=(1, 2)), "uprobe:/b:offsets=1,2"),
        (Uprobe(path="/b", addresses=(3,)), "uprobe:/b:addrs=3"),
        (
            Uprobe(path="/b", symbols=(Symbol("main", 0, "main"), Symbol("x", 4, "x+4"))),
            "uprobe:/b:main,x+4",
        ),
    ],
)
def test_hooks_have_tetragons_names(hook, text):
    assert describe(hook) == text
