"""What ``tetra doctor`` says."""

import socket
import threading

import pytest

from cli.commands import doctor
from tetra.v1.node_pb2 import NodeInfo


@pytest.mark.parametrize(
    ("release", "level"), [("5.7.19", "bad"), ("4.19", "bad"), ("5.8.0", "ok"), ("6.12-x", "ok")]
)
def test_kernel(release, level):
    assert doctor.kernel(release).level == level


def test_missing_btf_has_advice(tmp_path):
    finding = doctor.btf(str(tmp_path / "vmlinux"))
    assert finding.level == "bad"
    assert "CONFIG_DEBUG_INFO_BTF" in finding.advice


@pytest.mark.parametrize(
    ("mask", "level"),
    [
        ("0000000000000000", "bad"),
        (f"{1 << 2 | 1 << 19 | 1 << 38 | 1 << 39:016x}", "ok"),
        (f"{1 << 2 | 1 << 19 | 1 << 21:016x}", "ok"),
        (f"{1 << 21:016x}", "bad"),
    ],
)
def test_capabilities(tmp_path, mask, level):
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapEff:\t{mask}\n")
    assert doctor.capabilities(str(status)).level == level


@pytest.mark.parametrize(
    ("greeting", "level"),
    [
        (b'INFO {"version":"2.15.0","jetstream":true}\r\n', "ok"),
        (b'INFO {"version":"2.15.0"}\r\n', "bad"),
        (b"HTTP/1.1 400\r\n", "bad"),
    ],
)
def test_nats(greeting, level):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        port = server.getsockname()[1]
        assert doctor.nats(f"nats://user:secret@127.0.0.1:{port}").level == level
        thread.join(5)


def test_nats_that_does_not_answer():
    finding = doctor.nats("nats://127.0.0.1:1")
    assert (finding.level, finding.fact) == ("bad", "127.0.0.1:1: connection refused")


@pytest.mark.parametrize(
    ("mounts", "fact"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "v2"),
        (
            "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
            "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "v1 (memory)",
        ),
        (
            "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n"
            "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "v2",
        ),
        ("proc /proc proc rw 0 0\n", "not mounted"),
    ],
)
def test_cgroups_are_those_that_the_collector_will_use(tmp_path, mounts, fact):
    file = tmp_path / "mounts"
    file.write_text(mounts)
    assert doctor.cgroup_mount(str(file)).fact == fact


def proc_of(folder, namespace, *, first=True):
    """Make a folder that looks like /proc."""
    (folder / "self/ns").mkdir(parents=True)
    (folder / "self/ns/pid").symlink_to(f"pid:[{namespace}]")
    if first:
        (folder / "1").mkdir()
        (folder / "1/stat").write_text("1 (init) S")
    return str(folder)


def test_proc(tmp_path):
    assert doctor.proc_mount(proc_of(tmp_path / "host", 4026531836)).level == "ok"
    inside = doctor.proc_mount(proc_of(tmp_path / "inside", 4026532201))
    assert (inside.level, "--pid=host" in inside.advice) == ("warn", True)
    hidden = doctor.proc_mount(proc_of(tmp_path / "hidden", 4026531836, first=False))
    assert (hidden.level, "hidepid" in hidden.advice) == ("bad", True)


@pytest.mark.parametrize(
    ("text", "level"),
    [("none [integrity] confidentiality", "ok"), ("none integrity [confidentiality]", "bad")],
)
def test_lockdown(tmp_path, text, level):
    (tmp_path / "lockdown").write_text(text)
    assert doctor.lockdown(str(tmp_path / "lockdown")).level == level
    assert doctor.lockdown(str(tmp_path / "none")).level == "ok"


def test_line_has_the_fact_then_the_advice():
    finding = doctor.Finding("bad", "BTF", "missing\x1b", "build it in")
    assert doctor._line(finding, colour=False, unicode=True) == (
        "✘ BTF           missing\\x1b\n                → build it in\n"
    )
    assert doctor._line(finding, colour=True, unicode=False).startswith("\x1b[31mbad \x1b[0m BTF")


@pytest.mark.parametrize(
    ("counts", "level", "fact"),
    [
        ({"loaded": 3}, "ok", "4 loaded on 2 nodes, 3.50 kB of kernel memory"),
        (
            {"loaded": 2, "failed": 1},
            "warn",
            "3 loaded on 2 nodes, 3.50 kB of kernel memory; 1 f",
        ),
        ({"lost": 7}, "warn", "; 7 records lost, 0 runs missed on a"),
        ({"missed": 2}, "warn", "; 0 records lost, 2 runs missed on a"),
    ],
)
def test_policies(counts, level, fact):
    nodes = [NodeInfo(node_name="a", policies={"kernel_memory_bytes": 3000, **counts})]
    nodes.append(NodeInfo(node_name="b", policies={"kernel_memory_bytes": 500, "loaded": 1}))
    finding = doctor.policies(nodes)
    assert finding.level == level
    assert fact in finding.fact
    assert bool(finding.advice) == (level == "warn")
