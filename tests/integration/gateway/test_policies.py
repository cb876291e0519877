"""Policies of the fleet through a real gateway and NATS, on nodes without a kernel."""

import time

import grpc
import pytest
from prometheus_client import generate_latest

from collector.policies import kept
from support.fleet import by_node, document
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetragon import sensors_pb2 as tetragon
from tetragon.sensors_pb2 import TP_MODE_ENFORCE, TP_MODE_MONITOR

LONG_S = 30


@pytest.fixture
async def nodes(start_nodes):
    """Three nodes that are alive."""
    return await start_nodes(
        "n1", "n2", "n3", options=lambda name: {"labels": {"zone": "a" if name == "n1" else "b"}}
    )


def ref(name="one", domain=""):
    return pb.PolicyRef(name=name, domain=domain)


async def refusal(call):
    """Return code and text of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


def active(nodes):
    return {name: nodes.nodes[name].active() for name in nodes.running}


EVERYWHERE = {"grpc:one": ("fd_install", "enforce")}
NOWHERE: dict[str, dict[str, tuple[str, str]]] = {"n1": {}, "n2": {}, "n3": {}}


async def test_policy_is_on_everywhere_when_the_answer_comes(nodes, policies):
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    assert change.error == ""
    assert change.revision == 1
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)
    found = by_node(change.nodes)
    assert set(found) == {"n1", "n2", "n3"}
    for node in found.values():
        assert node.revision == node.seen == 1
        assert node.state == tetragon.TP_STATE_ENABLED
        assert [(hook.hook, list(hook.mechanisms)) for hook in node.hooks] == [
            ("kprobe:fd_install", ["fentry"])
        ]


async def test_one_node_that_cannot_load_it_keeps_it_off_everywhere(nodes, policies):
    nodes.nodes["n2"].refused.add("fd_install")
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    assert change.error == (
        "policy grpc:one: not carried out: node n2: there is no function 'fd_install'"
    )
    assert by_node(change.nodes)["n2"].error == "there is no function 'fd_install'"
    await eventually(lambda: not any(node.installed for node in nodes.nodes.values()))
    assert not any(mode != "off" for node in nodes.nodes.values() for _, mode in node.log)
    assert not (await policies.ListPolicies(pb.ListPoliciesRequest())).policies


async def test_wherever_it_loads_leaves_it_on_the_others(nodes, policies):
    nodes.nodes["n2"].refused.add("fd_install")
    request = pb.AddPolicyRequest(yaml=document(), rollout=pb.ROLLOUT_WHEREVER)
    change = await policies.AddPolicy(request)
    assert change.error == ""
    assert by_node(change.nodes)["n2"].state == tetragon.TP_STATE_LOAD_ERROR
    assert active(nodes) == {"n1": EVERYWHERE, "n2": {}, "n3": EVERYWHERE}
    (listed,) = (await policies.ListPolicies(pb.ListPoliciesRequest())).policies
    assert listed.state == tetragon.TP_STATE_LOAD_ERROR
    assert listed.error == "node n2: there is no function 'fd_install'"
    assert (listed.selected, listed.done, listed.failed) == (3, 2, 1)


async def test_replacement_that_fails_leaves_the_revision_before(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    nodes.nodes["n3"].refused.add("vfs_read")
    request = pb.AddPolicyRequest(yaml=document(call="vfs_read"), replace=True)
    change = await policies.AddPolicy(request)
    assert "node n3: there is no function 'vfs_read'" in change.error
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)
    nodes.nodes["n3"].refused.clear()
    change = await policies.AddPolicy(request)
    assert (change.error, change.revision) == ("", 3)  # 2 was tried
    on = {"grpc:one": ("vfs_read", "enforce")}
    assert active(nodes) == dict.fromkeys(nodes.running, on)


async def test_new_revision_is_on_before_the_old_is_off(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(call="vfs_read"), replace=True))
    for node in nodes.nodes.values():
        assert node.log == [
            ("fd_install", "enforce"),
            ("vfs_read", "enforce"),
            ("fd_install", "off"),
        ]


async def test_selectors_choose_nodes_by_name_glob_and_label(nodes, policies):
    for name, selector, wanted in (
        ("a", pb.NodeSelector(names=["n2"]), {"n2"}),
        ("b", pb.NodeSelector(names=["n?"], except_names=["n3"]), {"n1", "n2"}),
        ("c", pb.NodeSelector(labels={"zone": "b"}), {"n2", "n3"}),
    ):
        change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(name), nodes=selector))
        assert change.error == ""
        assert set(by_node(change.nodes)) == wanted
        assert {n for n, on in active(nodes).items() if f"grpc:{name}" in on} == wanted
    selector = pb.NodeSelector(names=["n1"])
    change = await policies.ConfigurePolicy(
        pb.ConfigurePolicyRequest(policy=ref("c"), nodes=selector)
    )
    assert change.error == ""
    await eventually(lambda: [n for n, on in active(nodes).items() if "grpc:c" in on] == ["n1"])


async def test_delete_disable_enable_and_mode(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(action="Sigkill")))
    configure = policies.ConfigurePolicy
    change = await configure(pb.ConfigurePolicyRequest(policy=ref(), mode=TP_MODE_MONITOR))
    assert change.error == ""
    on = {"grpc:one": ("fd_install", "monitor")}
    assert active(nodes) == dict.fromkeys(nodes.running, on)
    assert len(nodes.nodes["n1"].installed) == 1  # nothing was loaded for it
    change = await configure(pb.ConfigurePolicyRequest(policy=ref(), enable=False))
    assert change.error == ""
    assert active(nodes) == NOWHERE
    assert {node.state for node in change.nodes} == {tetragon.TP_STATE_DISABLED}
    code, text = await refusal(configure(pb.ConfigurePolicyRequest(policy=ref(), enable=False)))
    assert (code, text) == (
        grpc.StatusCode.FAILED_PRECONDITION, "tracing policy one is not enabled",
    )  # fmt: skip
    change = await configure(pb.ConfigurePolicyRequest(policy=ref(), enable=True))
    assert change.error == ""
    assert active(nodes) == dict.fromkeys(nodes.running, on)
    change = await policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref()))
    assert change.error == ""
    assert active(nodes) == NOWHERE
    code, text = await refusal(policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref())))
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND, "tracing policy grpc:one does not exist",
    )  # fmt: skip


async def test_history_and_rollback_also_of_a_deleted_policy(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(), comment="first"))
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(call="vfs_read"), replace=True))
    await policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref()))
    request = pb.GetPolicyHistoryRequest(policy=ref(), with_yaml=True)
    found = (await policies.GetPolicyHistory(request)).revisions
    assert [(one.revision, one.deleted) for one in found] == [(3, True), (2, False), (1, False)]
    assert found[2].origin.comment == "first"
    assert "fd_install" in found[2].yaml
    change = await policies.RollbackPolicy(pb.RollbackPolicyRequest(policy=ref()))
    assert (change.error, change.revision) == ("", 4)
    on = {"grpc:one": ("vfs_read", "enforce")}
    assert active(nodes) == dict.fromkeys(nodes.running, on)
    change = await policies.RollbackPolicy(pb.RollbackPolicyRequest(policy=ref(), revision=1))
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)
    code, _ = await refusal(
        policies.RollbackPolicy(pb.RollbackPolicyRequest(policy=ref(), revision=9))
    )
    assert code == grpc.StatusCode.NOT_FOUND


async def test_node_that_was_away_has_it_soon_after_its_return(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    await nodes.stop("n2")
    request = pb.AddPolicyRequest(yaml=document("two"), rollout=pb.ROLLOUT_WHEREVER)
    adding = policies.AddPolicy(request)  # until the gateway knows that the node is away
    both = EVERYWHERE | {"grpc:two": ("fd_install", "enforce")}
    await eventually(lambda: active(nodes) == {"n1": both, "n3": both}, LONG_S)
    begin = time.monotonic()
    node = nodes.start("n2")
    await eventually(lambda: node.active() == both)
    print(f"policies {time.monotonic() - begin:.2f} s after the return")
    assert (await adding).error == ""


async def test_node_without_nats_keeps_its_last_policies(nodes, nats_server, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    await nodes.stop("n1")
    nats_server.stop()
    node = nodes.start("n1")
    await eventually(lambda: node.active() == EVERYWHERE, LONG_S)
    nats_server.start()
    await eventually(lambda: nodes.nodes["n2"].active() == EVERYWHERE, LONG_S)

    async def deleted():
        try:
            return await policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref()))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            return None

    await eventually(deleted, LONG_S, 0.2)
    await eventually(lambda: active(nodes) == NOWHERE, LONG_S)


async def test_node_that_stops_saves_its_policies_first(nodes, nats_server, policies, monkeypatch):
    save = kept.save

    def save_late(*arguments):
        time.sleep(1.0)  # as a busy disk
        save(*arguments)

    monkeypatch.setattr(kept, "save", save_late)
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    await nodes.stop("n1")
    nats_server.stop()
    node = nodes.start("n1")
    await eventually(lambda: node.active() == EVERYWHERE, LONG_S)


async def test_canary_runs_on_some_nodes_until_promoted(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    request = pb.AddPolicyRequest(
        yaml=document(call="vfs_read"), replace=True, canary=pb.Canary(percent=5)
    )
    change = await policies.AddPolicy(request)
    assert change.error == ""
    new = {"grpc:one": ("vfs_read", "enforce")}
    assert sorted(map(str, active(nodes).values())) == sorted(map(str, [EVERYWHERE] * 2 + [new]))
    (listed,) = (await policies.ListPolicies(pb.ListPoliciesRequest())).policies
    assert len(listed.candidate.running) == 1
    code, text = await refusal(policies.AddPolicy(request))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "a canary is in progress" in text
    nodes.nodes[next(n for n in nodes.running if n not in listed.candidate.running)].refused = {
        "vfs_read"
    }
    failed = await policies.PromotePolicy(pb.PromotePolicyRequest(policy=ref()))
    assert "there is no function 'vfs_read'" in failed.error
    (again,) = (await policies.ListPolicies(pb.ListPoliciesRequest())).policies
    assert again.candidate.running == listed.candidate.running
    for node in nodes.nodes.values():
        node.refused = set()
    change = await policies.PromotePolicy(pb.PromotePolicyRequest(policy=ref()))
    assert change.error == ""
    # A node may still report the failure of the first attempt, of that revision.
    assert change.revision == failed.revision + 1
    assert active(nodes) == dict.fromkeys(nodes.running, new)
    code, _ = await refusal(policies.PromotePolicy(pb.PromotePolicyRequest(policy=ref())))
    assert code == grpc.StatusCode.FAILED_PRECONDITION


async def test_aborted_canary_returns_to_what_was_before(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    await policies.AddPolicy(
        pb.AddPolicyRequest(
            yaml=document(call="vfs_read"), replace=True, canary=pb.Canary(percent=50)
        )
    )
    change = await policies.AbortPolicy(pb.AbortPolicyRequest(policy=ref()))
    assert change.error == ""
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)


async def test_canary_over_its_limit_ends_automatically(nodes, policies):
    request = pb.AddPolicyRequest(yaml=document(), canary=pb.Canary(percent=50, max_hits=100))
    await policies.AddPolicy(request)
    (name, _) = (name for name, on in active(nodes).items() if on)
    nodes.nodes[name].installed[0].posted = 101
    await eventually(lambda: not any(active(nodes).values()), LONG_S)

    async def ended():
        entries = [entry async for entry in policies.StreamAudit(pb.StreamAuditRequest(last=1))]
        return entries and entries[0].origin.action == pb.PolicyOrigin.ACTION_AUTO_ABORT and entries

    (entry,) = await eventually(ended)
    assert entry.error == f"node {name}: 101 hits exceed the limit of 100"


async def test_mode_does_not_depend_on_what_a_node_that_is_away_had(nodes, policies, gateway):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))  # it does not act
    await nodes.stop("n3")
    fleet = gateway.gateway.fleet

    async def is_away():
        await fleet.describe()
        return not next(info.alive for info in fleet.nodes() if info.node_name == "n3")

    await eventually(is_away, LONG_S)
    acting = pb.AddPolicyRequest(yaml=document(action="Sigkill"), replace=True)
    assert (await policies.AddPolicy(acting)).error == ""
    request = pb.ConfigurePolicyRequest(policy=ref(), mode=TP_MODE_MONITOR)
    request.timeout.seconds = LONG_S
    change = await policies.ConfigurePolicy(request)
    assert change.error == ""
    on = {"grpc:one": ("fd_install", "monitor")}
    assert [nodes.nodes[name].active() for name in ("n1", "n2")] == [on, on]


async def test_canary_in_another_mode_is_not_charged_with_earlier_hits(nodes, policies):
    await policies.AddPolicy(
        pb.AddPolicyRequest(yaml=document(action="Sigkill"), mode=TP_MODE_MONITOR)
    )
    for node in nodes.nodes.values():
        node.installed[0].posted = 500
    request = pb.AddPolicyRequest(
        yaml=document(action="Sigkill"), replace=True, mode=TP_MODE_ENFORCE,
        canary=pb.Canary(percent=5, max_hits=100),
    )  # fmt: skip
    assert (await policies.AddPolicy(request)).error == ""
    (name,) = (n for n, on in active(nodes).items() if on == EVERYWHERE)

    async def reported():
        (listed,) = (await policies.ListPolicies(pb.ListPoliciesRequest())).policies
        assert list(listed.candidate.running) == [name]
        return by_node(listed.nodes)[name].hits

    nodes.nodes[name].installed[0].posted = 600
    await eventually(lambda: is_equal(reported, 600), LONG_S)
    nodes.nodes[name].installed[0].posted = 601
    await eventually(lambda: EVERYWHERE not in active(nodes).values(), LONG_S)


async def is_equal(read, wanted):
    return await read() == wanted


async def test_try_runs_in_monitor_mode_until_the_client_leaves(nodes, policies):
    request = pb.TryPolicyRequest(yaml=document(action="Sigkill"))
    call = policies.TryPolicy(request)
    update = await call.read()
    on = {f"try:{update.policy_name}": ("fd_install", "monitor")}
    await eventually(lambda: active(nodes) == dict.fromkeys(nodes.running, on))
    nodes.nodes["n1"].installed[0].posted = 5

    async def counted():
        return by_node((await call.read()).nodes)["n1"].hits == 5

    await eventually(counted)
    call.cancel()
    await eventually(lambda: active(nodes) == NOWHERE)


async def test_try_ends_after_its_time_and_over_its_limit(nodes, policies):
    request = pb.TryPolicyRequest(yaml=document())
    request.duration.FromMilliseconds(300)
    updates = [update async for update in policies.TryPolicy(request)]
    assert (updates[-1].last, updates[-1].reason) == (True, "time is over")
    await eventually(lambda: not any(active(nodes).values()))
    call = policies.TryPolicy(pb.TryPolicyRequest(yaml=document(), max_hits=3))
    await eventually(lambda: nodes.nodes["n2"].installed)
    nodes.nodes["n2"].installed[0].posted = 4
    updates = [update async for update in call]
    assert updates[-1].reason == "node n2: 4 hits exceed the limit of 3"
    await eventually(lambda: not any(active(nodes).values()))


async def test_tetragon_clients_change_policies(nodes, gateway):
    sensors = gateway.sensors
    await sensors.AddTracingPolicy(
        tetragon.AddTracingPolicyRequest(yaml=document(action="Sigkill"))
    )
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)
    code, text = await refusal(
        sensors.AddTracingPolicy(tetragon.AddTracingPolicyRequest(yaml=document()))
    )
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert text == (
        "failed to add tracing policy grpc:one, a sensor collection with the key already exists"
    )
    await sensors.ConfigureTracingPolicy(
        tetragon.ConfigureTracingPolicyRequest(name="one", mode=TP_MODE_MONITOR)
    )
    assert active(nodes)["n1"] == {"grpc:one": ("fd_install", "monitor")}
    await sensors.DisableTracingPolicy(tetragon.DisableTracingPolicyRequest(name="one"))
    assert active(nodes) == NOWHERE
    await sensors.EnableTracingPolicy(tetragon.EnableTracingPolicyRequest(name="one"))
    code, text = await refusal(
        sensors.ConfigureTracingPolicy(
            tetragon.ConfigureTracingPolicyRequest(name="one", enable=True)
        )
    )
    assert text == "tracing policy one is not disabled"
    await sensors.ConfigureTracingPolicy(
        tetragon.ConfigureTracingPolicyRequest(name="one", mode=TP_MODE_ENFORCE)
    )
    assert active(nodes) == dict.fromkeys(nodes.running, EVERYWHERE)
    await sensors.DeleteTracingPolicy(tetragon.DeleteTracingPolicyRequest(name="one"))
    assert active(nodes) == NOWHERE
    code, text = await refusal(
        sensors.DeleteTracingPolicy(tetragon.DeleteTracingPolicyRequest(name="one"))
    )
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND, "tracing policy grpc:one does not exist",
    )  # fmt: skip
    code, text = await refusal(
        sensors.AddTracingPolicy(tetragon.AddTracingPolicyRequest(yaml=document(), domain="static"))
    )
    assert text.startswith("domain static is reserved for internal use")
    nodes.nodes["n2"].refused.add("fd_install")
    code, text = await refusal(
        sensors.AddTracingPolicy(tetragon.AddTracingPolicyRequest(yaml=document()))
    )
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "node n2: there is no function 'fd_install'" in text


async def test_mistakes_of_a_document_are_reported_before_anything_is_stored(policies, gateway):
    code, text = await refusal(
        policies.AddPolicy(pb.AddPolicyRequest(yaml="kind: TracingPolicy\nspec: {kprobes: 1}\n"))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "policy:2:" in text
    assert not gateway.gateway.policies.store.all()


async def test_watching_shows_each_change(nodes, policies):
    call = policies.StreamPolicies(pb.ListPoliciesRequest())
    assert not (await call.read()).policies
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))

    async def done():
        response = await call.read()
        return response.policies and response.policies[0].done == 3

    await eventually(done)
    call.cancel()


async def test_audit_has_who_what_and_the_outcome(nodes, policies):
    metadata = (("tetra-user", "alice@laptop"),)
    nodes.nodes["n1"].refused.add("vfs_read")
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), metadata=metadata)
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document(call="vfs_read"), replace=True))
    entries = [entry async for entry in policies.StreamAudit(pb.StreamAuditRequest())]
    assert [(one.revision, one.outcome) for one in entries] == [
        (1, pb.AuditEntry.OUTCOME_STARTED),
        (1, pb.AuditEntry.OUTCOME_APPLIED),
        (2, pb.AuditEntry.OUTCOME_STARTED),
        (2, pb.AuditEntry.OUTCOME_FAILED),
    ]
    first, last = entries[0], entries[-1]
    assert (first.origin.who, first.origin.claimed) == ("anyone", "alice@laptop")
    assert getattr(first.origin, "from").startswith("ipv4:127.0.0.1:")
    assert first.change == entries[1].change != last.change
    assert entries[1].applied == 3
    assert "node n1" in last.error
    newest = [entry async for entry in policies.StreamAudit(pb.StreamAuditRequest(last=1))]
    assert newest == [last]


async def test_metrics_show_policies_by_state_and_node(nodes, gateway, policies):
    nodes.nodes["n2"].refused.add("vfs_read")
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()))
    request = pb.AddPolicyRequest(yaml=document("two", "vfs_read"), rollout=pb.ROLLOUT_WHEREVER)
    await policies.AddPolicy(request)

    def shown():
        return generate_latest(gateway.gateway.metrics).decode().splitlines()

    two = 'domain="grpc",namespace="",policy="two"'
    for line in (
        'tetra_gateway_policies{state="enabled"} 1.0',
        'tetra_gateway_policies{state="load_error"} 1.0',
        f'tetra_gateway_policy_nodes{{{two},state="done"}} 2.0',
        f'tetra_gateway_policy_nodes{{{two},state="failed"}} 1.0',
    ):
        assert line in shown()
    await gateway.gateway.fleet.describe()
    assert 'tetra_gateway_node_policies{node="n2",state="failed"} 1.0' in shown()
    assert 'tetra_gateway_node_policies{node="n2",state="loaded"} 1.0' in shown()
