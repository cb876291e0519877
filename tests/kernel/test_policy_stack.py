"""The whole product with policies of every kind: the JSON lines of a client, as whole messages.

Real collector, NATS server and gateway; only kinds of hooks that every kernel has.
"""

import json
import os
import subprocess

import pytest

from support.calls import ABI, PREFIX
from support.waiting import wait_until
from support.workloads import built
from vm.guest.prove import READY_S, Stack

# A guest compiles all policies itself.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(3 * READY_S)]

_HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {{name: {name}}}\nspec:\n"
_GETSID = {"x86_64": 124, "aarch64": 156}[os.uname().machine]
_POST = "KPROBE_ACTION_POST"
# name -> what the document has below spec; FILE, PROGRAM stand for their paths.
_POLICIES = {
    "call": """\
  kprobes:
  - call: sys_openat
    message: 'it "opens"'
    tags: [files, two words]
    args:
    - {index: 0, type: int, label: folder}
    - {index: 1, type: string}
    - {index: 2, type: uint32}
    selectors: [{matchArgs: [{index: 1, operator: Equal, values: [FILE]}]}]
""",
    "call-return": """\
  kprobes:
  - call: sys_write
    return: true
    args:
    - {index: 0, type: fd}
    - {index: 1, type: char_buf, sizeArgIndex: 3}
    - {index: 2, type: size_t}
    returnArg: {index: 0, type: int64}
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: [FILE]}]}]
""",
    "list": """\
  lists: [{name: copies, type: syscalls, values: [sys_dup, sys_dup3]}]
  kprobes:
  - call: "list:copies"
    selectors: [{matchBinaries: [{operator: In, values: [PROGRAM]}]}]
""",
    "act": """\
  kprobes:
  - call: sys_getpgid
    args: [{index: 0, type: int}]
    selectors:
    - matchBinaries: [{operator: In, values: [PROGRAM]}]
      matchActions: [{action: Post, rateLimit: 1m}, {action: Signal, argSig: 10}]
""",
    "exec": """\
  kprobes:
  - call: sys_execve
    return: true
    args: [{index: 0, type: string}]
    returnArg: {index: 0, type: int}
    selectors: [{matchBinaries: [{operator: In, values: [PROGRAM]}]}]
""",
    "numbers": """\
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}]
    selectors:
    - matchBinaries: [{operator: In, values: [PROGRAM]}]
      matchArgs: [{index: 4, operator: Equal, values: ["GETSID"]}]
""",
    "raw": """\
  tracepoints:
  - subsystem: sched
    event: sched_process_exec
    raw: true
    args: [{index: 2, type: linux_binprm}]
    selectors: [{matchBinaries: [{operator: In, values: [PROGRAM]}]}]
""",
    "program": """\
  uprobes:
  - path: PROGRAM
    symbols: [take_probed]
    return: true
    args: [{index: 1, type: int}]
    returnArg: {index: 0, type: int}
""",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return built("hooks", tmp_path_factory.mktemp("stack-program"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack-file") / "opened"
    path.write_text("before\n")
    path.chmod(0o640)
    return str(path)


@pytest.fixture(scope="module")
def stack(program, file, tmp_path_factory):
    """The running services, once every policy is enabled."""
    folder, policies = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("policies")
    for name, text in _POLICIES.items():
        for word, value in (("FILE", file), ("PROGRAM", program), ("GETSID", str(_GETSID))):
            text = text.replace(word, value)
        (policies / f"{name}.yaml").write_text(_HEAD.format(name=name) + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TETRA_TRACING_POLICY_DIR", str(policies))
        started = Stack(folder)
    try:
        started.wait_for("Ctrl-C", READY_S)
        wait_until(lambda: _enabled(started, set(_POLICIES)), READY_S, started.text)
        yield started
    finally:
        started.stop()


def _enabled(stack, names):
    """Return whether the policies are enabled; none may fail."""
    listed = json.loads(stack.tetra("tracingpolicy", "list", "-o", "json")).get("policies", [])
    for one in listed:
        assert not one.get("error"), one
    return {one["name"] for one in listed if one["state"] == "TP_STATE_ENABLED"} == names


@pytest.fixture(scope="module")
def lines(stack, program, file):
    """The client's lines of one run of the workload."""
    with subprocess.Popen([program, file], cwd="/usr", env={"PATH": "/usr/bin"}) as process:
        assert process.wait(60) == 0  # of /usr/bin/true, which it becomes

    def read():
        text = stack.tetra("getevents", "--since", "1h", "--no-follow", "-o", "json")
        found = [json.loads(line) for line in text.splitlines()]
        found = [one for one in found if process.pid in _pids(_body(one))]
        ended = [_body(one)["process"]["pid"] for one in found if "process_exit" in one]
        return found if process.pid in ended else None

    return wait_until(read, 60, stack.text)


def _pids(body):
    return body["process"]["pid"], body.get("parent", {}).get("pid")


def _body(line):
    (body,) = (value for key, value in line.items() if key.startswith("process_"))
    return body


def _reported(lines, name):
    """Return the policy's messages, after a check of what is the same in all."""
    started = next(one["process_exec"] for one in lines if "process_exec" in one)
    found = []
    for line in lines:
        body = dict(_body(line))
        if body.get("policy_name") != name or body["process"]["pid"] != started["process"]["pid"]:
            continue
        assert set(line) - {"node_name", "time"} == {key for key in line if "process" in key}
        assert line["time"][:19] >= started["process"]["start_time"][:19]
        assert line["node_name"] == f"prove-{os.getpid()}"
        process, parent = body.pop("process"), body.pop("parent")
        assert process == {**started["process"], "refcnt": process["refcnt"]}
        assert {**parent, "refcnt": 0} == {**started["parent"], "refcnt": 0}
        (kind,) = (key for key in line if key.startswith("process_"))
        found.append({kind: body})
    return found


def _kprobe(function, *args, **more):
    body = {"function_name": function, "args": list(args), "return_action": _POST, **more}
    return "process_kprobe", body


def _expected(program, file):
    """Return the messages of each policy, without what is the same in all."""
    of_file = {"path": file, "permission": "-rw-r-----"}
    of_program = {"path": program, "permission": "-rwxr-xr-x"}
    return {
        "call": [_kprobe(
            f"{PREFIX}openat",
            {"int_arg": -100, "label": "folder"},
            {"string_arg": file},
            {"uint_arg": os.O_RDWR | os.O_CLOEXEC},
            message=r'it \"opens\"', tags=["files", "two words"],
        )],
        "call-return": [_kprobe(
            f"{PREFIX}write",
            {"file_arg": of_file}, {"bytes_arg": "Y29udGVudAo="}, {"size_arg": "8"},
            **{"return": {"long_arg": "8"}},
        )],
        "list": [_kprobe(f"{PREFIX}dup")],
        "act": [_kprobe(f"{PREFIX}getpgid", {"int_arg": -7}, action="KPROBE_ACTION_SIGNAL")],
        # Of the process that called, also where the call returned in another program.
        "exec": [
            _kprobe(
                f"{PREFIX}execve",
                {"string_arg": "/nonexistent/program"}, **{"return": {"int_arg": -2}},
            ),
            _kprobe(
                f"{PREFIX}execve", {"string_arg": "/usr/bin/true"}, **{"return": {"int_arg": 0}}
            ),
        ],
        "numbers": [("process_tracepoint", {
            "subsys": "raw_syscalls", "event": "sys_enter",
            "args": [{"syscall_id": {"id": _GETSID, "abi": ABI}}],
        })],
        "raw": [("process_tracepoint", {
            "subsys": "sched", "event": "sched_process_exec",
            "args": [{"linux_binprm_arg": of_program}],
        })],
        "program": [("process_uprobe", {
            "path": program, "symbol": "take_probed",
            "args": [{"int_arg": 41}, {"int_arg": 42}],
        })],
    }  # fmt: skip


def test_lines_of_a_client(lines, program, file):
    wanted = {
        name: [
            {kind: {"action": _POST, "policy_name": name, **_present(body)}}
            for kind, body in messages
        ]
        for name, messages in _expected(program, file).items()
    }
    found = {name: _reported(lines, name) for name in wanted}
    assert found == wanted
    names = {_body(line).get("policy_name") for line in lines}
    assert names - {None} == set(wanted)


def test_an_execve_of_a_fork_returns_in_its_caller(lines, program):
    """The process that called has no exec of its own, and ended when the call returned."""
    started = next(one["process_exec"] for one in lines if "process_exec" in one)["process"]
    (found,) = (
        body
        for body in map(_body, lines)
        if body.get("policy_name") == "exec" and body["process"]["pid"] != started["pid"]
    )
    process, parent = found.pop("process"), found.pop("parent")
    own = ("exec_id", "pid", "tid", "start_time")
    assert {**process, "refcnt": 0} == {
        **started,
        "refcnt": 0,
        **{key: process[key] for key in own},
        "parent_exec_id": started["exec_id"],
        "flags": "execve",
    }
    assert process["pid"] == process["tid"]
    assert process["exec_id"] not in ("", started["exec_id"])
    assert {**parent, "refcnt": 0} == {**started, "refcnt": 0}
    _, body = _kprobe(f"{PREFIX}execve", {"string_arg": "/usr/bin/true"})
    assert found == {
        **body, "return": {"int_arg": 0}, "action": _POST, "policy_name": "exec",
    }  # fmt: skip


def _present(body):
    return {key: value for key, value in body.items() if value != []}
