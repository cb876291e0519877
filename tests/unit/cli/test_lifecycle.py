"""Golden lines of the default output."""

import pytest

from cli.renderers.lifecycle import LifecycleRenderer
from tetra.v1.extensions_pb2 import ContainerInfo
from tetragon.tetragon_pb2 import Pod, UserRecord

DOCKER = "0123456789abcdef0123456789abcde"


def line(event, **options):
    return LifecycleRenderer(**options).render([event])


def test_exec_and_exit_are_the_two_lines_of_the_readme(exec_event, exit_event):
    text = LifecycleRenderer().render([exec_event(), exit_event()])
    assert text == (
        "🚀 process 101708: root: /usr/sbin/iptables -L\n"
        "💥 exit 101708: root: /usr/sbin/iptables -L\n"
    )


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"status": 9}, "-L 9"),
        ({"signal": "SIGKILL"}, "-L SIGKILL"),
        ({"status": 0}, "-L"),
        ({"arguments": "", "status": 1}, "iptables 1"),
    ],
)
def test_exit_shows_its_outcome_unless_it_is_status_0(exit_event, fields, end):
    assert line(exit_event(**fields)).endswith(f"{end}\n")


def test_count_of_equal_events_ends_the_line(exit_event):
    event = exit_event(status=9, docker=DOCKER)
    event.aggregation_info.count = 12
    assert line(event).endswith(f"-L 9 [{DOCKER[:12]}] x 12\n")
    assert line(event, width=lambda: 40).endswith(" x 12\n")
    event.aggregation_info.count = 1
    assert line(event).endswith("]\n")


def test_space_that_quoting_puts_before_the_first_argument_is_not_shown(exec_event):
    assert line(exec_event(arguments=' "a b" c')).endswith('iptables "a b" c\n')


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"user_name": "alice", "user": UserRecord(name="bob")}, "alice"),
        ({"user_name": "", "user": UserRecord(name="bob")}, "bob"),
        ({"user_name": ""}, "0"),
    ],
)
def test_user_is_our_name_then_the_public_one_then_the_number(exec_event, fields, user):
    assert line(exec_event(**fields)).startswith(f"🚀 process 101708: {user}: ")


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ({"pod": Pod(namespace="shop", name="web-0"), "docker": DOCKER}, " [shop/web-0]\n"),
        ({"container_info": ContainerInfo(name="web"), "docker": DOCKER}, " [web]\n"),
        ({"docker": DOCKER}, " [0123456789ab]\n"),
    ],
)
def test_container_is_at_the_end(exec_event, exit_event, fields, tail):
    assert line(exec_event(**fields)) == f"🚀 process 101708: root: /usr/sbin/iptables -L{tail}"
    assert line(exit_event(status=2, **fields)).endswith(f"-L 2{tail}")


def test_node_is_shown_from_the_second_node_on(exec_event):
    render = LifecycleRenderer().render
    assert render([exec_event(node="a"), exec_event(node="a")]).count("@") == 0
    assert render([exec_event(node="b")]).endswith("-L @b\n")
    assert render([exec_event(node="a")]).endswith("-L @a\n")


def test_node_is_shown_at_once_when_requested(exec_event):
    assert line(exec_event(), show_node=True).endswith("-L @node1\n")


def test_control_characters_and_escape_sequences_are_made_visible(exec_event):
    text = line(exec_event(arguments="\x1b[31m\x07\r\n\u009b31m \u202egpj.\u2028", binary="/b\tin"))
    assert text == (
        "🚀 process 101708: root: /b\\tin \\x1b[31m\\x07\\r\\n\\x9b31m \\u202egpj.\\u2028\n"
    )


def test_other_scripts_are_unchanged(exec_event):
    assert line(exec_event(arguments="grüße 世界 é")).endswith("iptables grüße 世界 é\n")


def test_without_emoji_only_words_are_printed(exec_event, exit_event):
    assert line(exec_event(), emoji=False) == "process 101708: root: /usr/sbin/iptables -L\n"
    assert line(exit_event(), emoji=False) == "exit 101708: root: /usr/sbin/iptables -L\n"


def test_timestamps_have_nine_digits(exec_event):
    text = line(exec_event(), timestamps=True)
    assert text.startswith("2026-01-01T00:00:00.123456789Z 🚀 process ")


def test_colours_are_around_the_parts_and_nothing_else(exit_event):
    text = line(exit_event(status=9), colour=True)
    assert text == (
        "\x1b[33m💥 exit\x1b[0m 101708: \x1b[36mroot\x1b[0m: "
        "\x1b[1m/usr/sbin/iptables\x1b[0m -L \x1b[31m9\x1b[0m\n"
    )


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("process_kprobe", {"function_name": "__x64_sys_write"}, "❓ kprobe P -> write()"),
        ("process_tracepoint", {"subsys": "s", "event": "e"}, "⁉️ tracepoint P -> s/e()"),
        ("process_loader", {"path": "/lib/x.so"}, "🧬 loader P /lib/x.so"),
        ("process_uprobe", {"path": "/bin/b", "symbol": "f"}, "🕵️ uprobe P -> /bin/b:f()"),
        (
            "process_usdt",
            {"path": "/b", "provider": "p", "name": "n"},
            "🕵️ usdt P -> /b:p:n()",
        ),
        ("process_lsm", {"function_name": "file_open"}, "🔒 lsm P -> file_open()"),
        ("process_throttle", {"type": 1, "cgroup": "s.scope"}, "🧬 throttle start s.scope"),
        (
            "process_throttle",
            {"type": 2, "cgroup": "s", "policy_name": "p", "withheld": {"policy": 7}},
            "🧬 throttle stop s, policy p: withheld 7 policy",
        ),
        (
            "rate_limit_info",
            {"number_of_dropped_process_events": 1},
            "🛑 rate limit: 1 event dropped",
        ),
        (
            "rate_limit_info",
            {"number_of_dropped_process_events": 3},
            "🛑 rate limit: 3 events dropped",
        ),
        ("test", {"arg0": 1}, "❓ test event"),
    ],
)
def test_every_other_kind_has_a_line(event_of, kind, fields, expected):
    expected = expected.replace(" P ", " 101708: root: /usr/bin/cat -L ")
    assert line(event_of(kind, **fields)) == f"{expected}\n"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, "🚀 process 101708: root: /usr/sbin/iptables --list --verbose [web] @node1"),
        (73, "🚀 process 101708: root: /usr/sbin/iptables --list --verbose [web] @node1"),
        (72, "🚀 process 101708: root: /usr/sbin/iptables --list --verbo… [web] @node1"),
        (57, "🚀 process 101708: root: /usr/sbin/iptabl… … [web] @node1"),
        (40, "🚀 process 101708: root: … … [web] @nod…"),
        (20, "🚀 … 101708: …: … … […] @…"),
    ],
)
def test_line_is_cut_to_the_width_and_loses_arguments_first(exec_event, width, expected):
    event = exec_event(arguments="--list --verbose", container_info=ContainerInfo(name="web"))
    assert line(event, show_node=True, width=lambda: width) == f"{expected}\n"


def test_cut_line_counts_columns_not_characters(exec_event):
    event = exec_event(arguments="世界" * 20)
    assert line(event, width=lambda: 60) == (
        "🚀 process 101708: root: /usr/sbin/iptables 世界世界世界世…\n"
    )
    assert line(event, width=lambda: 60, colour=True).endswith(" 世界世界世界世…\n")


def test_width_is_read_for_every_batch(exec_event):
    widths = iter((60, 50, None))
    renderer = LifecycleRenderer(width=lambda: next(widths))
    lengths = [len(renderer.render([exec_event(arguments="x" * 80)])) for _ in range(3)]
    assert lengths == [60, 50, 124]  # the emoji takes two columns, the line end none
