"""Names and arguments of processes never reach a terminal with control characters."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.commands.top import TopView
from cli.commands.tree import TreeView
from cli.processes import process_of
from cli.renderers.compact import CompactRenderer
from cli.renderers.json import JsonRenderer
from cli.renderers.kinds.kprobe_rows import ROWS
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.pen import CompactOptions
from cli.renderers.template import WORDS, TemplateRenderer
from cli.renderers.tree import TreeRenderer
from cli.resume import Batch
from support.random_messages import fill
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import KprobeArgument

SEQUENCES = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b[31m",
    "\x9b31m",
    "\x1bP$q\x1b\\",
    "\r\n",
    "\b\b",
    "\x7f",
    "\u202e",
    "\u2028",
    "\U000e0041",
    "\x00",
)
TEXTS = st.lists(st.one_of(st.sampled_from(SEQUENCES), st.text(max_size=4)), max_size=4).map(
    "".join
)
ARGUMENTS = [  # those with texts that rows show
    KprobeArgument.DESCRIPTOR.fields_by_name[f"{name}_arg"]
    for name in ("string", "file", "path", "sock", "bpf_attr", "perf_event", "bpf_map")
]
KINDS = [field.name for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]


@st.composite
def hostile_events(draw):
    """Draw an event of any kind, most with a process, all strings of it hostile."""
    event = GetEventsResponse(node_name=draw(TEXTS))
    body = getattr(event, draw(st.sampled_from(KINDS)))
    body.SetInParent()
    fill(draw, body, 3, TEXTS)
    if "process" in body.DESCRIPTOR.fields_by_name and draw(st.integers(0, 9)):
        body.process.binary, body.process.arguments = draw(TEXTS), draw(TEXTS)
        body.process.user_name, body.process.exec_id = draw(TEXTS), draw(TEXTS)
        fill(draw, body.process, 2, TEXTS)
    if "function_name" in body.DESCRIPTOR.fields_by_name:
        functions = ("__x64_sys_write", "tcp_connect", "bpf_check", "fd_install", "file_open")
        body.function_name = draw(st.one_of(TEXTS, st.sampled_from(functions)))
    return event


property_test = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def render(renderer, events):
    """Return all that the renderer makes of the events."""
    return renderer.render(events) + renderer.finish()


RENDERERS = {
    "lifecycle": lambda colour: LifecycleRenderer(colour=colour, timestamps=True, show_node=True),
    "compact": lambda colour: CompactRenderer(CompactOptions(colour=colour, guard=True)),
    "compact of 1.7": lambda colour: CompactRenderer(
        CompactOptions(colour=colour, guard=True, quote=False)
    ),
    "tree": lambda colour: TreeRenderer(colour=colour),
    "narrow lifecycle": lambda colour: LifecycleRenderer(colour=colour, width=lambda: 20),
    "narrow tree": lambda colour: TreeRenderer(colour=colour, width=30),
}


@pytest.mark.parametrize("name", RENDERERS)
@property_test
@given(events=st.lists(hostile_events(), min_size=1, max_size=3))
def test_lines_without_colour_are_printable(name, events):
    text = render(RENDERERS[name](False), events)
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", RENDERERS)
@property_test
@given(events=st.lists(hostile_events(), min_size=1, max_size=3))
def test_escape_sequences_are_those_of_the_colours(name, events):
    painted = render(RENDERERS[name](True), events)
    bare = render(RENDERERS[name](False), events)
    if name.startswith("narrow"):
        assert re.sub(r"\x1b\[\d+m", "", painted) == bare
        return
    # The same number as for a process of the same kind that is called x.
    for event in events:
        tame(event)
    assert painted.count("\x1b") == render(RENDERERS[name](True), events).count("\x1b")


@st.composite
def kprobes(draw):
    """Draw an event for one of the rows that compact output has for kernel functions."""
    event = GetEventsResponse()
    body = event.process_kprobe
    body.process.SetInParent()
    body.function_name = draw(st.sampled_from(list(ROWS)))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(ARGUMENTS))
        argument = body.args.add()
        if kind.message_type is None:
            argument.string_arg = draw(TEXTS)
            continue
        value = getattr(argument, kind.name)
        value.SetInParent()
        for field in kind.message_type.fields:
            if field.type == field.TYPE_STRING and not field.is_repeated:
                setattr(value, field.name, draw(TEXTS))
    return event


@pytest.mark.parametrize("quote", [True, False])
@settings(property_test, max_examples=60)
@given(event=kprobes())
def test_rows_of_kernel_functions_are_printable(quote, event):
    line = CompactRenderer(CompactOptions(guard=True, quote=quote)).render([event])
    assert line.replace("\n", "").isprintable()


def tame(message):
    """Make every string in ``message`` harmless, as empty as it was."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if field.is_repeated:
                value[:] = ["x" for _ in value]
            elif field.name not in ("function_name", "subsys", "event", "exec_id"):
                setattr(message, field.name, "x" if value.isprintable() else "y")
            elif any(sequence in value for sequence in SEQUENCES):
                setattr(message, field.name, value.encode().hex())
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            for child in value if field.is_repeated else (value,):
                tame(child)


@pytest.mark.parametrize("template", [",".join(WORDS), "{{process.pod}} {{process}} {{parent}}"])
@property_test
@given(event=hostile_events())
def test_templates_are_one_printable_line(template, event):
    line = TemplateRenderer(template).render([event])
    assert line.endswith("\n")
    assert line[:-1].replace("\t", "").isprintable()


@pytest.mark.parametrize("ascii", [False, True])
@property_test
@given(event=hostile_events())
def test_json_is_one_printable_line(ascii, event):
    line = JsonRenderer(extensions=True, ascii=ascii).render([event])
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.isascii() or not ascii


@pytest.mark.parametrize("make", [lambda: TopView("binary", "a"), lambda: TreeView(10, "a")])
@property_test
@given(events=st.lists(hostile_events(), min_size=1, max_size=3), notice=TEXTS)
def test_full_screens_have_printable_lines_that_fit(make, events, notice):
    view = make()
    for event in events:
        process = process_of(event)
        if process is not None:  # times in the far future are for other tests
            process.ClearField("start_time")
        event.ClearField("time")
        view.take(Batch([event]))
    for group in "bucn":
        view.press(group)
        text = view.picture(80, 24, 1_767_225_600.0, notice)
        lines = text.split("\n", allow_blank=True)
        assert len(lines) == 24
        for line in lines:
            assert line.plain.isprintable()
            assert line.cell_len <= 80
