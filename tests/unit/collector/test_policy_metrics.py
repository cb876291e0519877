"""Losses and metrics of policies, with Tetragon's names."""

from collections import Counter
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from collector.losses import Losses
from collector.policies.files import Document, PolicyFiles
from collector.policies.manager import PolicyManager
from collector.policies.service import LateBackend, PolicyService
from collector.policies.statistics import PolicyCounters, SelectorCounters
from collector.policies.table import EventKind, PolicyTable
from collector.sensors import tracing_metrics as metrics
from collector.sensors.tracing import TracingStatistics
from support.stages import NothingLost
from tetra.v1.node_pb2 import LossCounters
from tracingpolicy.model import Kprobe, Policy
from tracingpolicy.selectors import Selector
from unit.collector.test_policy_manager import FakeBackend


def parse(text, file):
    hook = Kprobe(call="fd_install", syscall=False, selectors=(Selector(label="all"),))
    return Policy(name=text, kprobes=(hook,), file=file)


async def loaded(*names):
    backend = FakeBackend()
    manager = PolicyManager(backend, PolicyTable(), parse)
    await manager.set_documents([Document(Path(name), name) for name in names])
    return manager, backend


async def test_metrics_have_tetragons_names():
    manager, backend = await loaded("files")
    backend.installed[0].counters = lambda: PolicyCounters(
        filtered=7,
        selectors={
            (0, 0): SelectorCounters(
                posted=5,
                not_posted=2,
                rate_limited=3,
                signal=6,
                monitor_signal=7,
                spared=8,
                missed=9,
                overwritten=2,
            )
        },
        lost=Counter({"ring full": 4}),
        missed=1,
        runs=10,
        run_time_ns=2_500_000_000,
        memory_bytes=4096,
    )
    manager.table.inactive_s["files", ""] = 3.5
    statistics = TracingStatistics()
    statistics.events["files", "kprobe:fd_install"] = 5
    statistics.kinds[EventKind.KPROBE] = 5

    class Registry(Collector):
        def collect(self):
            return metrics.collect(manager, statistics)

    text = generate_latest(Registry()).decode()
    where = 'policy="files",policy_namespace=""'
    hook = f'hook="kprobe:fd_install",hook_index="0",{where},selector_index="0"'
    for line in (
        'tetragon_tracingpolicy_loaded{state="enabled"} 1.0',
        'tetragon_tracingpolicy_loaded{state="load_error"} 0.0',
        'tetragon_tracingpolicy_loaded{state="skipped"} 0.0',
        'tetragon_policy_events_total{hook="kprobe:fd_install",policy="files"} 5.0',
        f"tetragon_tracingpolicy_kernel_memory_bytes{{{where}}} 4096.0",
        f"tetra_collector_policy_filtered_total{{{where}}} 7.0",
        f'tetra_collector_policy_lost_records_total{{{where},reason="ring full"}} 4.0',
        f"tetra_collector_policy_inactive_seconds_total{{{where}}} 3.5",
        'tetragon_missed_prog_probes_total{policy="files"} 1.0',
        f"tetragon_overhead_program_runs_total{{{where}}} 10.0",
        f"tetragon_overhead_program_seconds_total{{{where}}} 2.5",
    ):
        assert line in text, text
    selector = f'{{action="post",{hook},selector_label="all"}} 5.0'.replace('action="post",', "")
    assert f'tetragon_tracingpolicy_selector_actions_total{{action="post",{hook}' in text
    assert f"tetra_collector_policy_rate_limited_total{selector.replace('5.0', '3.0')}" in text
    labels = f'{hook},selector_label="all"}}'
    for line in (
        f'tetragon_tracingpolicy_selector_actions_total{{action="signal",{labels} 6.0',
        f'tetragon_tracingpolicy_selector_actions_total{{action="monitor_signal",{labels} 7.0',
        'tetragon_enforcer_missed_notifications_total{info="kprobe:fd_install",policy="files",'
        'reason="no_action"} 9.0',
        'tetragon_enforcer_missed_notifications_total{info="kprobe:fd_install",policy="files",'
        'reason="overwritten"} 2.0',
    ):
        assert line in text, text
    assert 'reason="spared"' in text
    assert ("PROCESS_KPROBE", "13", 5) in list(metrics.records(statistics))


async def test_losses_of_policies_are_kept_when_they_are_removed():
    manager, backend = await loaded("files", "other")
    service = PolicyService(PolicyFiles(), manager, None, None, None, LateBackend(None, None))
    assert service.losses() == {}
    backend.installed[0].losses = 4
    backend.installed[1].losses = 1
    assert service.losses() == {"policy:files:ring_full": 4, "policy:other:ring_full": 1}
    await manager.set_documents([Document(Path("other"), "other")])
    assert service.losses() == {"policy:files:ring_full": 4, "policy:other:ring_full": 1}
    await manager.set_documents([Document(Path(name), name) for name in ("files", "other")])
    backend.installed[2].losses = 2
    assert service.losses()["policy:files:ring_full"] == 6


def test_counts_of_a_cause_continue_after_a_pause():
    now, noted = {}, []
    before = LossCounters(by_cause={"policy:files:ring_full": 3, "spool": 1})
    losses = Losses(NothingLost(), (), {"spool": lambda: 2}, noted.append, before, lambda: now)
    losses.refresh()
    assert losses.counters().by_cause == {"policy:files:ring_full": 3, "spool": 3}
    now["policy:files:ring_full"] = 4
    now["policy:other:ring_full"] = 1
    losses.refresh()
    assert losses.counters().by_cause == {
        "policy:files:ring_full": 7,
        "policy:other:ring_full": 1,
        "spool": 3,
    }
    assert noted[-1] == losses.counters()
