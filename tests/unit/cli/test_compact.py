"""Compact output, held to the facts about Tetragon's."""

import pytest

from cli.renderers.compact import CompactRenderer, TtyRenderer
from cli.renderers.kinds.kprobe_rows import ROWS
from cli.renderers.pen import CompactOptions, quote
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import (
    KprobeArgument,
    KprobeBpfAttr,
    KprobeBpfMap,
    KprobeFile,
    KprobeLinuxBinprm,
    KprobePath,
    KprobePerfEvent,
    KprobeSock,
    Pod,
    StackTraceEntry,
)

FILE = KprobeArgument(file_arg=KprobeFile(path="/etc/passwd"))
SPACED = KprobeArgument(file_arg=KprobeFile(path="/tmp/a b"))
SOCK = KprobeArgument(
    sock_arg=KprobeSock(saddr="10.0.0.1", sport=40000, daddr="1.1.1.1", dport=443)
)


def size(number):
    return KprobeArgument(size_arg=number)


def integer(number):
    return KprobeArgument(int_arg=number)


def text(value):
    return KprobeArgument(string_arg=value)


def line(event, **options):
    return CompactRenderer(CompactOptions(**options)).render([event])


@pytest.mark.parametrize(
    ("raw", "quoted"),
    [
        ("", ""),
        ("-l", "-l"),
        ("é世😀", "é世😀"),
        ("-l /srv", '"-l /srv"'),
        (' "a b" c', '" \\"a b\\" c"'),
        ("a\\b c", '"a\\\\b c"'),
        ("\x1b[2J", '"\\x1b[2J"'),
        ("\a\b\f\n\r\t\v\x7f", '"\\a\\b\\f\\n\\r\\t\\v\\x7f"'),
        ("\u00a0\u009b\u2028\U000e0041", '"\\u00a0\\u009b\\u2028\\U000e0041"'),
    ],
)
def test_quoting_follows_go(raw, quoted):
    assert quote(raw) == quoted


def test_exec_and_exit(exec_event, exit_event):
    ls = {"binary": "/usr/bin/ls", "arguments": "-l /srv"}
    assert line(exec_event(**ls)) == '🚀 process node1 /usr/bin/ls "-l /srv"\n'
    assert line(exit_event(**ls)) == '💥 exit    node1 /usr/bin/ls "-l /srv" 0\n'
    assert line(exec_event(arguments="")) == "🚀 process node1 /usr/sbin/iptables \n"
    assert line(exit_event(arguments="")) == "💥 exit    node1 /usr/sbin/iptables  0\n"
    assert line(exit_event(signal="SIGKILL")).endswith(" -L SIGKILL\n")
    pod = Pod(namespace="default", name="web-0")
    assert line(exec_event(pod=pod)) == "🚀 process default/web-0 /usr/sbin/iptables -L\n"


def test_count_of_equal_events_ends_the_line(exec_event):
    event = exec_event()
    for count, end in ((1, " -L\n"), (12, " -L x 12\n")):
        event.aggregation_info.count = count
        assert line(event).endswith(end)


def test_timestamps(exec_event):
    assert line(exec_event(), timestamps=True).startswith("2026-01-01T00:00:00.123456789Z 🚀 ")


def test_colours_and_their_padding(exec_event):
    painted = (
        "\x1b[34m🚀 process\x1b[0m \x1b[32mnode1\x1b[0m \x1b[35m/usr/sbin/iptables\x1b[0m "
        "\x1b[36m-L\x1b[0m"
    )
    padding = " " * (120 - len(painted.encode()) - len("\x1b[35m\x1b[0m"))
    assert line(exec_event(), colour=True) == f"{painted} {padding}\x1b[35m\x1b[0m\n"


def test_trailer_of_a_process_with_all_capabilities(exec_event):
    event = exec_event()
    event.process_exec.process.cap.effective.extend(range(22))
    start = "🚀 process node1 /usr/sbin/iptables -L"
    width = 120 - len(start.encode())
    assert line(event) == f"{start} {'🛑 CAP_SYS_ADMIN':>{width}}\n"
    del event.process_exec.process.cap.effective[0]
    assert line(event) == f"{start}\n"


def test_trailer_of_a_long_line_is_not_padded(exec_event):
    event = exec_event(arguments="x" * 200)
    event.process_exec.process.cap.effective.extend(range(40))
    assert line(event).endswith("x 🛑 CAP_SYS_ADMIN\n")


PROCESS = "node1 /usr/bin/cat"


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("process_loader", {"path": "/l.so", "buildid": b"\xab\x01"}, "🧬 loader  P ab01 /l.so"),
        ("process_loader", {"path": "/l.so"}, "🧬 loader  P /l.so"),
        ("process_uprobe", {"path": "/b", "symbol": "f g"}, '🕵️ uprobe  P /b "f g"'),
        ("process_usdt", {"path": "/b", "provider": "p", "name": "n"}, "🕵️ usdt    P /b p n"),
        ("process_lsm", {"function_name": "file_open"}, "🔒 LSM     P file_open"),
        ("process_tracepoint", {"subsys": "s", "event": "e"}, "⁉️ tracepoint P s e"),
        ("process_throttle", {"type": 1, "cgroup": "a.scope"}, "🧬 throttle START a.scope"),
        ("process_throttle", {"type": 2, "cgroup": "a.scope"}, "🧬 throttle STOP  a.scope"),
        ("process_throttle", {"cgroup": "a.scope"}, "🧬 throttle  a.scope"),
        ("test", {"arg0": 1}, "TEST EVENT"),
        (
            "process_tracepoint",
            {"subsys": "raw_syscalls", "event": "sys_enter"},
            "☎  syscall P unknown",
        ),
    ],
)
def test_kinds(event_of, kind, fields, expected):
    assert line(event_of(kind, **fields)) == f"{expected.replace('P', PROCESS, 1)}\n".replace(
        f"STO{PROCESS}", "STOP"
    )


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        ("__x64_sys_write", [FILE, text(""), size(12)], "📝 write   P /etc/passwd 12 bytes"),
        ("__arm64_sys_read", [SPACED, text(""), size(5)], '📚 read    P "/tmp/a b" 5 bytes'),
        ("__x64_sys_write", [], "📝 write   P  "),
        ("fd_install", [integer(3), FILE], "📬 open    P /etc/passwd"),
        ("fd_install", [], "📬 open    P "),
        ("__x64_sys_openat", [integer(0), text("/x")], "📬\ufe0f openat  P /x"),
        ("__ia32_sys_open", [text("/x"), text("/y")], "📬\ufe0f open    P /y"),
        ("__x64_sys_close", [FILE], "📪 close   P /etc/passwd"),
        ("__x64_sys_mount", [text("/dev/a"), text("/m")], "💾 mount   P /dev/a /m"),
        ("__x64_sys_setuid", [integer(7)], "🔑 setuid  P 7"),
        ("__x64_sys_clock_settime", [], "⏰ clock_settime P"),
        ("__x64_sys_pivot_root", [text("/a"), text("/b")], "💾 pivot_root P /a /b"),
        ("proc_exec_connector", [], "🔧 proc_exec_connector P"),
        ("__x64_sys_setns", [integer(3), integer(0x40000000)], "🔧 setns   P net"),
        ("__x64_sys_setns", [integer(3), integer(5)], "🔧 setns   P "),
        ("tcp_connect", [SOCK], "🔌 connect P tcp 10.0.0.1:40000 -> 1.1.1.1:443"),
        ("tcp_close", [SOCK], "🧹 close   P tcp 10.0.0.1:40000 -> 1.1.1.1:443"),
        (
            "tcp_sendmsg",
            [SOCK, integer(5)],
            "📤 sendmsg P tcp 10.0.0.1:40000 -> 1.1.1.1:443 bytes 5",
        ),
        ("tcp_sendmsg", [SOCK], "📤 sendmsg P tcp 10.0.0.1:40000 -> 1.1.1.1:443 bytes 0"),
        (
            "bpf_check",
            [KprobeArgument(bpf_attr_arg=KprobeBpfAttr(ProgType="T", ProgName="n", InsnCnt=9))],
            "🐝 bpf_load P T n instruction count 9",
        ),
        (
            "security_perf_event_alloc",
            [KprobeArgument(perf_event_arg=KprobePerfEvent(Type="T", KprobeFunc="f"))],
            "🐝 perf_event_alloc P T f",
        ),
        (
            "security_bpf_map_alloc",
            [KprobeArgument(bpf_map_arg=KprobeBpfMap(MapType="T", MapName="m"))],
            "🗺 bpf_map_create P T m key size 0 value size 0 max entries 0",
        ),
        (
            "security_file_permission",
            [FILE, integer(1)],
            "❓ security_file_permission P /etc/passwd",
        ),
        (
            "security_bpf_map_create",
            [
                KprobeArgument(
                    bpf_map_arg=KprobeBpfMap(
                        MapType="T", MapName="m", KeySize=1, ValueSize=2, MaxEntries=3
                    )
                )
            ],
            "🗺 bpf_map_create P T m key size 1 value size 2 max entries 3",
        ),
        ("security_file_permission", [FILE, integer(2)], "📝 write   P /etc/passwd"),
        ("security_file_permission", [FILE, integer(4)], "📚 read    P /etc/passwd"),
        ("security_file_permission", [], "❓ security_file_permission P "),
        (
            "security_mmap_file",
            [FILE, KprobeArgument(uint_arg=5)],
            "📝 mmap-rx P /etc/passwd",
        ),
        (
            "security_path_truncate",
            [KprobeArgument(path_arg=KprobePath(path="/t"))],
            "📝 truncate P /t",
        ),
        ("security_file_truncate", [FILE], "📝 truncate P /etc/passwd"),
        ("security_file_truncate", [], "❓ security_file_truncate P "),
        ("__x64_sys_lseek", [], "❓ syscall P __x64_sys_lseek"),
    ],
)
def test_kprobe_rows(event_of, function, args, expected):
    event = event_of("process_kprobe", function_name=function, args=args)
    assert line(event) == f"{expected.replace(' P', f' {PROCESS}', 1)}\n"


ROWS_WITHOUT_ARGUMENTS = {
    "__x64_sys_write": "📝 write   P  ",
    "__x64_sys_read": "📚 read    P  ",
    "fd_install": "📬 open    P ",
    "__x64_sys_openat": "📬\ufe0f openat  P ",
    "__x64_sys_open": "📬\ufe0f open    P ",
    "__x64_sys_close": "📪 close   P ",
    "__x64_sys_mount": "💾 mount   P  ",
    "__x64_sys_setuid": "🔑 setuid  P ",
    "__x64_sys_clock_settime": "⏰ clock_settime P",
    "__x64_sys_pivot_root": "💾 pivot_root P  ",
    "proc_exec_connector": "🔧 proc_exec_connector P",
    "__x64_sys_setns": "🔧 setns   P ",
    "tcp_connect": "🔌 connect P ",
    "tcp_close": "🧹 close   P ",
    "tcp_sendmsg": "📤 sendmsg P  bytes 0",
    "bpf_check": "🐝 bpf_load P ",
    "security_perf_event_alloc": "🐝 perf_event_alloc P ",
    "security_bpf_map_alloc": "🗺 bpf_map_create P ",
    "security_bpf_map_create": "🗺 bpf_map_create P ",
    "security_file_permission": "❓ security_file_permission P ",
    "security_mmap_file": "❓ security_mmap_file P ",
    "security_path_truncate": "❓ security_path_truncate P ",
    "security_file_truncate": "❓ security_file_truncate P ",
}


@pytest.mark.parametrize("function", ROWS_WITHOUT_ARGUMENTS)
@pytest.mark.parametrize("colour", [False, True])
def test_rows_without_arguments_keep_their_separators(event_of, function, colour):
    event = event_of("process_kprobe", function_name=function)
    expected = ROWS_WITHOUT_ARGUMENTS[function]
    if not colour:
        assert line(event) == f"{expected.replace(' P', f' {PROCESS}', 1)}\n"
        return
    label, _, rest = expected.partition(" P")
    painted = f"\x1b[34m{label}\x1b[0m \x1b[32mnode1\x1b[0m \x1b[35m/usr/bin/cat\x1b[0m{rest} "
    assert line(event, colour=True).startswith(painted)
    assert "\x1b[36m" not in line(event, colour=True)


def test_every_row_of_the_table_is_tested():
    functions = {name.removeprefix("__x64_") for name in ROWS_WITHOUT_ARGUMENTS}
    assert functions == set(ROWS)


def test_file_rows_with_an_argument_of_another_kind_have_an_absent_part(event_of):
    event = event_of(
        "process_kprobe", function_name="__x64_sys_write", args=[text("x"), FILE, FILE]
    )
    assert line(event) == f"📝 write   {PROCESS}  0 bytes\n"
    assert line(event, colour=True).count("\x1b[36m") == 1


@pytest.mark.parametrize(
    ("protection", "label"),
    [(0, "mmap-  "), (1, "mmap-r "), (2, "mmap-w "), (4, "mmap-x "), (7, "mmap-rwx")],
)
def test_mmap_label_has_the_protection(event_of, protection, label):
    args = [FILE, KprobeArgument(uint_arg=protection)]
    event = event_of("process_kprobe", function_name="security_mmap_file", args=args)
    assert line(event) == f"📝 {label} {PROCESS} /etc/passwd\n"


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (0, "any"),
        (0x2000000, "cgroup"),
        (0x8000000, "ipc"),
        (0x40000000, "net"),
        (0x20000, "mnt"),
        (0x20000000, "pid"),
        (0x80, "time"),
        (0x10000000, "user"),
        (0x4000000, "uts"),
        (1, ""),
    ],
)
def test_setns_names_the_namespace_without_colour(event_of, number, word):
    args = [integer(3), integer(number)]
    event = event_of("process_kprobe", function_name="__arm64_sys_setns", args=args)
    assert line(event) == f"🔧 setns   {PROCESS} {word}\n"
    assert f"cat\x1b[0m {word} " in line(event, colour=True)


def test_count_of_sendmsg_is_not_coloured(event_of):
    event = event_of("process_kprobe", function_name="tcp_sendmsg", args=[SOCK, integer(5)])
    flow = "\x1b[36mtcp 10.0.0.1:40000 -> 1.1.1.1:443\x1b[0m bytes 5 "
    assert flow in line(event, colour=True)


def syscall_event(event_of, *args):
    return event_of("process_tracepoint", subsys="raw_syscalls", event="sys_enter", args=args)


OPENAT = [size(4294967196), size(0x7F00DEAD), size(0), size(0)]


@pytest.mark.parametrize(
    ("machine", "args", "expected"),
    [
        (
            "x86_64",
            [KprobeArgument(long_arg=257), *OPENAT],
            "openat(int dfd=4294967196, const char *filename=0x7f00dead, int flags=0, "
            "umode_t mode=0)",
        ),
        (
            "aarch64",
            [KprobeArgument(syscall_id={"id": 56, "abi": "arm64"}), *OPENAT[:2]],
            "openat(int dfd=4294967196, const char *filename=0x7f00dead, int flags=?, "
            "umode_t mode=?)",
        ),
        (
            "x86_64",
            [KprobeArgument(long_arg=0), text("x"), text("y")],
            "read(unsigned int fd=?, char * buf=?, size_t count=?)",
        ),
        (
            "x86_64",
            [KprobeArgument(syscall_id={"id": 11, "abi": "i386"}), size(1)],
            "i386/execve",
        ),
        ("x86_64", [KprobeArgument(syscall_id={"id": 56, "abi": "arm64"})], "arm64/openat"),
        ("aarch64", [KprobeArgument(syscall_id={"id": 59, "abi": "x64"})], "x64/execve"),
        ("x86_64", [KprobeArgument(syscall_id={"id": 322, "abi": "arm32"})], "arm32/openat"),
        ("x86_64", [KprobeArgument(long_arg=39)], "getpid()"),
        ("x86_64", [KprobeArgument(long_arg=184)], "tuxcall"),
        ("x86_64", [KprobeArgument(long_arg=5000)], "unknown"),
        ("x86_64", [KprobeArgument(long_arg=-1)], "unknown"),
        ("x86_64", [KprobeArgument(syscall_id={"id": 1, "abi": "s390"})], "unknown"),
        ("x86_64", [size(1)], "unknown"),
        ("x86_64", [], "unknown"),
        ("riscv64", [KprobeArgument(long_arg=1)], "unknown"),
    ],
)
def test_system_calls(monkeypatch, event_of, machine, args, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert line(syscall_event(event_of, *args)) == f"☎  syscall {PROCESS} {expected}\n"


def test_texts_of_releases_up_to_1_7_0_are_not_quoted(exec_event, exit_event, event_of):
    words = {"binary": "/usr/bin/my ls", "arguments": "-l /srv"}
    assert line(exec_event(**words), quote=False) == "🚀 process node1 /usr/bin/my ls -l /srv\n"
    assert line(exit_event(**words), quote=False) == "💥 exit    node1 /usr/bin/my ls -l /srv 0\n"
    loader = event_of("process_loader", path="/a b\x1b")
    assert line(loader, quote=False) == f"🧬 loader  {PROCESS} /a b\x1b\n"
    assert line(loader, quote=False, guard=True) == f"🧬 loader  {PROCESS} /a b\\x1b\n"


def test_terminals_are_protected_where_tetragon_does_not_quote(event_of):
    event = event_of("process_lsm", function_name="file_open\x1b[2J")
    assert line(event) == f"🔒 LSM     {PROCESS} file_open\x1b[2J\n"
    assert line(event, guard=True) == f"🔒 LSM     {PROCESS} file_open\\x1b[2J\n"


def test_colours_of_every_kind(event_of):
    source = "\x1b[32mnode1\x1b[0m \x1b[35m/usr/bin/cat\x1b[0m"

    def label(text, code=34):
        return f"\x1b[{code}m{text}\x1b[0m"

    for kind, fields, expected in (
        (
            "process_exit",
            {"status": 3},
            f"{label('💥 exit   ')} {source} \x1b[36m-L\x1b[0m \x1b[31m3\x1b[0m",
        ),
        (
            "process_loader",
            {"path": "/l", "buildid": b"\1"},
            f"{label('🧬 loader ')} {source} 01 \x1b[33m/l\x1b[0m",
        ),
        ("process_uprobe", {"path": "/b", "symbol": "f"}, f"{label('🕵️ uprobe ')} {source} /b f"),
        (
            "process_usdt",
            {"path": "/b", "provider": "p", "name": "n"},
            f"{label('🕵️ usdt   ')} {source} /b p n",
        ),
        ("process_lsm", {"function_name": "f"}, f"{label('🔒 LSM    ')} {source} f"),
        (
            "process_tracepoint",
            {"subsys": "s", "event": "e"},
            f"{label('⁉️ tracepoint')} {source} s e",
        ),
        ("process_kprobe", {"function_name": "f"}, f"{label('❓ syscall')} {source} f"),
        (
            "process_throttle",
            {"type": 1, "cgroup": "c"},
            f"{label('🧬 throttle', 31)} \x1b[31mSTART\x1b[0m c\n",
        ),
        (
            "process_throttle",
            {"type": 2, "cgroup": "c"},
            f"{label('🧬 throttle', 31)} \x1b[32mSTOP \x1b[0m c\n",
        ),
    ):
        got = line(event_of(kind, **fields), colour=True)
        if expected.endswith("\n"):  # no trailer
            assert got == expected
        else:
            width = max(0, 120 - len(expected.encode()))
            trailer = "\x1b[35m\x1b[0m"
            assert got == f"{expected} {trailer:>{width}}\n"


def test_parts_of_a_kprobe_are_cyan_and_absent_ones_have_no_escapes(event_of):
    whole = event_of("process_kprobe", function_name="__x64_sys_close", args=[FILE])
    assert "\x1b[0m \x1b[36m/etc/passwd\x1b[0m " in line(whole, colour=True)
    absent = event_of("process_kprobe", function_name="__x64_sys_close")
    assert "\x1b[36m" not in line(absent, colour=True)


def test_stacks(event_of):
    event = event_of(
        "process_kprobe",
        function_name="__x64_sys_lseek",
        kernel_stack_trace=[StackTraceEntry(symbol="ksys_lseek", offset=16)],
        user_stack_trace=[
            StackTraceEntry(address=0xABC, offset=255, symbol="main", module="/bin/x"),
            StackTraceEntry(offset=1, module="/lib/a b"),
        ],
    )
    assert line(event).splitlines()[1:] == [
        "Kernel:",
        "   0x0: ksys_lseek+0x10",
        "User:",
        "   0xabc: main (/bin/x+0xff)",
        '   0x0: ("/lib/a b"+0x1)',
    ]
    assert "\x1b[33m0x10\n\x1b[0mUser:" in line(event, colour=True)
    assert line(event, stack_traces=False).count("\n") == 1


@pytest.mark.parametrize(
    ("function", "arg", "path"),
    [
        ("file_open", FILE, "/etc/passwd"),
        (
            "bprm_check_security",
            KprobeArgument(linux_binprm_arg=KprobeLinuxBinprm(path="/bin/x")),
            "/bin/x",
        ),
    ],
)
def test_ima_hashes(event_of, function, arg, path):
    event = event_of("process_lsm", function_name=function, args=[arg], ima_hash="sha256:ab")
    assert line(event).splitlines()[1] == f"   {path} sha256:ab"
    assert line(event, ima_hash=False).count("\n") == 1


def test_kinds_without_a_compact_form_show_their_name():
    event = GetEventsResponse(node_name="node1")
    event.rate_limit_info.SetInParent()
    assert line(event) == "❓ rate_limit_info node1\n"
    assert line(GetEventsResponse(node_name="a b")) == '❓ unknown event "a b"\n'


def test_tty_output_is_unchanged(event_of):
    written = KprobeArgument(bytes_arg=b"\x1b[1mhi\n")
    tty = KprobeArgument(file_arg=KprobeFile(path="/dev/pts/1"))
    event = event_of("process_kprobe", function_name="tty_write", args=[tty, written])
    assert TtyRenderer("/dev/pts/1").render([event]) == b"\x1b[1mhi\n"
    assert TtyRenderer("/dev/pts/2").render([event]) == b""
