"""Templates and field lists."""

import pytest

from cli.errors import UsageError
from cli.renderers.template import TemplateRenderer
from tetra.v1.extensions_pb2 import ContainerInfo


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{pid}} {{binary}}", "101708 /usr/sbin/iptables"),
        ("{{ .process.pid }}|{{process.uid}}", "101708|0"),
        ("pid,user,process.cwd,type", "101708\troot\t/srv\texec"),
        ("pid", "101708"),
        (r"{{pid}}\t{{node}}\n-", "101708\tnode1\n-"),
        ("{{time}}", "2026-01-01T00:00:00.123456789Z"),
        ("time,node_name", "2026-01-01T00:00:00.123456789Z\tnode1"),
        ("[{{parent.binary}}]", "[]"),
        ("{{command}} {{container}}", "/usr/sbin/iptables -L web"),
        ("{{process.container_info}}", '{"name":"web"}'),
        ("{{process.argv}}", '["LUw="]'),
        ("{{end}}{{signal}}", ""),
    ],
)
def test_fields(exec_event, template, line):
    event = exec_event(cwd="/srv", container_info=ContainerInfo(name="web"), argv=[b"-L"])
    assert TemplateRenderer(template).render([event]) == f"{line}\n"


def test_end_is_a_word_of_exits(exit_event):
    render = TemplateRenderer("end,signal,status").render
    assert render([exit_event()]) == "0\t\t\n"
    assert render([exit_event(status=9)]) == "9\t\t9\n"
    assert render([exit_event(signal="SIGKILL")]) == "SIGKILL\tSIGKILL\t\n"


def test_values_cannot_break_lines_or_columns(exec_event):
    event = exec_event(arguments="a\tb\nc\x1b[31m")
    assert TemplateRenderer("arguments,pid").render([event]) == "a\\tb\\nc\\x1b[31m\t101708\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{process.bianry}}", "no event has a field 'process.bianry', did you mean process.bina"),
        ("piid", "no event has a field 'piid', did you mean p"),
        ("{{pid", "braces do not match"),
        ("{{}}", "no event has a field ''"),
    ],
)
def test_wrong_templates_are_refused_at_once(template, message):
    with pytest.raises(UsageError) as caught:
        TemplateRenderer(template)
    assert message in str(caught.value)
