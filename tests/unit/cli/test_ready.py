"""Lines of ready-made policies in every output; a user's own policy keeps the general form."""

import pytest
from google.protobuf.json_format import ParseDict

from cli.process_tree import ProcessTree
from cli.renderers.compact import CompactRenderer
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.pen import CompactOptions
from cli.renderers.ready.dns import question
from cli.renderers.ready.network import amount
from cli.resume import Batch
from cli.top_model import TopModel
from tetragon.events_pb2 import GetEventsResponse

PROCESS = {"pid": 7, "exec_id": "x", "binary": "/usr/bin/vi", "arguments": "-n", "uid": 0}
QUESTION = bytes.fromhex(
    "1234 0100 0001 0000 0000 0000 03777777 07 6578616d706c65 03636f6d 00 001c 0001"
)


def event(kind, policy, **body):
    inner = {"process": PROCESS, "policy_name": policy, "tags": [f"ready/{policy}"], **body}
    return ParseDict({f"process_{kind}": inner, "node_name": "n"}, GetEventsResponse())


def kprobe(policy, function, *args, message="", result=None, data=()):
    more = {"return": result} if result is not None else {}
    return event(
        "kprobe", policy, function_name=function, message=message, args=list(args),
        data=list(data), **more,
    )  # fmt: skip


def sock(state="", **members):
    return {"sock_arg": {"family": "AF_INET", "saddr": "10.0.0.1", "sport": 40000,
                         "daddr": "1.1.1.1", "dport": 443} | members}  # fmt: skip


def number(value, label=""):
    return {"int_arg": value, "label": label}


def text(value, label):
    return {"string_arg": value, "label": label}


def path(value, label=""):
    return {"path_arg": {"path": value}, "label": label}


def file(value, label="path"):
    return {"file_arg": {"path": value}, "label": label}


def state(message, *args):
    return event("tracepoint", "network", subsys="sock", event="inet_sock_set_state",
                 message=message, args=list(args))  # fmt: skip


LINES = [
    (kprobe("files", "__x64_sys_openat", number(0o2101, "flags"), message="open",
            result=file("/etc/hosts", "")), "📂 open", "to append /etc/hosts"),
    (kprobe("files", "security_file_open", file("/etc/shadow"), {"uint_arg": 29},
            {"uint_arg": 0o100000, "label": "flags"}, message="open"),
     "📂 open", "to read /etc/shadow"),
    (kprobe("files", "__x64_sys_openat", text("/etc/shadow", "path"), number(0, "flags"),
            message="denied", result={"int_arg": -13}), "🚫 denied", "to read /etc/shadow EACCES"),
    (kprobe("files", "security_path_unlink", path("/etc", "dir"), path("/cron (deleted)", "name"),
            message="remove"), "❌ remove", "/etc/cron"),
    (kprobe("files", "__x64_sys_unlinkat", file("/etc/cron.d", "dir"), text("x", "path"),
            number(5, "fd"), result={"int_arg": 0}), "❌ remove", "/etc/cron.d/x"),
    (kprobe("files", "__x64_sys_rename", text("a", "path"), text("../b", "to"),
            data=[path("/etc/x", "cwd")], result={"int_arg": -2}),
     "🔀 rename", "/etc/x/a -> /etc/b ENOENT"),
    (kprobe("files", "security_path_rename", path("/etc", "dir"), path("/a", "name"),
            path("/srv", "to_dir"), path("/b", "to_name")), "🔀 rename", "/etc/a -> /srv/b"),
    (kprobe("files", "__x64_sys_symlink", text("/etc/a", "path"), text("../b", "target"),
            data=[path("/srv", "cwd")]), "📄 create", "/etc/a -> ../b"),
    (kprobe("files", "__x64_sys_fchmodat", text("/etc/a", "path"), number(-100, "fd"),
            {"uint_arg": 0o4755, "label": "mode"}), "🔏 chmod", "/etc/a 4755"),
    (kprobe("files", "security_path_chown", path("/etc/a", "path"), {"uint_arg": 0, "label": "uid"},
            {"uint_arg": 2**32 - 1, "label": "gid"}, message="chown"), "👤 chown", "/etc/a uid 0"),
    (event("tracepoint", "files", event="io_uring_submit_req", message="open",
           args=[{"string_arg": "/etc/x"}, {"uint_arg": 18}]), "📂 open", "/etc/x"),
    (event("tracepoint", "files", event="io_uring_submit_req", message="rename",
           args=[text("/etc/x", "path"), text("/etc/y", "to"), {"uint_arg": 35}]),
     "🔀 rename", "/etc/x -> /etc/y"),
    (state("connect", sock(), number(2), number(1), number(0), {"size_arg": 5}),
     "🔌 connect", "tcp 1.1.1.1:443"),
    (state("connect", sock(family="AF_INET6", daddr="::1"), number(2), number(7), number(111)),
     "🔌 connect", "tcp [::1]:443 ECONNREFUSED"),
    (state("listen", sock(dport=0, daddr="0.0.0.0", sport=80), number(10)),
     "👂 listen", "tcp 10.0.0.1:80"),
    (kprobe("network", "udp_destroy_sock", sock(protocol="IPPROTO_UDP"),
            {"size_arg": 2_500_000_000}, {"size_arg": 1234}, {"size_arg": 5}, message="close"),
     "🔚 close",
     "udp 10.0.0.1:40000 and 1.1.1.1:443 sent 1.23 kB received 5 B in 2.5s"),
    (kprobe("network", "udpv6_destroy_sock",
            sock(protocol="IPPROTO_UDP", saddr="::", daddr="::", dport=0), {"size_arg": 10**9},
            {"size_arg": 0}, {"size_arg": 7}, message="close"), "🔚 close",
     "udp [::]:40000 sent 0 B received 7 B in 1.0s"),
    (state("close", sock(), number(9), number(7), {"size_arg": 1_500_000_000}, {"size_arg": 1234},
           {"size_arg": 24}),
     "🔚 close", "tcp 10.0.0.1:40000 and 1.1.1.1:443 sent 1.23 kB received 23 B in 1.5s"),
    (kprobe("network", "inet_csk_accept", message="accept", result=sock()),
     "📥 accept", "tcp 10.0.0.1:40000 from 1.1.1.1:443"),
    (kprobe("network", "__x64_sys_sendto", sock(dport=0, daddr="0.0.0.0"),
            {"sockaddr_arg": {"family": "AF_INET", "addr": "9.9.9.9", "port": 53}}, message="send"),
     "📤 send", "udp 9.9.9.9:53"),
    (kprobe("network", "udp_sendmsg", sock(), {"error_arg": {"Message": "x"}}, message="send"),
     "📤 send", "udp 1.1.1.1:443"),
    (event("tracepoint", "network", message="lookup", args=[
        {"skb_arg": {"family": "AF_INET", "daddr": "9.9.9.9", "dport": 53}}, {"size_arg": 1},
        {"bytes_arg": "EjQBAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAHAAB"}]),
     "🔎 lookup", "www.example.com AAAA at 9.9.9.9:53"),
    (kprobe("credentials", "__x64_sys_setresuid", number(-1, "uid"), number(0, "euid"),
            number(1000, "suid"), result={"int_arg": -1}),
     "🔑 setresuid", "euid 0 suid 1000 EPERM"),
    (event("tracepoint", "credentials", message="set-id",
           args=[{"uint_arg": 1000}, {"uint_arg": 0}, {"uint_arg": 5}, {"uint_arg": 5}]),
     "🔑 set-id", "uid 1000 -> 0"),
    (event("tracepoint", "credentials", message="set-id",
           args=[{"uint_arg": 1000}, {"uint_arg": 1000}, number(0),
                 {"kernel_cap_t_arg": "0000000000000001"},
                 {"cap_permitted_arg": "0000008000002003"}]),
     "🔑 set-id", "capabilities CAP_DAC_OVERRIDE+CAP_NET_RAW+CAP_BPF"),
    (kprobe("credentials", "__x64_sys_setns", number(3, "entered"),
            {"size_arg": 0x10000000, "label": "flags"}, message="userns", result={"int_arg": 0}),
     "🔑 userns", "user namespace entered"),
    (kprobe("credentials", "__x64_sys_keyctl", number(0, "operation"),
            {"long_arg": 2**32 - 3, "label": "key"}), "🔑 keyctl", "get_keyring_id session"),
    (kprobe("credentials", "__x64_sys_keyctl", number(3, "operation"),
            {"long_arg": 449132463, "label": "key"}), "🔑 keyctl", "revoke 449132463"),
    (kprobe("credentials", "__x64_sys_keyctl", number(1, "operation"),
            {"long_arg": 94_000_000_000_000, "label": "key"}), "🔑 keyctl",
     "join_session_keyring"),
    (kprobe("credentials", "__x64_sys_ptrace", {"long_arg": 16, "label": "request"},
            {"long_arg": 812, "label": "pid"}, result={"int_arg": 0}), "🔬 ptrace", "attach 812"),
    (kprobe("credentials", "__x64_sys_prctl", number(24, "option"), {"size_arg": 21,
            "label": "value"}), "🔑 prctl", "drop CAP_SYS_ADMIN"),
    (kprobe("host", "__x64_sys_mount", text("/mnt", "path"), text("/dev/vda", "source"),
            text("ext4", "type"), {"size_arg": 0, "label": "flags"}, result={"int_arg": -1}),
     "💽 mount", "/dev/vda on /mnt ext4 EPERM"),
    (kprobe("host", "__x64_sys_mount", text("/", "path"), text("none", "source"),
            {"size_arg": 0x44000, "label": "flags"}, result={"int_arg": 0}),
     "💽 mount", "none on / recursive private"),
    (kprobe("host", "__x64_sys_sethostname", {"bytes_arg": "d2ViLTE=", "label": "name"},
            result={"int_arg": 0}), "🔧 sethostname", "web-1"),
    (kprobe("host", "__x64_sys_fspick", file("", "dir"), text("/mnt", "path")),
     "💽 fspick", "/mnt"),
    (kprobe("host", "__x64_sys_setns", file("", "namespace"), {"size_arg": 0, "label": "flags"},
            result={"int_arg": -22}), "🧭 setns", "namespace EINVAL"),
    (kprobe("host", "__x64_sys_unshare", {"size_arg": 0x40020000, "label": "flags"}),
     "🧭 unshare", "mount net"),
    (kprobe("host", "__x64_sys_bpf", {"bpf_cmd_arg": "BPF_PROG_LOAD", "label": "command"},
            result={"int_arg": 5}), "🐝 bpf", "prog_load"),
    (kprobe("host", "__x64_sys_openat", number(1, "flags"), message="setting",
            result=file("/proc/sys/kernel/x", "")), "🔧 setting", "/proc/sys/kernel/x"),
    (event("tracepoint", "syscalls", message="syscall",
           args=[{"size_arg": 257}, {"syscall_id": {"id": 257, "abi": "x64"}}]),
     "📌 syscall", "openat"),
    (kprobe("capabilities", "cap_capable", {"capability_arg": {"value": 12,
            "name": "CAP_NET_ADMIN"}}, {"uint_arg": 0}, message="capability"),
     "📌 capability", "CAP_NET_ADMIN"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "label", "rest"), LINES)
def test_line(one, label, rest):
    line = LifecycleRenderer().render([one])
    assert line == f"{label} 7: 0: /usr/bin/vi -n {rest}\n"


@pytest.mark.parametrize(("one", "label", "rest"), LINES)
def test_compact_line(one, label, rest):
    line = CompactRenderer(CompactOptions()).render([one])
    emoji, word = label.split()
    assert line == f"{emoji} {word:<7} n /usr/bin/vi {rest}\n"


def test_policy_of_a_user_keeps_the_general_form():
    one = kprobe("files", "__x64_sys_openat", text("/etc/x", "path"), result={"int_arg": 3})
    del one.process_kprobe.tags[:]
    assert "❓ kprobe 7: 0: /usr/bin/vi -n -> openat(path=/etc/x) = 3 {files}" in (
        LifecycleRenderer().render([one])
    )
    one.process_kprobe.tags.append("ready/other")
    assert "❓ kprobe" in LifecycleRenderer().render([one])


def test_tree_counts_what_was_done():
    tree = ProcessTree(keeps_ended=10)
    for one, _, _ in LINES[:3]:
        tree.add(one)
    (root,) = tree.roots
    assert root.state() == "running, 1 denied, 2 open"


def test_top_counts_files_and_peers():
    model = TopModel()
    model.take(Batch([one for one, _, _ in LINES]), 100.0)
    by_file = {row.name: row for row in model.rows("file", 101.0)}
    assert by_file["/etc/shadow"].total == 2
    assert by_file["/etc/shadow"].ends_per_s == 1.0
    by_peer = {row.name: row.total for row in model.rows("peer", 101.0)}
    assert by_peer["1.1.1.1"] == 5
    assert by_peer["9.9.9.9"] == 2
    assert "0.0.0.0" not in by_peer  # a socket that listens has none


def test_hostile_texts_are_escaped():
    one = kprobe("files", "__x64_sys_openat", number(1, "flags"), message="open",
                 result=file("/etc/\x1b[2J", ""))  # fmt: skip
    assert "\x1b" not in LifecycleRenderer().render([one])
    assert "\x1b" not in CompactRenderer(CompactOptions(guard=True)).render([one])


def test_no_event_of_a_ready_made_policy_raises():
    for policy in ("files", "network", "credentials", "host", "syscalls", "capabilities"):
        for message in ("", "open", "connect", "accept", "listen", "close", "send", "lookup",
                        "set-id", "mount", "bpf", "reboot", "setting"):  # fmt: skip
            for one in (
                kprobe(policy, "x", message=message),
                event("tracepoint", policy, message=message),
                event("tracepoint", policy, message=message, args=[{"error_arg": {}}]),
                event("lsm", policy, message=message),
            ):
                LifecycleRenderer().render([one])


@pytest.mark.parametrize("size", range(len(QUESTION)))
def test_truncated_question_is_ignored(size):
    assert question(QUESTION[:size]) == ""


def test_questions():
    assert question(QUESTION) == "www.example.com AAAA"
    assert question(QUESTION[:2] + b"\x81\x80" + QUESTION[4:]) == ""  # an answer
    assert question(QUESTION[:12] + b"\0\0\x02\0\1") == ". NS"
    assert question(QUESTION[:12] + b"\xc0\x0c\0\1\0\1") == ""


def test_amounts():
    assert [amount(n) for n in (0, 999, 1000, 999_499, 10**12)] == [
        "0 B", "999 B", "1 kB", "999 kB", "1 TB",
    ]  # fmt: skip
