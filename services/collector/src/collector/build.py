"""Builds a collector: each stage once, in the order in which data passes through them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog
from nats.aio.client import Client

from collector import running
from collector.attach import Attached, attach
from collector.bpf import kernel
from collector.bpf.pace import Pace
from collector.bpf.reader import RingReader
from collector.clock import wall_offset_ns
from collector.collector import Collector, is_connected
from collector.control import Control
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from collector.events.encoder import Encoder
from collector.events.stacks import StackResolver
from collector.intake import Intake
from collector.losses import Losses
from collector.metadata.containers.catalog import Catalog
from collector.metadata.containers.sockets import engines
from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.metadata.users import Users
from collector.pipeline import Pipeline
from collector.policies import saved as saved_policies
from collector.policies.explain import Explainer
from collector.policies.manager import PolicyManager
from collector.policies.service import PolicyService, parse, policy_service
from collector.policies.spared import own_pid
from collector.policies.table import EventKind
from collector.pressure import Pressure
from collector.processes.procfs import host_namespaces, read_all
from collector.processes.table import ProcessTable
from collector.recovery import state
from collector.recovery.journal import LIMIT_BYTES, Journal
from collector.recovery.replay import Recovered, recover
from collector.recovery.saver import Saver
from collector.recovery.versions import records_version
from collector.requests import Requests
from collector.sensors.registry import Parts, PolicyParts, sensors
from collector.sensors.throttle import Throttled
from collector.sensors.tracing import TracingStatistics
from collector.settings import Settings
from collector.throttle import Throttle, Withheld
from tetragon.sensors_pb2 import TracingPolicyStatus

if TYPE_CHECKING:
    from collector.kubernetes.policies import KubernetesPolicies
    from collector.kubernetes.setup import Kubernetes
    from collector.metrics import Metrics

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Base:
    """What every stage is made from."""

    settings: Settings
    boot_id: str
    start_ns: int  # calendar clock
    kernel: kernel.KernelInfo
    containers: Catalog
    enricher: Enricher
    encoder: Encoder
    policies: PolicyParts
    api: Kubernetes | None = None
    throttled: Throttled = field(default_factory=Throttled)

    def new_table(self) -> ProcessTable:
        """Return an empty process table."""
        return ProcessTable(
            capacity=self.settings.process_cache_size,
            grace_s=self.settings.process_cache_gc_interval,
            with_ancestors="base" in self.settings.enable_ancestors.split(","),
            removed=self.encoder.forget,
        )

    def pipeline(self, table: ProcessTable) -> Pipeline:
        """Return a pipeline of all sensors that works on ``table``."""
        parts = Parts(table, self.enricher, self.encoder, self.policies, self.throttled)
        return Pipeline(sensors(parts))


@dataclass(frozen=True, slots=True)
class Storage:
    """What the collector keeps on disk."""

    spool: Spool
    journal: Journal


@dataclass(frozen=True, slots=True)
class Observed:
    """The process table, the pipeline on it, and the events of processes that ran before."""

    table: ProcessTable
    pipeline: Pipeline
    older: list[bytes]
    continued: Recovered | None  # the collector that these continue


async def build(settings: Settings) -> Collector:
    """Return a collector whose probes are attached and whose older processes are reported."""
    base = _base(settings)
    storage = _storage(settings)
    recovered = _recover(base, storage)
    attached = await attach(settings, base.kernel, recovered)
    own = Run(
        settings.node_name, base.boot_id, base.start_ns, probes_start_ns=attached.since_ns,
        least_base=recovered.next_base(base.boot_id) if recovered else 0,
    )  # fmt: skip
    observed = _observe(base, storage, attached, recovered)
    policies = policy_service(
        settings,
        base.policies.table,
        record=lambda revision: storage.journal.policy(saved_policies.to_message(revision)),
        kernel=base.kernel,
        shared=attached.probes.shared(),
        prepare_stacks=base.policies.stacks.prepare,
        boot_id=base.boot_id,
        containers=base.containers,
        make_resources=_kubernetes_policies(base),
    )
    published = PublisherStatistics()
    maps = attached.probes.throttle
    withheld = Withheld(maps.totals if base.settings.cgroup_rate and maps else None)
    losses = _losses(base, storage, attached, observed, policies, published, withheld)
    publisher = Publisher(
        own, settings.spool_memory_bytes, losses.counters, storage.spool, published,
        storage.journal.base,
    )  # fmt: skip
    publisher.publish(observed.older)
    base.policies.requests.open()
    saver = Saver(
        settings.state_dir, bool(settings.spool_disk_bytes), publisher, observed.pipeline,
        observed.table, base.encoder, losses, attached.probes.ring, storage.journal,
        base.policies.table, base.throttled,
    )  # fmt: skip
    losses.refresh()
    saver.save()  # before any event is published under this node's name
    return _collector(
        base, storage, attached, observed, policies, losses, publisher, saver, withheld
    )


def _collector(
    base: Base,
    storage: Storage,
    attached: Attached,
    observed: Observed,
    policies: PolicyService,
    losses: Losses,
    publisher: Publisher,
    saver: Saver,
    withheld: Withheld,
) -> Collector:
    connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    table, pipeline = observed.table, observed.pipeline
    intake = Intake(pipeline, publisher)
    feed = partial(intake.handle_made, storage.journal.made)
    throttle = _throttle(base, attached, policies, feed, withheld)
    pace = _pace(base.settings, attached)
    reader = RingReader(attached.probes.ring, intake.handle, pace, storage.journal.records)

    def clients_read() -> None:
        if pace.clients_read():
            reader.end_pause()

    control = Control(
        base.boot_id, base.kernel, publisher, table,
        partial(running.snapshot, table, base.encoder), losses,
        partial(_statuses, policies.manager), policies.status, policies.tries,
        base.settings.node_labels, Explainer(base.kernel).explain, clients_read,
    )  # fmt: skip

    def make_metrics() -> Metrics:
        from collector.metrics import Metrics  # where they are served

        return Metrics(
            pipeline, table, publisher, losses, partial(is_connected, connected),
            len(observed.older), policies.manager, base.policies.statistics, throttle,
        )  # fmt: skip

    return Collector(
        settings=base.settings,
        kernel=base.kernel,
        containers=base.containers,
        encoder=base.encoder,
        table=table,
        attached=attached,
        pipeline=pipeline,
        publisher=publisher,
        losses=losses,
        journal=storage.journal,
        intake=intake,
        reader=reader,
        saver=saver,
        policies=policies,
        control=control,
        make_metrics=make_metrics,
        throttle=throttle,
        connected=connected,
    )


def _statuses(
    manager: PolicyManager, node_name: str, domain: str = ""
) -> list[TracingPolicyStatus]:
    from collector.policies.report import statuses  # not at each start

    return statuses(manager, node_name, domain)


def _pace(settings: Settings, attached: Attached) -> Pace:
    longest_s = settings.max_read_delay_ms / 1000
    return Pace(attached.probes.ring.size_bytes, longest_s, Pressure(settings.procfs).sample)


def _base(settings: Settings) -> Base:
    start_ns = time.time_ns()
    info = kernel.detect(settings.cache_dir, settings.btf, settings.procfs)
    log.info(
        "kernel detected",
        release=info.release,
        machine=info.machine,
        cgroup=info.cgroup,
        features=" ".join(info.features),
    )
    api = _kubernetes(settings)
    containers = Catalog(
        engines(
            settings.docker_socket,
            settings.podman_socket,
            settings.cri_socket,
            settings.nri_socket,
        ),
        api.pods if api else None,
    )
    containers.start()
    enricher = _enricher(settings, containers)
    encoder = Encoder(settings.node_name, settings.cluster_name, enricher.host_namespaces)
    if api:
        api.node.listen(encoder.set_node_labels)
        api.node.start()
    return Base(
        settings, kernel.boot_id(), start_ns, info, containers, enricher, encoder,
        _policy_parts(settings, info.machine), api,
    )  # fmt: skip


def _kubernetes(settings: Settings) -> Kubernetes | None:
    if not settings.enable_k8s_api:
        return None
    from collector.kubernetes.setup import kubernetes  # only where it is enabled

    return kubernetes(settings)


def _kubernetes_policies(base: Base) -> Callable[[PolicyManager], KubernetesPolicies] | None:
    """Return the loader of the API server's policies; None if they are not enabled."""
    api, settings = base.api, base.settings
    if api is None or not settings.enable_tracing_policy_crd:
        return None
    from collector.kubernetes.policies import KubernetesPolicies

    name = settings.k8s_node_name
    return lambda manager: KubernetesPolicies(api.client, api.node, name, manager, parse)


def _enricher(settings: Settings, containers: Catalog) -> Enricher:
    return Enricher(
        host_namespaces=host_namespaces(settings.procfs),
        users=Users(settings.procfs),
        redactor=Redactor(settings.redaction_filters),
        containers=containers,
        procfs=settings.procfs,
        credentials=settings.enable_process_cred,
        namespaces=settings.enable_process_ns,
        environment=settings.enable_process_environment_variables,
        environment_names=frozenset(filter(None, settings.filter_environment_variables.split(","))),
        show_user=settings.username_metadata == "unix",
        argv=settings.enable_argv,
    )


def _policy_parts(settings: Settings, machine: str) -> PolicyParts:
    names = settings.enable_ancestors.split(",")
    statistics = TracingStatistics()
    return PolicyParts(
        stacks=StackResolver(settings.procfs, expose_addresses=settings.expose_stack_addresses),
        machine=machine,
        ancestors=frozenset(k for k in EventKind if k.value.removeprefix("process_") in names),
        statistics=statistics,
        requests=Requests(settings.request_hosts(), settings.policy_resolver, statistics.requests),
        own_pid=own_pid(settings.procfs),
    )


def _storage(settings: Settings) -> Storage:
    spool = Spool(settings.state_dir / "spool", settings.spool_disk_bytes, settings.spool_sync)
    spool.open(settings.node_name)
    limit_bytes = LIMIT_BYTES if settings.spool_disk_bytes else 0
    return Storage(spool, Journal(settings.state_dir / "journal", limit_bytes))


def _recover(base: Base, storage: Storage) -> Recovered | None:
    """Return where the previous collector of this node stopped, or None."""
    saved = state.read(base.settings.state_dir, base.settings.node_name)
    if saved is None:
        return None
    table = base.new_table()
    found = state.processes(saved, running.kernel_process(wall_offset_ns()))
    table.restore(found, time.monotonic())
    policies = base.policies.table
    ended_s = state.written_s(base.settings.state_dir)
    policies.restore(map(saved_policies.from_message, saved.policies))
    base.throttled.restore(saved.throttled)
    recovered = recover(
        saved, storage.journal.folder, records_version(), base.pipeline(table), table,
        storage.spool, policies,
    )  # fmt: skip
    if saved.boot_id == base.boot_id:  # a policy of an earlier boot ended with the machine
        policies.all_off_since(ended_s)
    return recovered


def _observe(
    base: Base, storage: Storage, attached: Attached, recovered: Recovered | None
) -> Observed:
    """Continue with the previous collector's table, or enter the processes that run now."""
    if recovered and attached.taken_over:
        return Observed(recovered.table, recovered.pipeline, [], recovered)
    table = base.new_table()
    pipeline = base.pipeline(table)
    # No process of an earlier boot is alive, even if pids and times agree.
    same_boot = recovered is not None and recovered.run.boot_id == base.boot_id
    known = list(recovered.table) if recovered and same_boot else []
    procfs = base.settings.procfs
    environment = base.settings.enable_process_environment_variables
    found = read_all(procfs, environment=environment)
    alive = state.still_alive(known, procfs)
    base.containers.wait_listed()
    bootstrap = running.Bootstrap(
        table, base.enricher, base.encoder, attached.probes.processes, procfs, wall_offset_ns()
    )
    older = bootstrap.run(found, alive, time.monotonic())
    return Observed(table, pipeline, older + pipeline.handle(attached.early), None)


def _losses(
    base: Base,
    storage: Storage,
    attached: Attached,
    observed: Observed,
    policies: PolicyService,
    published: PublisherStatistics,
    withheld: Withheld,
) -> Losses:
    spooled, passed = storage.spool.statistics, observed.pipeline.statistics
    tracing, table = base.policies.statistics, observed.table
    return Losses(
        attached.probes.lost,
        observed.pipeline.sensors,
        {
            "table_evictions": lambda: table.statistics.evictions,
            "spool": lambda: published.dropped + spooled.dropped,
            "oversized": lambda: published.oversized,
            "malformed_records": lambda: passed.malformed + tracing.malformed,
            "unknown_records": lambda: passed.unknown + tracing.unknown_policy,
        },
        noted=storage.journal.loss,
        continued=observed.continued.loss if observed.continued else None,
        more=policies.losses,
        withheld=withheld.totals,
    )


def _throttle(
    base: Base,
    attached: Attached,
    policies: PolicyService,
    feed: Callable[[bytes], None],
    withheld: Withheld,
) -> Throttle:
    settings, maps = base.settings, attached.probes.throttle
    life = None
    if settings.cgroup_rate and maps is not None:
        life = settings.cgroup_rate, maps, attached.probes.processes
    return Throttle(
        base.throttled,
        feed,
        withheld,
        life=life,
        policy_rate=settings.policy_cgroup_rate,
        policy_map=policies.rates,
        policy_name=base.policies.table.name_of,
        procfs=settings.procfs,
        environment=settings.enable_process_environment_variables,
    )
