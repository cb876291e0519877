"""Bars, selectors, results of changes: the small texts of ``tetra tracingpolicy``."""

import io

import pytest

from cli.errors import RefusedError
from cli.policies import documents, flags, progress, results, revisions, table
from cli.policies.costs import cost_text
from cli.policies.mistakes import MistakeText
from tetra.v1.policies_pb2 import FleetPolicy, NodePolicy, NodeSelector, PolicyChange
from tetragon.sensors_pb2 import TP_STATE_ENABLED, TP_STATE_LOAD_ERROR
from tracingpolicy import Mistake


@pytest.mark.parametrize(
    ("done", "failed", "total", "shown"),
    [
        (0, 0, 0, "#" * 24),
        (0, 0, 3, "." * 24),
        (3, 0, 3, "#" * 24),
        (1, 1, 3, "########!!!!!!!!........"),
        (199, 1, 200, "#" * 23 + "!"),
        (1, 0, 1000, "." * 24),
        (0, 200, 200, "!" * 24),
    ],
)
def test_a_bar_has_one_width_and_shows_every_failure(done, failed, total, shown):
    assert progress.bar(done, failed, total, unicode=False) == shown


def test_a_bar_writes_nothing_where_stderr_is_no_terminal():
    stream = io.StringIO()
    bar = progress.Bar(stream)
    bar.show("x")
    bar.clear()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (4_458_824, "4.46 MB"),
        (2_404_000, "2.40 MB"),
        (10**12, "1.00 TB"),
    ],
)
def test_bytes_are_printed_as_in_tetragon(count, text):
    assert table.bytes_text(count) == text


def test_nodes_with_one_reason_stand_together_and_long_reasons_are_cut():
    long = "\n".join(f"line {number}" for number in range(20))
    nodes = [NodePolicy(node_name=f"n{number}", error=long) for number in range(4)]
    lines = results.reasons([*nodes, NodePolicy(node_name="z", state=TP_STATE_LOAD_ERROR)])
    assert lines[0] == "node n0, n1, n2 and 1 more: line 0"
    assert lines[1:8] == [*(f"  line {n}" for n in range(1, 7)), "  ... and 13 more lines"]
    assert lines[8:] == ["node z: it failed without a reason"]


def test_a_summary_counts_nodes_that_have_it_that_failed_and_that_are_away():
    def node(name, **fields):
        state = fields.pop("state", TP_STATE_ENABLED)
        return NodePolicy(
            **{"node_name": name, "selected": True, "alive": True, **fields}, state=state
        )

    change = PolicyChange(
        revision=4,
        nodes=[
            node("a"),
            node("b", alive=False),
            node("c", state=TP_STATE_LOAD_ERROR, error="x"),
            node("d", alive=False),
            node("e", selected=False),
        ],
    )
    assert results.summary(change) == ("revision 4 on 1 node; not on c; b, d load it on return")


def test_a_name_that_no_node_has_is_reported():
    nodes = [
        NodePolicy(node_name="a", selected=True, alive=True, state=TP_STATE_ENABLED),
        NodePolicy(node_name="web-1", alive=True),
    ]
    change = PolicyChange(revision=4, nodes=nodes)
    assert results.summary(change, ["a", "x*"]) == "revision 4 on 1 node"
    assert results.summary(change, ["a", "web-2"]) == (
        "revision 4 on 1 node; no node is named web-2 (known: a, web-1); it is loaded there when "
        "one joins"
    )
    for each in nodes:
        each.selected = False
    change = PolicyChange(revision=4, nodes=nodes)
    assert results.summary(change, ["nope"]).startswith("revision 4; no node is named nope (known")
    assert "named nope (see tetra nodes); " in results.summary(PolicyChange(revision=4), ["nope"])


def test_a_refusal_without_node_reasons_keeps_its_own_lines():
    change = PolicyChange(error="policy grpc:x: not loaded\nnode a: why")
    with pytest.raises(RefusedError) as caught:
        results.require_done(change, "failed to add tracing policy", "advice")
    assert str(caught.value) == "failed to add tracing policy: policy grpc:x: not loaded"
    assert caught.value.details == ("node a: why",)


def test_advice_is_for_changes_that_some_nodes_could_carry_out():
    bad = NodePolicy(node_name="a", selected=True, alive=True, error="why")
    good = NodePolicy(node_name="b", selected=True, alive=True)
    for nodes, details in (([bad], ("node a: why",)), ([bad, good], ("node a: why", "advice"))):
        change = PolicyChange(error="policy x: not loaded: node a: why", nodes=nodes)
        with pytest.raises(RefusedError) as caught:
            results.require_done(change, "step", "advice")
        assert str(caught.value) == "step: policy x: not loaded"
        assert caught.value.details == details


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, "every"),
        ({"names": ["web-*", "db"]}, "web-*,db"),
        ({"labels": {"b": "2", "a": "1"}, "except_names": ["x"]}, "a=1,b=2 except x"),
    ],
)
def test_selectors_in_a_few_words(selector, text):
    assert revisions.selector_text(NodeSelector(**selector)) == text


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_addresses_of_peers(peer, text):
    assert revisions.address_text(peer) == text


@pytest.mark.parametrize(
    ("entry", "exit", "text"),
    [
        ("fentry", "", "25 ns a call"),
        ("uprobe", "uretprobe", "12.9 µs a call"),
        ("raw_tracepoint sys_enter", "raw_tracepoint sys_exit",
         "40 ns every system call of the host"),
        ("fentry_new", "", "not measured"),
        ("", "", "-"),
    ],
)  # fmt: skip
def test_costs(entry, exit, text):
    assert cost_text(entry, exit) == text


@pytest.mark.parametrize("name", ["web-1", "a*b", "a[1]", "?"])
def test_a_literal_pattern_matches_one_name_alone(name):
    from fnmatch import fnmatchcase

    assert fnmatchcase(name, flags.literal(name))
    assert not fnmatchcase("aXb", flags.literal(name))
    assert not fnmatchcase("a1", flags.literal(name))


def test_a_document_that_is_too_large_is_not_sent(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_bytes(b"#" * (documents.LARGEST_BYTES + 1))
    with pytest.raises(Exception, match="larger than 1048576 bytes"):
        documents.read_document(str(file))


def test_fleets_without_a_selected_node_have_no_bar():
    assert progress.progress_text(FleetPolicy()) == "no known node is selected"
    assert progress.progress_text(FleetPolicy(away=2)) == "2 away"
    assert progress.progress_text(FleetPolicy(selected=2, done=1), unicode=False) == (
        "############............ 1 of 2 nodes"
    )


def test_progress_of_a_single_node_has_no_plural():
    text = progress.progress_text(FleetPolicy(selected=1, done=1), unicode=False)
    assert text == "######################## 1 of 1 node"


def test_a_terminal_shows_the_place_of_a_mistake():
    text = b"kind: TracingPolicy\nspec: {kprobes: x}\n"
    mistake = Mistake("p.yaml", 2, 17, "spec.kprobes: no list\x1b", "a, " * 99 + "b")
    first, line, mark = MistakeText(excerpts=True)([mistake], text).splitlines()
    assert first.startswith("p.yaml:2:17: spec.kprobes: no list\\x1b (allowed: a, a, ")
    assert first.endswith(", ...)")
    assert line == "     2 | spec: {kprobes: x}"
    assert mark == "       |                 ^"
    (only,) = MistakeText()([mistake], text).splitlines()
    assert only.endswith(", b)")
    outside = Mistake("p.yaml", 9, 1, "beyond the end")
    assert MistakeText(excerpts=True)([outside], text) == "p.yaml:9:1: beyond the end\n"
