"""``tetra policies``: what is sent, printed and refused."""

import json

import grpc
import pytest

from readymade import NAMES, load, render
from support.policy_server import FleetServer, PlainPolicies, node_policy
from tetra.v1.policies_pb2 import FleetPolicy, PolicyChange, PolicyRef
from tetragon.sensors_pb2 import TP_STATE_ENABLED, TP_STATE_LOAD_ERROR, TracingPolicyStatus


@pytest.fixture
def policies(tetra, serve):
    """Run ``tetra policies`` against a server."""

    def run(server, *arguments):
        servers = server if isinstance(server, tuple) else (server,)
        return tetra("policies", *arguments, "--server-address", serve(*servers))

    return run


@pytest.fixture
def fleet():
    return FleetServer()


def test_enable_reports_which_policy_has_a_parameter(policies, fleet):
    fleet.change = PolicyChange(revision=3, nodes=[node_policy("a")])
    done = policies(fleet, "enable", "files", "network", "--set", "paths=/etc")
    assert done.stderr.splitlines()[0] == "tetra: --set paths: only files has it, not network"
    assert done.returncode == 0


def test_enable_sends_each_policy_with_its_parameters(policies, fleet):
    fleet.change = PolicyChange(revision=3, nodes=[node_policy("a"), node_policy("b")])
    done = policies(
        fleet, "enable", "files", "network", "--set", "paths=/srv/,/etc", "--set",
        "loopback=off", "--node", "web-*", "--comment", "ticket 1",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (
        0, 'policy "files" enabled\npolicy "network" enabled\n',
    )  # fmt: skip
    assert done.stderr.splitlines() == [
        "tetra: --set paths: only files has it, not network",
        "tetra: --set loopback: only network has it, not files",
        "tetra: policy files: revision 3 on 2 nodes",
        "tetra: policy network: revision 3 on 2 nodes",
    ]
    first, second = fleet.requests
    assert first.yaml == render(load("files"), {"paths": "/srv,/etc"})
    assert second.yaml == render(load("network"), {"loopback": "false"})
    assert (first.replace, first.domain, first.comment) == (True, "", "ticket 1")
    assert list(second.nodes.names) == ["web-*"]


@pytest.mark.parametrize(("others", "verb"), [("a", "has"), ("ab", "have")])
def test_enable_names_nodes_that_have_the_policy_from_their_files_too(
    policies, fleet, others, verb
):
    fleet.change = PolicyChange(revision=1, nodes=[node_policy("a"), node_policy("b")])
    fleet.change.policy.name, fleet.change.policy.domain = "files", "grpc"
    static = FleetPolicy(nodes=[node_policy(one) for one in [*others, "c"]])
    static.policy.name, static.policy.domain = "files", "static"
    fleet.policies = [static]
    done = policies(fleet, "enable", "files")
    assert done.returncode == 0
    assert done.stderr.splitlines()[1:] == [
        f"tetra: policy files: {', '.join(others)} {verb} it from domain static too: "
        "what both match is reported twice"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enable", "filez"), 'there is no ready-made policy "filez" (allowed: files, network,'),
        (("enable", "files", "--set", "x=1"), "--set: files has no parameter 'x'"),
        (("enable", "files", "--set", "paths=etc"), '--set: paths: "etc" is not an absolute path'),
        (("enable", "files", "--set", "paths"), "--set: 'paths' is not NAME=VALUE"),
        (("explain",), "NAME"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_sent(
    policies, fleet, arguments, message
):
    done = policies(fleet, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert fleet.requests == []


def test_a_refusal_names_the_policy_and_the_node(policies, fleet):
    fleet.change = PolicyChange(
        error="policy grpc:files: node a: no", nodes=[node_policy("a", TP_STATE_LOAD_ERROR)]
    )
    done = policies(fleet, "enable", "files")
    assert done.returncode == 1
    assert (
        done.stderr
        == "tetra: error: failed to enable policy files: policy grpc:files: node a: no\n"
    )


def test_disable_deletes(policies, fleet):
    done = policies(fleet, "disable", "files", "host")
    assert done.stdout == 'policy "files" disabled\npolicy "host" disabled\n'
    assert [request.policy.name for request in fleet.requests] == ["files", "host"]
    fleet.refuse = (grpc.StatusCode.NOT_FOUND, "policy grpc:files: there is none")
    done = policies(fleet, "disable", "files")
    assert done.returncode == 1
    assert "policies that TETRA_POLICIES of a node names are removed there" in done.stderr


def test_the_list_names_policies_that_wait_for_their_nodes(policies, fleet):
    waiting = FleetPolicy(policy=PolicyRef(name="files", domain="grpc"))
    away = FleetPolicy(policy=PolicyRef(name="host", domain="grpc"), away=1)
    fleet.policies = [waiting, away]
    public = PlainPolicies()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
    done = policies((public, fleet))
    rows = {row.split()[0]: row.split()[1:4] for row in done.stdout.splitlines()}
    assert rows["files"] == ["waiting", "grpc", "-"]
    assert rows["host"] == ["away", "grpc", "-"]
    assert rows["network"][:2] == ["not", "enabled"]


def enabled(name, given):
    """Return a ready-made policy of the fleet."""
    policy = FleetPolicy(policy=PolicyRef(name=name, domain="grpc"))
    policy.spec.yaml = render(load(name), given)
    return policy


def test_the_list_shows_parameters_that_are_set(policies, fleet):
    fleet.policies = [enabled("files", {"paths": "/srv,/etc"}), enabled("network", {})]
    public = PlainPolicies()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
    done = policies((public, fleet))
    assert done.stdout.splitlines()[1 + len(NAMES) :] == ["files: --set paths=/srv,/etc"]


def test_the_list_as_json(policies, fleet):
    fleet.policies = [
        enabled("files", {"paths": "none", "except": "/opt/a b"}), enabled("network", {}),
    ]  # fmt: skip
    public = PlainPolicies()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
    added = TracingPolicyStatus(name="files", domain="grpc", state=TP_STATE_ENABLED)
    added.kernel_memory_bytes, added.stats.action_counters.post = 2_000_000, 23
    added.details.runs, added.details.run_time_ns = 1000, 250_000
    other = TracingPolicyStatus(
        name="files", domain="static", state=TP_STATE_LOAD_ERROR, error="no"
    )
    public.policies = [added, other]
    for words in (("-o", "json"), ("list", "--output", "json")):
        done = policies((public, fleet), *words)
        first, second, third, *more = map(json.loads, done.stdout.splitlines())
        assert first == {
            "name": "files", "state": "enabled", "domain": "grpc", "events": 23,
            "kernel_memory_bytes": 2_000_000, "runs": 1000, "run_time_ns": 250_000, "error": "",
            "parameters": {"paths": "none", "except": "/opt/a b"},
            "cost": load("files").cost_brief, "reports": load("files").title,
        }  # fmt: skip
        assert [second[key] for key in ("domain", "state", "error", "parameters")] == [
            "static", "load_error", "no", None,
        ]  # fmt: skip
        assert [third[key] for key in ("name", "state", "parameters")] == ["network", "waiting", {}]
        assert (third["events"], third["runs"]) == (None, None)
        assert [one["name"] for one in more] == list(NAMES[2:])
        assert {(one["state"], one["domain"], one["parameters"]) for one in more} == {
            ("not enabled", "", None)
        }
        assert done.stderr == ""
    text = policies((public, fleet)).stdout.splitlines()
    assert text[-1] == "files: --set paths=none --set 'except=/opt/a b'"


def test_enable_keeps_the_parameters_that_are_not_given(policies, fleet):
    fleet.policies = [enabled("files", {"paths": "/srv", "secrets": "none"})]
    fleet.policies[0].spec.revision = 7
    fleet.change = PolicyChange(revision=8, nodes=[node_policy("a")])
    done = policies(fleet, "enable", "files", "network", "--set", "paths=/opt")
    assert done.stdout.splitlines() == [
        'policy "files" enabled, keeps secrets=none', 'policy "network" enabled',
    ]  # fmt: skip
    done = policies(fleet, "enable", "files", "--set", "paths=default", "--set", "secrets=default")
    assert done.stdout == 'policy "files" enabled\n'
    files, network, defaults = fleet.requests
    assert files.yaml == render(load("files"), {"paths": "/opt", "secrets": "none"})
    assert files.expected_revision == 7  # what is kept is still what is there
    assert network.yaml == render(load("network"))
    assert defaults.yaml == render(load("files"))
    assert (network.expected_revision, defaults.expected_revision) == (0, 0)


def test_a_document_of_ones_own_sets_no_parameters(policies, fleet):
    own = enabled("files", {"paths": "/srv"})
    own.spec.yaml = own.spec.yaml.replace("tetra.io/ready-made: files", "owner: me")
    fleet.policies = [own]
    assert policies(fleet, "enable", "files").stdout == 'policy "files" enabled\n'


def test_the_list_has_every_policy_and_its_state(policies):
    plain = PlainPolicies()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
    loaded = TracingPolicyStatus(
        name="files", domain="static", state=TP_STATE_ENABLED, kernel_memory_bytes=2_000_000
    )
    loaded.stats.action_counters.post = 23
    loaded.details.runs, loaded.details.run_time_ns = 1000, 250_000
    broken = TracingPolicyStatus(
        name="network", domain="grpc", state=TP_STATE_LOAD_ERROR, error="no ring"
    )
    other = TracingPolicyStatus(name="mine", state=TP_STATE_ENABLED)
    plain.policies = [loaded, broken, other]
    for words in ((), ("list",)):
        done = policies(plain, *words)
        heads, *rows = done.stdout.splitlines()
        assert heads.split() == [
            "NAME",
            "STATE",
            "DOMAIN",
            "EVENTS",
            "MEMORY",
            "COST",
            "REPORTS",
        ]
        assert [row.split()[0] for row in rows] == list(NAMES)
        assert rows[0].split()[1:4] == ["enabled", "static", "23"]
        assert "250 ns x 1000" in rows[0]
        assert rows[1].split()[1] == "load_error"
        assert " not enabled " in rows[2]
        assert load("credentials").cost_brief in rows[2]
        assert rows[3].endswith(load("host").title)
        assert done.stderr == "tetra: policy network: no ring\n"


def test_explain_asks_no_server(tetra):
    done = tetra("policies", "explain", *NAMES, "--set", "paths=/srv")
    assert done.returncode == 0
    for name in NAMES:
        assert f"{name}: {load(name).title}" in done.stdout
    assert "paths=/srv (set)" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    shown = tetra("policies", "explain", "network", "--yaml")
    assert shown.stdout == render(load("network"))
