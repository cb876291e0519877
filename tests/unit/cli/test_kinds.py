"""Kinds of events: each has a form in every output, and a new one is an addition."""

import sys
from types import ModuleType
from typing import Any

import pytest

from cli.process_tree import ProcessTree
from cli.renderers import kinds
from cli.renderers.compact import CompactRenderer
from cli.renderers.kinds.base import Kind, Line
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.pen import CompactOptions
from cli.renderers.template import TemplateRenderer
from cli.renderers.tree import TreeRenderer
from cli.resume import Batch
from cli.top_model import TopModel
from tetragon.events_pb2 import GetEventsResponse

KINDS = [field.name for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]


@pytest.fixture
def without_cache():
    """Forget which kind has which module, before and after."""
    kinds.kind_of.cache_clear()
    yield
    kinds.kind_of.cache_clear()


def test_every_kind_of_the_contract_has_a_module():
    assert set(kinds.MODULES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_without_a_module_shows_its_name_and_its_process(
    monkeypatch, without_cache, event_of, kind
):
    monkeypatch.delitem(kinds.MODULES, kind)
    event = event_of(kind)
    name = kind.removeprefix("process_")
    has_process = "process" in getattr(event, kind).DESCRIPTOR.fields_by_name
    process = " 101708: root: /usr/bin/cat -L" if has_process else ""
    assert LifecycleRenderer().render([event]) == f"❓ {name}{process}\n"
    binary = " /usr/bin/cat" if has_process else ""
    compact = CompactRenderer(CompactOptions()).render([event])
    assert compact == f"❓ {name:<7} node1{binary}\n"
    assert TemplateRenderer("type").render([event]) == f"{name}\n"
    model = TopModel()
    model.take(Batch([event]), 0.0)
    assert (model.started, model.ended, model.others) == (0, 0, 1)


def test_kind_that_is_newer_than_this_client_shows_its_field_number():
    # Field 77, a message of two bytes, as a newer server would send it.
    event = GetEventsResponse.FromString(bytes([77 << 3 & 0x7F | 2 | 0x80, 77 >> 4, 2, 8, 1]))
    event.node_name = "node1"
    assert LifecycleRenderer().render([event]) == "❓ unknown event 77\n"
    assert CompactRenderer(CompactOptions()).render([event]) == "❓ unknown event 77 node1\n"
    assert TemplateRenderer("type,node").render([event]) == "\tnode1\n"
    ProcessTree(keeps_ended=1).add(event)


def test_new_kind_is_a_module_and_a_line(monkeypatch, without_cache, event_of):
    module: Any = ModuleType("made_up")
    module.KIND = Kind(
        lifecycle=lambda event: Line("★", "made up", event.process_loader.process, "x", "blocked"),
        compact=lambda event, pen: f"{pen.label('★', 'made up')} {pen.quote('a b')}\n",
        words={"made_up": lambda event: "yes"},
    )
    monkeypatch.setitem(kinds.MODULES, "process_loader", "made_up")
    monkeypatch.setitem(sys.modules, "made_up", module)
    event = event_of("process_loader")
    line = LifecycleRenderer().render([event])
    assert line == "★ made up 101708: root: /usr/bin/cat -L x blocked\n"
    assert CompactRenderer(CompactOptions()).render([event]) == '★ made up "a b"\n'


def test_events_that_neither_start_nor_end_a_process_are_counted_in_the_tree(event_of, exit_event):
    event = event_of("process_kprobe", function_name="f")
    event.process_kprobe.process.exec_id = "x"
    renderer = TreeRenderer()
    renderer.render([event, event, event_of("process_lsm")])
    assert renderer.finish() == "101708: root: /usr/bin/cat -L (running, 2 kprobe)\n"
    renderer.render([exit_event(status=1, exec_id="x")])
    assert renderer.finish() == "101708: root: /usr/bin/cat -L (exit 1, 2 kprobe)\n"
