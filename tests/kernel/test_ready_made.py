"""Ready-made policies on the running kernel: one act in many ways, seen or named as missed.

What a way should give depends on the variant that the kernel can serve: with functions nearly
everything is seen, with system calls what the head of the document names is not.
"""

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from collector.policies.check import Host
from collector.policies.plan import Mechanism
from collector.policies.plan_policy import check_document
from collector.records.values import Syscall
from readymade import NAMES, load, render
from support import seccomp
from support.policies import btf, in_child, plan_of
from support.ready_made import Watch, watching
from support.workloads import built
from tracingpolicy import PolicyErrors

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

WRITES = (
    "plain", "relative", "dots", "link", "folder-link", "descriptor", "openat2", "creat", "create",
    "reopen", "handle", "mapping", "thread", "ring", "compat", "compat-at", "bind", "root",
)  # fmt: skip
REMOVALS = (
    "plain", "relative", "descriptor", "renamed", "renamed-at", "renamed-to", "exchanged", "ring",
    "dots", "folder-link", "compat",
)  # fmt: skip
CONNECTS = (
    "plain", "later", "copy", "fast-open", "mapped", "bound", "child", "raw-call", "ring", "compat",
)  # fmt: skip
ACCEPTS = ("plain", "accept4", "copy", "ring")
SENDS = ("sendto", "sendmsg", "sendmmsg", "write", "writev", "ring")
# Named in the heads: seen by no variant, and not where functions cannot be hooked.
ESCAPE = {("write", "bind"), ("write", "root")}
ESCAPE_CALLS = ESCAPE | {
    ("remove", "dots"), ("remove", "folder-link"), ("remove", "compat"), ("accept", "ring"),
    ("send", "ring"),
}  # fmt: skip
NO_SUCH_WAY = 77
MARKS = itertools.count()


def escapes(watch):
    """Return what the variant that this kernel can serve does not see."""
    return ESCAPE if watch.functions else ESCAPE_CALLS


@pytest.fixture(scope="module")
def evasions(tmp_path_factory):
    return built("evasions", tmp_path_factory.mktemp("evasions"))


def done(evasions, *words):
    """Run an act; skip a way that this kernel or machine does not have."""
    code = subprocess.run([evasions, *map(str, words)], timeout=60).returncode
    if code == NO_SUCH_WAY:
        pytest.skip(f"no such way here: {words[1]}")
    assert code == 0


# --- files


@pytest.fixture(scope="module")
def files(policies):
    folder = Path(tempfile.mkdtemp(prefix="tetra-evasions-"))
    watched = folder / "watched"
    watched.mkdir()
    secrets = str(folder / "secret")
    with watching(policies, "files", paths=str(watched), secrets=secrets) as watch:
        watch.folder = watched
        yield watch
    shutil.rmtree(folder)


def seen(watch, name):
    """Return whether a record names the file; what was recorded before the mark has arrived."""
    mark = watch.folder / f"mark-{next(MARKS)}"
    mark.touch()
    watch.wait_for(lambda: any(mark.name in text for text in watch.texts()))
    return any(text.endswith(name) for text in watch.texts())


@pytest.mark.parametrize(
    ("act", "way"), [*(("write", way) for way in WRITES), *(("remove", way) for way in REMOVALS)]
)
def test_ways_to_change_a_file(files, evasions, act, way):
    name = f"{act}-{way}"
    outside = files.folder.parent / name  # made where nothing is watched
    outside.write_text("x")
    shutil.copy(outside, files.folder / name)
    seen(files, name)
    files.loaded.records.clear()
    done(evasions, act, way, files.folder, name)
    assert seen(files, name) is ((act, way) not in escapes(files))


@pytest.mark.parametrize("way", ["ring-rename", "ring-link", "ring-symlink", "ring-mkdir"])
def test_ways_to_make_a_file(files, evasions, way):
    done(evasions, "make", way, files.folder, way)
    assert seen(files, way)


def as_nobody():
    os.setresuid(65534, 65534, 65534)


def behind_seccomp():
    """Let a filter answer openat with EACCES: the call is refused before its entry is traced."""
    number = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
    code = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x0005000D),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    seccomp.install(b"".join(struct.pack("=HBBI", *one) for one in code))


def by_openat2(path):
    """Open by openat2(2), of which the C library has no function."""
    how = (ctypes.c_uint64 * 3)(os.O_WRONLY, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(437, -100, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)) < 0:
        raise OSError(ctypes.get_errno(), "openat2")


def by_creat(path):
    """Open by creat(2), which x86 alone has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(85, os.fsencode(path), 0o600) < 0:
        raise OSError(ctypes.get_errno(), "creat")


@pytest.mark.parametrize("attempt", [by_openat2, by_creat])
def test_refused_open_by_a_rarer_call_is_reported(files, attempt):
    if attempt is by_creat and os.uname().machine != "x86_64":
        pytest.skip("no creat(2) on this machine")
    path = files.folder / attempt.__name__

    def refuse():
        as_nobody()
        with contextlib.suppress(PermissionError):
            attempt(path)

    pid = in_child(refuse)
    assert seen(files, path.name)
    found = [one for one in files.loaded.of(pid) if files.message_of(one) == "denied"]
    assert [one.returned for one in found] == [(-13,)]


def test_file_created_by_an_open_for_reading_is_reported(files):
    path = files.folder / "created-only"
    in_child(lambda: os.open(path, os.O_RDONLY | os.O_CREAT))
    assert path.exists()
    assert seen(files, path.name)


@pytest.mark.parametrize("refused", [as_nobody, behind_seccomp])
def test_refused_open_is_reported_with_its_name_and_error(files, refused):
    path = files.folder / refused.__name__

    def attempt():
        refused()
        with contextlib.suppress(PermissionError):
            os.open(path, os.O_RDONLY)

    pid = in_child(attempt)
    is_seen = not (files.functions and refused is behind_seccomp)  # named in the head
    assert seen(files, refused.__name__) is is_seen
    found = [one for one in files.loaded.of(pid) if files.message_of(one) == "denied"]
    assert [one.returned for one in found] == [(-13,)] * is_seen


NAMINGS = ("absolute", "relative", "descriptor")


@pytest.mark.parametrize(("first", "second"), [*itertools.product(NAMINGS, NAMINGS)])
def test_rename_is_one_event_with_both_names_complete(files, first, second):
    files.loaded.records.clear()

    def rename():
        os.chdir(files.folder)
        (files.folder / "old").touch()
        folder = os.open(files.folder, os.O_DIRECTORY)
        names = [
            f"{files.folder}/{name}" if naming == "absolute" else name
            for name, naming in (("old", first), ("new", second))
        ]
        os.rename(
            *names,
            src_dir_fd=folder if first == "descriptor" else None,
            dst_dir_fd=folder if second == "descriptor" else None,
        )

    pid = in_child(rename)
    assert seen(files, "new")
    (record,) = (one for one in files.loaded.of(pid) if renames(files, one))
    if not files.functions:
        texts = labelled(files, record)
        old = Path(texts.get("dir") or texts["cwd"], texts["path"])
        new = Path(texts.get("to_dir") or texts["cwd"], texts["to"])
        assert (old, new) == (files.folder / "old", files.folder / "new")


def renames(watch, record):
    return "rename" in watch.names[record.hook]


def labelled(watch, record):
    """Return the texts of a record by their labels."""
    hook = watch.hooks[record.hook].hook
    labels = [one.label for one in (*hook.args, *hook.data)]
    values = [getattr(one, "text", one) for one in (*record.args, *record.data)]
    return {
        label: value.decode()
        for label, value in zip(labels, values, strict=True)
        if isinstance(value, bytes)
    }


def test_a_second_name_is_reported_when_it_is_made(files):
    """What is opened by it is not: the kernel knows the path that was opened, no other."""
    linked = files.folder / "linked"
    linked.write_text("x")
    seen(files, "linked")
    files.loaded.records.clear()
    outside = files.folder.parent / "second-name"
    outside.hardlink_to(linked)
    outside.write_text("y")
    # The function gets the first name without its mount: below another mount it is not known.
    own_mount = os.stat(outside).st_dev != os.stat("/").st_dev
    assert seen(files, "linked") is not (files.functions and own_mount)
    assert not any(t.endswith("second-name") for t in written(files))


def written(watch):
    return [
        value.text.decode()
        for record in watch.loaded.pump()
        if watch.message_of(record) == "open"
        for value in (*record.args, *record.returned)
        if hasattr(value, "text")
    ]


def test_secrets_are_reported_when_they_are_read(files):
    secret = files.folder.parent / "secret"
    secret.write_text("x")
    files.loaded.records.clear()
    other = files.folder.parent / "secretary"
    other.write_text("x")
    other.read_text()
    secret.read_text()
    assert seen(files, "/secret")
    assert not any(text.endswith("secretary") for text in files.texts())


# --- network


@pytest.fixture(scope="module")
def network(policies):
    with watching(policies, "network", names="false") as watch:
        yield watch


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def with_port(watch, message, port, local=False):
    """Return the records of a message whose socket or address has the port."""
    found = []
    for record in watch.loaded.pump():
        if watch.message_of(record) != message:
            continue
        values = [*record.args, *record.returned]
        ports = [getattr(v, "sport" if local else "dport", 0) for v in values]
        ports += [getattr(v, "port", 0) for v in values]
        if port in ports:
            found.append(record)
    return found


def quiet(watch):
    """Make a connection, and wait for its record: what came before has arrived."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        mark = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", mark)):
            watch.wait_for(lambda: with_port(watch, "connect", mark))


def test_excepted_network_is_meant_on_ipv6_sockets_too(policies, evasions, port):
    """There 127.0.0.1 is ::ffff:127.0.0.1."""
    with watching(policies, "network", names="false", **{"except": "127.0.0.0/9"}) as watch:
        for way in ("plain", "mapped"):
            done(evasions, "connect", way, port)
        with socket.create_server(("127.128.0.1", 0)) as server:
            other = server.getsockname()[1]
            with socket.create_connection(server.getsockname()):
                watch.wait_for(lambda: with_port(watch, "connect", other))
        assert not with_port(watch, "connect", port)


@pytest.mark.parametrize("way", CONNECTS)
def test_ways_to_connect(network, evasions, port, way):
    done(evasions, "connect", way, port)
    quiet(network)
    found = with_port(network, "connect", port)
    assert len(found) == 1
    assert found[0].args[3] == 0  # no error


def test_a_connection_that_both_ends_begin_is_reported(network, evasions):
    command = [evasions, "connect", "crossing", "1"]
    port = int(subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout)
    quiet(network)
    assert len(with_port(network, "connect", port)) == 1


@pytest.mark.parametrize("way", ACCEPTS)
def test_ways_to_accept(network, evasions, way):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done(evasions, "accept", way, port)
    quiet(network)
    found = with_port(network, "accept", port, local=True)
    assert len(found) == (("accept", way) not in escapes(network))


@pytest.mark.parametrize("way", SENDS)
def test_ways_to_send_a_datagram(network, evasions, way):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        port = receiver.getsockname()[1]
        done(evasions, "send", way, port)
        quiet(network)
        assert bool(with_port(network, "send", port)) is (("send", way) not in escapes(network))


def test_refused_connection_has_its_error(network):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == 111
    quiet(network)
    (record,) = with_port(network, "connect", port)
    assert (record.args[2], record.args[3]) == (7, 111)


# --- facts


FACTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
def call():
    libc.personality(0xffffffff)
    libc.getsid(0)
for _ in range(3):
    call()
for _ in range(2):
    if not os.fork():
        call()
        os._exit(0)
    os.wait()
"""


def test_facts_are_reported_once_for_an_executable(policies, tmp_path):
    """Also for its children, and again for another executable."""
    first, second = tmp_path / "first", tmp_path / "second"
    for one in (first, second):
        shutil.copy(Path("/usr/bin/python3").resolve(), one)
    with watching(policies, "syscalls") as watch:
        found = {}
        for one in (first, first, second):
            with subprocess.Popen([one, "-c", FACTS]) as process:
                process.wait(60)
            found.setdefault(one, []).append(process.pid)
        subprocess.run([second, "-c", "pass"], check=True)
        ids = PERSONALITY, GETSID
        watch.wait_for(lambda: sum(uses(watch, one) for one in ids) >= 4)
        by_pid = [r.pid for one in ids for r in facts(watch, one)]
    assert sorted(by_pid) == sorted(2 * [found[first][0], found[second][0]])


# x86-64 and arm64
PERSONALITY, GETSID = (135, 124) if os.uname().machine == "x86_64" else (92, 156)


def facts(watch, number):
    """Return the facts with a number; other policies of this module report into the same ring."""
    return [
        record
        for record in watch.loaded.pump()
        if len(record.args) == 2
        and isinstance(record.args[1], Syscall)
        and record.args[1].id == number
    ]


def uses(watch, number):
    return len(facts(watch, number))


def test_capabilities_are_reported_once(policies, tmp_path):
    program = tmp_path / "program"
    shutil.copy(Path("/usr/bin/python3").resolve(), program)
    code = "import os; [os.setuid(0) for _ in range(5)]"  # CAP_SETUID, number 7
    try:
        plan = plan_of(render(load("capabilities")))
    except PolicyErrors:
        pytest.skip("this kernel has neither the function in reach nor the tracepoint (6.14)")
    with policies.loaded(plan) as loaded:
        pids = []
        for _ in range(2):
            with subprocess.Popen([program, "-c", code]) as process:
                process.wait(60)
            pids.append(process.pid)
        watch = Watch(plan, loaded)
        watch.wait_for(lambda: any(r.pid == pids[0] and r.args[0] == 7 for r in loaded.pump()))
        assert sum(r.pid in pids and r.args[0] == 7 for r in loaded.pump()) == 1


# --- what other calls pay


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_but_syscalls_hooks_all_calls_where_functions_can_be_hooked(name):
    """A read, a write or a poll then runs no program of theirs."""
    anything = Host(btf(), lambda _mechanism, _sleepable: "")
    made = check_document(render(load(name), {}), f"{name}.yaml", anything)
    used = {one for hook in made.hooks for one in (hook.entry, hook.exit)}
    attached = {target.attach for hook in made.hooks for target in hook.targets}
    of_all_calls = {"sys_enter", "sys_exit"} & attached
    assert not used & {Mechanism.SYS_ENTER, Mechanism.SYS_EXIT}
    assert of_all_calls == ({"sys_enter"} if name == "syscalls" else set())


def test_refused_opens_cost_opens_that_succeed_one_program_where_functions_can_be_hooked():
    """At the return, which leaves at once: no name is read at entry, and nothing waits."""
    anything = Host(btf(), lambda _mechanism, _sleepable: "")
    made = check_document(render(load("files"), {}), "files.yaml", anything)
    denied = [(one.entry, one.exit) for one in made.hooks if one.hook.message == b"denied"]
    assert denied
    assert set(denied) == {(Mechanism.FEXIT, None)}
