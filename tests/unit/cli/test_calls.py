"""What a policy saw, in the lines that a person reads, and in the fields of --format."""

import pytest

from cli.renderers.kinds.calls import argument, outcome
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.template import TemplateRenderer
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import (
    Capabilities,
    KernelModule,
    KprobeAction,
    KprobeArgument,
    KprobeBpfAttr,
    KprobeBpfMap,
    KprobeCapability,
    KprobeError,
    KprobeFile,
    KprobeNetDev,
    KprobePath,
    KprobePerfEvent,
    KprobeSkb,
    KprobeSock,
    KprobeSockaddr,
    KprobeSockaddrUn,
    KprobeTruncatedBytes,
    Namespace,
    ProcessCredentials,
    SyscallId,
    UserNamespace,
)

FLOW = {"family": "AF_INET", "protocol": "IPPROTO_TCP", "saddr": "10.0.0.1", "daddr": "1.1.1.1"}


def credentials(uid, euid, caps):
    cred = ProcessCredentials(caps=Capabilities(effective=caps))
    cred.uid.value, cred.euid.value, cred.gid.value = uid, euid, 5
    return cred


def module(signature_ok=None):
    found = KernelModule(name="veth")
    if signature_ok is not None:
        found.signature_ok.value = signature_ok
    return found


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        ({"int_arg": -100}, "-100"),
        ({"size_arg": 2**63}, "9223372036854775808"),
        ({"string_arg": "/etc/passwd", "label": "file"}, "file=/etc/passwd"),
        ({"file_arg": KprobeFile(path="/etc/passwd")}, "/etc/passwd"),
        ({"path_arg": KprobePath(path="/a", flags="unresolvedPathComponents")}, "/a..."),
        ({"file_arg": KprobeFile(permission="prw-------")}, "<pipe>"),
        ({"file_arg": KprobeFile(permission="---------")}, "<no name>"),
        ({"bytes_arg": b"ls\n"}, '"ls\n"'),
        ({"bytes_arg": b"x" * 65}, '"' + "x" * 64 + '"... (65 bytes)'),
        (
            {"truncated_bytes_arg": KprobeTruncatedBytes(bytes_arg=b"ab\xff", orig_size=5000)},
            '"ab\\xff"... (5000 bytes)',
        ),
        (
            {"sock_arg": KprobeSock(sport=40000, dport=443, **FLOW)},
            "tcp 10.0.0.1:40000 > 1.1.1.1:443",
        ),
        ({"sock_arg": KprobeSock(family="AF_NETLINK", protocol="IPPROTO_IP")}, "netlink"),
        (
            {"skb_arg": KprobeSkb(sport=1, dport=2, len=60, **FLOW)},
            "tcp 10.0.0.1:1 > 1.1.1.1:2 60 bytes",
        ),
        ({"sockaddr_arg": KprobeSockaddr(family="AF_INET6", addr="::1", port=80)}, "::1:80"),
        ({"sockaddr_arg": KprobeSockaddr(addr="invalid IP")}, "?"),
        ({"sockaddrun_arg": KprobeSockaddrUn(path="@bus")}, "@bus"),
        (
            {"process_credentials_arg": credentials(0, 0, range(41))},
            "uid 0, gid 5, all capabilities",
        ),
        (
            {"process_credentials_arg": credentials(1000, 0, [21])},
            "uid 1000 (effective 0), gid 5, CAP_SYS_ADMIN",
        ),
        (
            {"process_credentials_arg": credentials(0, 0, [21, 77777])},  # of a later kernel
            "uid 0, gid 5, CAP_SYS_ADMIN capability 77777",
        ),
        ({"user_ns_arg": UserNamespace(ns=Namespace(inum=7, is_host=True))}, "the host's"),
        ({"capability_arg": KprobeCapability(name="CAP_KILL")}, "CAP_KILL"),
        ({"cap_effective_arg": "00000000000001ff"}, "00000000000001ff"),
        (
            {"bpf_attr_arg": KprobeBpfAttr(ProgType="BPF_PROG_TYPE_LSM", InsnCnt=9)},
            "lsm <no name>, 9 instructions",
        ),
        (
            {"bpf_map_arg": KprobeBpfMap(MapType="BPF_MAP_TYPE_HASH", MaxEntries=3, MapName="m")},
            "hash m, 3 entries",
        ),
        (
            {"perf_event_arg": KprobePerfEvent(Type="PERF_TYPE_SOFTWARE", KprobeFunc="f")},
            "software f",
        ),
        ({"module_arg": module()}, "veth"),
        ({"module_arg": module(False)}, "veth (signature bad)"),
        ({"net_dev_arg": KprobeNetDev(name="eth0")}, "eth0"),
        ({"syscall_id": SyscallId(id=59, abi="x64")}, "execve"),
        ({"bpf_cmd_arg": 5}, "BPF_PROG_LOAD"),
        ({"error_arg": KprobeError(Message="Bad address")}, "<Bad address>"),
        ({}, "?"),
    ],
)
def test_arguments_are_readable(arg, text, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert argument(KprobeArgument(**arg)) == text


def test_only_actions_that_act_are_an_outcome():
    post, kill = KprobeAction.KPROBE_ACTION_POST, KprobeAction.KPROBE_ACTION_SIGKILL
    assert outcome(post, post) == ""
    assert outcome(kill, post) == "SIGKILL"
    assert outcome(kill, kill) == "SIGKILL"
    assert outcome(99) == "action 99"


@pytest.fixture
def opened():
    event = GetEventsResponse(node_name="node-1")
    body = event.process_kprobe
    body.process.pid.value, body.process.uid.value = 7, 0
    body.process.binary, body.process.arguments = "/usr/bin/cat", "/etc/passwd"
    body.function_name, body.policy_name = "__x64_sys_openat", "files"
    body.args.add(int_arg=-100)
    body.args.add(string_arg="/etc/\x1b[2Jpasswd")
    getattr(body, "return").int_arg = -13
    body.action = KprobeAction.KPROBE_ACTION_SIGKILL
    return event


def test_a_call_in_one_line(opened):
    assert LifecycleRenderer().render([opened]) == (
        "❓ kprobe 7: 0: /usr/bin/cat /etc/passwd "
        "-> openat(-100, /etc/\\x1b[2Jpasswd) = -13 {files} SIGKILL\n"
    )


def test_a_call_in_fields(opened):
    template = TemplateRenderer("{{policy}} {{function}} {{args}} {{action}}")
    assert template.render([opened]) == (
        "files __x64_sys_openat -100, /etc/\\x1b[2Jpasswd SIGKILL\n"
    )
    exec_event = GetEventsResponse()
    exec_event.process_exec.process.pid.value = 1
    assert template.render([exec_event]) == "   \n"


def test_a_tracepoint_a_uprobe_and_a_usdt_in_one_line(opened):
    process = opened.process_kprobe.process
    tracepoint, uprobe, usdt = (GetEventsResponse(node_name="node-1") for _ in range(3))
    tracepoint.process_tracepoint.process.CopyFrom(process)
    tracepoint.process_tracepoint.subsys, tracepoint.process_tracepoint.event = "sched", "x"
    tracepoint.process_tracepoint.args.add(size_arg=5)
    uprobe.process_uprobe.process.CopyFrom(process)
    uprobe.process_uprobe.path, uprobe.process_uprobe.offset = "/bin/bash", 64
    usdt.process_usdt.process.CopyFrom(process)
    usdt.process_usdt.path, usdt.process_usdt.provider = "/b", "p"
    usdt.process_usdt.name, usdt.process_usdt.policy_name = "n", "probes"
    who = "7: 0: /usr/bin/cat /etc/passwd ->"
    assert LifecycleRenderer().render([tracepoint, uprobe, usdt]) == (
        f"⁉️ tracepoint {who} sched/x(5)\n"
        f"🕵️ uprobe {who} /bin/bash:0x40()\n"
        f"🕵️ usdt {who} /b:p:n() {{probes}}\n"
    )
