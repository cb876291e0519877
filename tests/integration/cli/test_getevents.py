"""``tetra getevents`` against our own API and against a plain Tetragon."""

import json
import signal
import socket
import subprocess
from pathlib import Path

from tetra.v1.node_pb2 import LossCounters, NodeInfo
from tetra.v1.stream_pb2 import GapNotice, LossNotice


def lines(*pids):
    return "".join(f"🚀 process {pid}: root: /usr/bin/true {pid}\n" for pid in pids)


def test_lifecycle_from_our_own_stream(serve, gateway_of, make_event, tetra):
    address = serve(gateway_of([[make_event(1), make_event(1, status=0)], [make_event(2)]]))
    done = tetra("getevents", "--last", "3", "--no-follow", "--server-address", address)
    assert done.stdout == (
        "🚀 process 1: root: /usr/bin/true 1\n"
        "💥 exit 1: root: /usr/bin/true 1\n"
        "🚀 process 2: root: /usr/bin/true 2\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_lifecycle_from_a_plain_tetragon(serve, plain_tetragon_of, make_event, tetra):
    server = plain_tetragon_of([make_event(1), make_event(2)])
    done = tetra("getevents", TETRA_SERVER_ADDRESS=serve(server))
    assert (done.stdout, done.stderr, done.returncode) == (lines(1, 2), "", 0)
    assert len(server.requests[0].allow_list) == 1


def test_nodes_of_a_plain_tetragon_are_chosen_here(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1, "a"), make_event(2, "b")]))
    done = tetra("getevents", "--server-address", address, "--node", "b")
    assert done.stdout == "🚀 process 2: root: /usr/bin/true 2 @b\n"


def test_plain_tetragon_has_no_past(serve, plain_tetragon_of, tetra):
    address = serve(plain_tetragon_of([]))
    done = tetra("getevents", "--server-address", address, "--last", "3")
    assert done.returncode == 2
    assert done.stderr == (
        f"tetra: error: --last: {address} is a plain Tetragon, which keeps no past; "
        "for example: tetra getevents\n"
    )


def test_json_and_compact(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1)]))
    parsed = json.loads(tetra("getevents", "-o", "json", "--server-address", address).stdout)
    assert parsed["process_exec"]["process"]["pid"] == 1
    compact = tetra("getevents", "-o", "compact", "--server-address", address).stdout
    assert compact == "🚀 process node1 /usr/bin/true 1\n"


def test_flags_become_one_filter(serve, plain_tetragon_of, tetra):
    server = plain_tetragon_of([])
    tetra(
        *("getevents", "--server-address", serve(server), "-e", "PROCESS_EXEC", "-e", "exit"),
        *("--process", "a{1,2}", "--processes", "c", "--namespaces", "n", "--host", "--pods", "p"),
        *("--labels", "k in (a,b)", "--policy-names", "x", "--containers", "web"),
        *("--cel-expression", '"f(a, b)"', "--capabilities", "permitted:all:CAP_BPF+sys_admin"),
        *("--namespace-regex", "q", "--pid", "1,2", "-f", "process.pid,parent", "-F", "parent.pid"),
    )
    (request,) = server.requests
    (wanted,) = request.allow_list
    assert list(wanted.event_set) == [1, 5]
    assert list(wanted.binary_regex) == ["a{1,2}", "c"]
    assert list(wanted.namespace) == ["n", ""]
    assert list(wanted.labels) == ["k in (a,b)"]
    assert list(wanted.cel_expression) == ["f(a, b)"]
    assert list(wanted.container_name_regex) == ["web"]
    assert list(wanted.capabilities.permitted.all) == [39, 21]
    assert list(wanted.pid) == [1, 2]
    include, exclude = request.field_filters
    assert (include.action, list(include.fields.paths)) == (0, ["process.pid", "parent"])
    assert (exclude.action, list(exclude.fields.paths)) == (1, ["parent.pid"])


def test_comma_in_a_regular_expression_is_no_separator(serve, plain_tetragon_of, tetra):
    server = plain_tetragon_of([])
    cel = "process_exec.process.pid in [uint(1), uint(2)]"
    done = tetra(
        *("getevents", "--server-address", serve(server), "--process", "^/bin/tr{1,1}ue$"),
        *("--arguments", "^a,b$", "--parent-process", "x,y", "--pod", "[a,b]", "--pod", "c"),
        *("--containers", "a{1,2}", "--container-id", "^[0-9,a]", "--namespace-regex", "q{0,1}"),
        *("--cel-expression", cel, "--pid", "1,2", "-n", "p,q", "-e", "exec,exit"),
    )
    (request,) = server.requests
    (wanted,) = request.allow_list
    assert list(wanted.binary_regex) == ["^/bin/tr{1,1}ue$"]
    assert list(wanted.arguments_regex) == ["^a,b$"]
    assert list(wanted.parent_binary_regex) == ["x,y"]
    assert list(wanted.pod_regex) == ["[a,b]", "c"]
    assert list(wanted.container_name_regex) == ["a{1,2}"]
    assert list(wanted.container_id) == ["^[0-9,a]"]
    assert list(wanted.namespace_regex) == ["q{0,1}"]
    assert list(wanted.cel_expression) == [cel]
    assert (list(wanted.pid), list(wanted.namespace)) == ([1, 2], ["p", "q"])
    assert list(wanted.event_set) == [1, 5]
    # A binary with a comma in its path is rare, two binaries are likely.
    assert done.stderr == (
        "tetra: --parent-process: 'x,y' is one regular expression; "
        "repeat --parent-process for several\n"
    )


def test_times_and_cursors_are_sent(serve, gateway_of, tetra):
    gateway = gateway_of([])
    address = serve(gateway)
    since = ("--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:01:00Z")
    assert tetra("getevents", "--server-address", address, "--no-follow", *since).returncode == 0
    tetra("getevents", "--server-address", address, "--no-follow", "--after", "7:2")
    first, second = gateway.requests
    assert (first.since.seconds, first.until.seconds) == (1767225600, 1767225660)
    assert (second.after.stream_sequence, second.after.index) == (7, 2)


def test_shown_cursor_continues_the_stream(serve, gateway_of, make_event, tetra):
    address = serve(gateway_of([[make_event(1)], [make_event(2), make_event(3)]]))
    flags = ("--server-address", address, "--no-follow", "--show-cursor")
    first = tetra("getevents", "--last", "9", *flags)
    assert first.stderr == "tetra: cursor: 2:2\n"
    assert tetra("getevents", "--after", "2:1", *flags).stdout == lines(3)


def test_lost_connection_loses_nothing(serve, gateway_of, make_event, tetra):
    gateway = gateway_of([[make_event(pid), make_event(pid + 1)] for pid in range(1, 20, 2)])
    gateway.break_after = 3
    done = tetra("getevents", "--last", "9", "--no-follow", "--server-address", serve(gateway))
    assert done.stdout == lines(*range(1, 21))
    assert done.returncode == 0
    assert "going away; connecting again, nothing is missed" in done.stderr
    assert "again" in done.stderr.splitlines()[1]
    assert gateway.requests[1].after.stream_sequence == 3


def test_next_gateway_continues_after_the_lost_one(serve, gateway_of, make_event, tetra):
    batches = [[make_event(pid)] for pid in range(1, 11)]
    first, second = gateway_of(batches), gateway_of(batches)
    first.break_after = 4
    addresses = f"{serve(first)},{serve(second)}"
    done = tetra("getevents", "--last", "9", "--no-follow", "--server-address", addresses)
    assert done.stdout == lines(*range(1, 11))
    assert len(second.requests) == 1


def test_broken_snapshot_is_printed_completely_and_once(serve, gateway_of, make_event, tetra):
    running = [make_event(pid) for pid in range(1, 8)]
    for event in running:
        event.process_exec.process.exec_id = str(event.process_exec.process.pid.value)
    first, second = gateway_of([]), gateway_of([])
    first.snapshot, first.break_after = running[:5], 3
    # Meanwhile 2 has ended and 7 has started: it is in the snapshot as well as in the stream.
    second.snapshot = [event for event in running if event is not running[1]]
    second.batches = [[make_event(2, status=0), running[6]]]
    addresses = f"{serve(first)},{serve(second)}"
    done = tetra("getevents", "--snapshot", "--no-follow", "--server-address", addresses)
    printed_lines = "".join(f"🚀 process {pid}: root: /usr/bin/true {pid}\n" for pid in range(1, 8))
    assert done.stdout == printed_lines + "💥 exit 2: root: /usr/bin/true 2\n"
    assert "nothing is missed" in done.stderr
    assert [bool(request.snapshot) for request in second.requests] == [True, False]


def test_address_without_a_server_is_skipped(serve, gateway_of, make_event, tetra):
    addresses = f"127.0.0.1:1,{serve(gateway_of([[make_event(1)]]))}"
    done = tetra("getevents", "--last", "9", "--no-follow", "--server-address", addresses)
    assert (done.stdout, done.stderr) == (lines(1), "")


def test_silent_port_is_one_line(tetra):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = tetra("getevents", "--server-address", address)
    assert done.returncode == 1
    assert done.stderr == (
        f"tetra: error: connect: {address}: the server there does not answer; "
        "is it the gateway's port?\n"
    )


def test_losses_and_gaps_are_printed_on_stderr(serve, gateway_of, make_event, tetra):
    gateway = gateway_of([[make_event(1)]])
    gateway.notices.losses.append(
        LossNotice(node_name="n", lost=LossCounters(by_cause={"kernel_exec": 2, "spool": 3}))
    )
    gateway.notices.gaps.append(GapNotice(cause=GapNotice.CAUSE_AGED_OUT, count=5))
    flags = ("getevents", "--last", "1", "--no-follow", "--server-address", serve(gateway))
    assert tetra(*flags).stderr.splitlines() == [
        "tetra: loss: node n: kernel exec 2, spool 3",
        "tetra: gap: stream: 5 messages missing: the stream no longer has them",
    ]
    assert tetra(*flags, "--quiet").stderr == ""


def test_unknown_node_has_a_notice(serve, gateway_of, make_event, tetra):
    gateway = gateway_of([[make_event(1)]], nodes=[NodeInfo(node_name="node1")])
    flags = ("getevents", "--last", "1", "--no-follow", "--server-address", serve(gateway))
    done = tetra(*flags, "--node", "node1", "--node", "nod2")
    assert done.stderr == "tetra: node 'nod2' is not known; known nodes: node1\n"
    assert tetra(*flags, "--node", "nod2", "--quiet").stderr == ""


def test_field_that_no_event_has_is_refused(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1)]))
    flags = ("getevents", "-o", "json", "--server-address", address)
    done = tetra(*flags, "-f", "proces.pid,parent", "-F", "process.pod.name,args.int_arg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "tetra: error: --include-fields: no event has a field 'proces.pid', did you mean process.p"
    )
    done = tetra(*flags, "-f", "process.pid,parent", "-F", "process.pod.name,args.int_arg")
    assert (done.returncode, done.stderr) == (0, "")


def test_refused_request_is_a_wrong_command_line(serve, gateway_of, tetra):
    gateway = gateway_of([])
    gateway.refuse = "filter: binary_regex: missing )"
    done = tetra("getevents", "--server-address", serve(gateway))
    assert done.returncode == 2
    assert "filter: binary_regex: missing )" in done.stderr
    gateway.refuse = "labels: selector 'a in b': malformed at 0"
    done = tetra("getevents", "--server-address", serve(gateway))
    assert done.stderr.endswith(
        "malformed at 0; for example: tetra getevents --labels 'app=web,tier in (a,b)'\n"
    )


def test_events_are_shown_at_once_and_ctrl_c_ends_quietly(
    serve, gateway_of, make_event, start_tetra
):
    process = start_tetra(
        "getevents", "--last", "1", "--server-address", serve(gateway_of([[make_event(1)]]))
    )
    assert process.stdout.readline().decode() == lines(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_sigterm_ends_quietly(serve, gateway_of, make_event, start_tetra):
    process = start_tetra(
        "getevents", "--last", "1", "--server-address", serve(gateway_of([[make_event(1)]]))
    )
    process.stdout.readline()
    process.terminate()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_output_that_cannot_be_written_is_one_line(
    serve, plain_tetragon_of, make_event, start_tetra
):
    address = serve(plain_tetragon_of([make_event(1)]))
    with Path("/dev/full").open("wb") as full:
        process = start_tetra("getevents", "--server-address", address, stdout=full)
        assert process.wait(30) == 1
    assert process.stderr.read() == (
        b"tetra: error: write: standard output: no space left on device\n"
    )


def test_output_that_is_closed_is_one_line(tetra_command, tetra_environment):
    command = " ".join([*tetra_command, "getevents", "--server-address", "127.0.0.1:1", ">&-"])
    done = subprocess.run(
        ["sh", "-c", command],
        env=tetra_environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr == b"tetra: error: write: standard output: it is closed\n"


def test_output_goes_to_a_file_without_colours(
    serve, plain_tetragon_of, make_event, start_tetra, tmp_path
):
    address = serve(plain_tetragon_of([make_event(1)]))
    with (tmp_path / "events").open("wb") as file:
        assert start_tetra("getevents", "--server-address", address, stdout=file).wait(30) == 0
    assert (tmp_path / "events").read_text() == lines(1)


def test_closed_pipe_is_not_an_error(serve, plain_tetragon_of, make_event, start_tetra):
    address = serve(plain_tetragon_of([make_event(pid) for pid in range(5000)]))
    process = start_tetra("getevents", "--server-address", address)
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert process.wait(30) == 0
    assert process.stderr.read() == b""


def test_stdin_is_read_and_filtered(tetra):
    stdin = "\n".join(
        [
            '{"process_exec":{"process":{"pid":1,"binary":"/bin/a","user_name":"u"}},"x":1}',
            "not json",
            '{"processExit":{"process":{"pid":2,"binary":"/bin/b"},"status":3},"nodeName":"n"}',
        ]
    )
    done = tetra("getevents", input=stdin)
    assert done.stdout == "🚀 process 1: u: /bin/a\n💥 exit 2: ?: /bin/b 3 @n\n"
    assert done.stderr == "tetra: stdin: skipped 1 of 3 lines: no JSON event\n"
    assert tetra("getevents", "--pid", "2", "-o", "json", input=stdin).stdout == (
        '{"process_exit":{"process":{"pid":2,"binary":"/bin/b"},"status":3},"node_name":"n"}\n'
    )
    only = tetra("getevents", "-o", "json", "-f", "process.pid", "--process", "a$", input=stdin)
    assert only.stdout == '{"process_exec":{"process":{"pid":1}}}\n'


def test_file_on_stdin_is_read(tetra, tmp_path):
    (tmp_path / "events.json").write_text('{"process_exec":{"process":{"pid":1}}}\n')
    with (tmp_path / "events.json").open() as stdin:
        assert tetra("getevents", stdin=stdin).stdout == "🚀 process 1: ?: ?\n"


def test_address_on_the_command_line_wins_over_a_pipe(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1)]))
    assert tetra("getevents", "--server-address", address, input="").stdout == lines(1)


def test_output_that_cannot_have_emoji_has_words(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1)]))
    done = tetra("getevents", "--server-address", address, PYTHONIOENCODING="iso-8859-1")
    assert done.stdout == "process 1: root: /usr/bin/true 1\n"


def test_json_is_json_and_compact_is_exact_in_every_locale(
    serve, plain_tetragon_of, make_event, tetra_command, tetra_environment
):
    event = make_event(1)
    event.process_exec.process.arguments = "ü世😀"
    flags = ["getevents", "--server-address", serve(plain_tetragon_of([event])), "-o"]
    env = tetra_environment(PYTHONIOENCODING="iso-8859-1")

    def written(form):
        return subprocess.run(
            [*tetra_command, *flags, form], env=env, stdin=subprocess.DEVNULL, capture_output=True
        ).stdout

    assert json.loads(written("json").decode("ascii"))["process_exec"]["process"]["arguments"] == (
        "ü世😀"
    )
    assert written("compact").decode() == "🚀 process node1 /usr/bin/true ü世😀\n"
    assert written("lifecycle") == b"process 1: root: /usr/bin/true \xfc\\u4e16\\U0001f600\n"


def test_colour_can_be_forced(serve, plain_tetragon_of, make_event, tetra):
    address = serve(plain_tetragon_of([make_event(1)]))
    assert "\x1b[" not in tetra("getevents", "--server-address", address).stdout
    assert "\x1b[" in tetra("getevents", "--server-address", address, "--color=always").stdout


def test_reconnect_continues_after_the_end_of_a_plain_stream(
    serve, plain_tetragon_of, make_event, start_tetra
):
    server = plain_tetragon_of([make_event(1)])
    process = start_tetra(
        *("getevents", "--server-address", serve(server), "--reconnect", "--reconnect-wait=50ms"),
        stderr=subprocess.DEVNULL,
    )
    assert [process.stdout.readline().decode() for _ in range(3)] == [lines(1)] * 3
