"""Lines of ``-o json``, as text."""

import json

import pytest

from cli.renderers.json import JsonRenderer


def test_golden_line(exec_event):
    event = exec_event(exec_id="bm9kZTE6MTox", flags="execve clone")
    assert JsonRenderer().render([event]) == (
        '{"process_exec":{"process":{"exec_id":"bm9kZTE6MTox","pid":101708,"uid":0,'
        '"binary":"/usr/sbin/iptables","arguments":"-L","flags":"execve clone"}},'
        '"node_name":"node1","time":"2026-01-01T00:00:00.123456789Z"}\n'
    )


PROCESS = '{"pid":101708,"uid":0,"binary":"/usr/bin/cat","arguments":"-L"}'


@pytest.mark.parametrize(
    ("kind", "fields", "body"),
    [
        (
            "process_exit",
            {"signal": "SIGKILL", "time": {"seconds": 1, "nanos": 5_000_000}},
            '"process":P,"signal":"SIGKILL","time":"1970-01-01T00:00:01.005Z"',
        ),
        ("process_exit", {"status": 3}, '"process":P,"status":3'),
        (
            "process_kprobe",
            {
                "function_name": "__x64_sys_write",
                "args": [
                    {"file_arg": {"path": "/etc/passwd", "flags": "rw"}},
                    {"bytes_arg": b"\xff\x00"},
                    {"size_arg": 7},
                    {"int_arg": -1, "label": "l"},
                    {"sock_arg": {"saddr": "::1", "sport": 1, "cookie": 1 << 63}},
                ],
                "action": 1,
                "kernel_stack_trace": [{"symbol": "f", "offset": 16}],
                "policy_name": "p",
                "return": {"int_arg": 0},
            },
            '"process":P,"function_name":"__x64_sys_write","args":['
            '{"file_arg":{"path":"/etc/passwd","flags":"rw"}},{"bytes_arg":"/wA="},'
            '{"size_arg":"7"},{"int_arg":-1,"label":"l"},'
            '{"sock_arg":{"saddr":"::1","sport":1,"cookie":"9223372036854775808"}}],'
            '"return":{"int_arg":0},"action":"KPROBE_ACTION_POST",'
            '"kernel_stack_trace":[{"offset":"16","symbol":"f"}],"policy_name":"p"',
        ),
        (
            "process_tracepoint",
            {"subsys": "s", "event": "e", "args": [{"syscall_id": {"id": 1, "abi": "x64"}}]},
            '"process":P,"subsys":"s","event":"e","args":[{"syscall_id":{"id":1,"abi":"x64"}}]',
        ),
        (
            "process_loader",
            {"path": "/l.so", "buildid": b"\x01\x02"},
            '"process":P,"path":"/l.so","buildid":"AQI="',
        ),
        (
            "process_uprobe",
            {"path": "/b", "symbol": "main", "tags": ["t", "<&>"]},
            '"process":P,"path":"/b","symbol":"main","tags":["t","<&>"]',
        ),
        (
            "process_usdt",
            {"path": "/b", "provider": "p", "name": "n"},
            '"process":P,"path":"/b","provider":"p","name":"n"',
        ),
        (
            "process_lsm",
            {"function_name": "file_open", "ima_hash": "sha256:ab"},
            '"process":P,"function_name":"file_open","ima_hash":"sha256:ab"',
        ),
        (
            "process_throttle",
            {"type": 1, "cgroup": "a.scope"},
            '"type":"THROTTLE_START","cgroup":"a.scope"',
        ),
        ("test", {"arg0": 1, "arg3": 4}, '"arg0":"1","arg3":"4"'),
        (
            "rate_limit_info",
            {"number_of_dropped_process_events": 3},
            '"number_of_dropped_process_events":"3"',
        ),
    ],
)
def test_golden_line_of_every_kind(event_of, kind, fields, body):
    assert JsonRenderer().render([event_of(kind, **fields)]) == (
        f'{{"{kind}":{{{body.replace("P,", PROCESS + ",", 1) if ":P," in body else body}}},'
        '"node_name":"node1","time":"2026-01-01T00:00:00.123456789Z"}\n'
    )


def test_golden_line_of_a_complete_process(exec_event):
    event = exec_event(
        exec_id="aWQ=",
        cwd="/",
        flags="execve rootcwd",
        start_time={"seconds": 1_767_225_600, "nanos": 120_000_000},
        auid={"value": 4294967295},
        pod={
            "namespace": "shop",
            "name": "web-0",
            "container": {"id": "docker://1", "pid": {"value": 0}},
            "pod_labels": {"tier": "front", "app": "web"},
        },
        docker="0123456789abcde",
        parent_exec_id="cGFyZW50",
        refcnt=1,
        cap={"effective": [21, 0]},
        ns={"uts": {"inum": 4026531838, "is_host": True}},
        tid={"value": 7},
        environment_variables=[{"Key": "A", "Value": "b"}],
    )
    event.process_exec.parent.pid.value = 0
    event.cluster_name = "c"
    event.node_labels["z"] = "1"
    event.node_labels["a"] = "2"
    assert JsonRenderer().render([event]) == (
        '{"process_exec":{"process":{"exec_id":"aWQ=","pid":101708,"uid":0,"cwd":"/",'
        '"binary":"/usr/sbin/iptables","arguments":"-L","flags":"execve rootcwd",'
        '"start_time":"2026-01-01T00:00:00.120Z","auid":4294967295,'
        '"pod":{"namespace":"shop","name":"web-0","container":{"id":"docker://1","pid":0},'
        '"pod_labels":{"app":"web","tier":"front"}},"docker":"0123456789abcde",'
        '"parent_exec_id":"cGFyZW50","refcnt":1,'
        '"cap":{"effective":["CAP_SYS_ADMIN","CAP_CHOWN"]},'
        '"ns":{"uts":{"inum":4026531838,"is_host":true}},"tid":7,'
        '"environment_variables":[{"Key":"A","Value":"b"}]},"parent":{"pid":0}},'
        '"node_name":"node1","time":"2026-01-01T00:00:00.123456789Z","cluster_name":"c",'
        '"node_labels":{"a":"2","z":"1"}}\n'
    )


def test_our_own_fields_are_shown_on_request_only(exec_event):
    event = exec_event(argv=[b"iptables", b"-L"])
    assert "user_name" not in JsonRenderer().render([event])
    shown = json.loads(JsonRenderer(extensions=True).render([event]))
    assert shown["process_exec"]["process"]["user_name"] == "root"
    assert shown["process_exec"]["process"]["argv"] == ["aXB0YWJsZXM=", "LUw="]


def test_wrappers_are_shown_when_they_are_zero(exec_event):
    event = exec_event(pid=0)
    event.process_exec.process.in_init_tree.value = False
    process = json.loads(JsonRenderer().render([event]))["process_exec"]["process"]
    assert (process["pid"], process["in_init_tree"]) == (0, False)


def test_terminal_control_sequences_are_never_printed_raw(exec_event):
    nasty = "\x1b[2J\x7f\u009b31m\u202e\u2028\U000e0041é😀"
    text = JsonRenderer().render([exec_event(arguments=nasty)])
    assert all(char.isprintable() for char in text.rstrip("\n"))
    assert "é😀" in text
    assert json.loads(text)["process_exec"]["process"]["arguments"] == nasty
