"""Policies on kernel functions and LSM hooks: by fentry, kprobe and LSM programs.

Where the running kernel has none of them the tests skip; `make test-kernels` runs them in guests.
"""

import ctypes
import hashlib
import os
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from collector.events.stacks_kernel import KernelSymbols
from collector.policies.plan import Mechanism, Plan
from collector.records import values
from collector.records.values import Path as PathValue
from kernel.test_policies_arguments import capabilities, document, records
from support.modules import DUMMY, loaded_module
from support.policies import host, in_child, plan_of
from tracingpolicy import PolicyErrors

pytestmark = pytest.mark.kernel

_PAIRS = {
    Mechanism.FENTRY: Mechanism.FEXIT,
    Mechanism.KPROBE: Mechanism.KRETPROBE,
    Mechanism.KPROBE_MULTI: Mechanism.KRETPROBE_MULTI,
}


def needs(mechanism: Mechanism) -> None:
    """Skip where the kernel does not have it."""
    if reason := host().why_not(mechanism, False):
        pytest.skip(reason)


@pytest.fixture(params=list(_PAIRS), ids=lambda one: one.value)
def by(request):
    """Each way to hook a function that this kernel has: makes a plan use it."""
    needs(request.param)

    def forced(text: str) -> Plan:
        plan = plan_of(text)
        hooks = tuple(
            replace(hook, entry=request.param, exit=_PAIRS[request.param] if hook.exit else None)
            for hook in plan.hooks
        )
        return replace(plan, hooks=hooks)

    return forced


@pytest.fixture(autouse=True)
def functions_can_be_hooked():
    """Skip all where neither fentry nor kprobes work."""
    if all(host().why_not(mechanism, False) for mechanism in _PAIRS):
        pytest.skip("this kernel lets nothing hook functions")


def test_file_of_fd_install(policies, by, tmp_path):
    text = document(f"""
kprobes:
- call: fd_install
  syscall: false
  args:
  - {{index: 0, type: int}}
  - {{index: 1, type: file}}
  selectors:
  - matchArgs:
    - {{index: 1, operator: Prefix, values: ["{tmp_path}/"]}}
    - {{index: 1, operator: FileType, values: [reg]}}
""")
    path = tmp_path / "opened"

    def call() -> None:
        with suppress(OSError):
            os.open("/etc/passwd", os.O_RDONLY)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(fd, 90)

    with policies.loaded(by(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    assert record.args[1] == PathValue(os.fsencode(path), 0, 0o100600)


def test_return_of_a_security_hook(policies, by, tmp_path):
    text = document(f"""
kprobes:
- call: security_file_permission
  syscall: false
  return: true
  args:
  - {{index: 0, type: file}}
  - {{index: 1, type: int}}
  returnArg: {{index: 0, type: int}}
  selectors:
  - matchArgs:
    - {{index: 0, operator: Equal, values: ["{tmp_path}/written"]}}
    - {{index: 1, operator: Equal, values: ["2"]}}
    matchReturnArgs:
    - {{index: 0, operator: Equal, values: ["0"]}}
""")

    def call() -> None:
        fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"x")

    with policies.loaded(by(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    assert (record.args[1], record.returned) == (2, (0,))
    assert record.args[0].text == os.fsencode(tmp_path / "written")


def test_system_call_by_its_function(policies, by):
    text = document("""
kprobes:
- call: sys_openat
  syscall: true
  return: true
  returnArg: {index: 0, type: int}
  args:
  - {index: 0, type: int}
  - {index: 1, type: string}
  - {index: 2, type: int}
  - {index: 3, type: uint32}
  selectors:
  - matchArgs:
    - {index: 1, operator: Equal, values: ["/none/none"]}
""")

    def call() -> None:
        with suppress(OSError):
            os.open("/none/none", os.O_RDWR | os.O_CREAT, 0o640)  # libc drops a mode without it

    with policies.loaded(by(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    assert record.args == (-100, b"/none/none", flags, 0o640)
    assert record.returned == (-2,)


def test_sock_and_stack_of_tcp_connect(policies, by):
    text = document("""
kprobes:
- call: tcp_connect
  syscall: false
  args:
  - {index: 0, type: sock}
  selectors:
  - matchArgs:
    - {index: 0, operator: DAddr, values: ["127.9.0.0/16", "fd00::/8"]}
    - {index: 0, operator: NotDPort, values: ["1:1000"]}
    matchActions:
    - {action: Post, kernelStackTrace: true, userStackTrace: true}
""")

    def call() -> None:
        for address in (("127.9.8.7", 4713), ("127.9.8.7", 900), ("127.8.8.7", 4713)):
            with suppress(OSError), socket.socket() as one:
                one.connect(address)

    with policies.loaded(by(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    (sock,) = record.args
    assert (sock.family, sock.type, sock.protocol, sock.state) == (2, 1, 6, 2)
    assert (sock.daddr, sock.dport) == (bytes([127, 9, 8, 7]), 4713)
    symbols = KernelSymbols()
    names = [found[0] for found in map(symbols.find, record.kernel_stack) if found]
    assert names[0] == b"tcp_connect"  # no frame of ours above it
    assert b"__sys_connect" in names
    assert all(address >> 63 for address in record.kernel_stack)
    assert record.user_stack
    assert not any(address >> 63 for address in record.user_stack)


def test_the_same_stack_by_fentry_and_by_kprobe(policies):
    """The first frame is where a kprobe at the function's entry stops."""
    for mechanism in (Mechanism.FENTRY, Mechanism.KPROBE):
        needs(mechanism)
    plan = plan_of(
        document("""
kprobes:
- call: sys_getpgid
  selectors:
  - matchActions:
    - {action: Post, kernelStackTrace: true}
""")
    )
    stacks = []
    for mechanism in (Mechanism.FENTRY, Mechanism.KPROBE):
        hooks = tuple(replace(hook, entry=mechanism) for hook in plan.hooks)
        with policies.loaded(replace(plan, hooks=hooks)) as loaded:
            pid = in_child(lambda: os.getpgid(0))
            stacks += [record.kernel_stack for record in loaded.until(1, pid)]
    if os.uname().machine == "x86_64":
        assert stacks[0] == stacks[1]
    symbols = KernelSymbols()
    for stack in stacks:
        found = symbols.find(stack[0])
        assert found is not None
        assert found[0].endswith(b"sys_getpgid")


def test_credentials_of_commit_creds(policies, by):
    text = document("""
kprobes:
- call: commit_creds
  syscall: false
  args:
  - {index: 0, type: cred}
""")
    with policies.loaded(by(text)) as loaded:
        pid = in_child(lambda: os.setresuid(7, 8, 9))
        (record,) = loaded.until(1, pid)
    (cred,) = record.args
    permitted, _, inheritable = capabilities()
    assert (cred.uid, cred.euid, cred.suid, cred.fsuid) == (7, 8, 9, 8)
    assert (cred.gid, cred.permitted & permitted, cred.inheritable) == (
        0, cred.permitted, inheritable,
    )  # fmt: skip
    assert cred.user_ns.level == 0


def test_socket_and_address_of_a_security_hook(policies, by):
    text = document("""
kprobes:
- call: security_socket_connect
  syscall: false
  args:
  - {index: 0, type: socket}
  - {index: 1, type: sockaddr}
  - {index: 2, type: int}
  selectors:
  - matchArgs:
    - {index: 1, operator: SAddr, values: ["127.9.8.7"]}
    - {index: 0, operator: Family, values: ["AF_INET"]}
""")

    def call() -> None:
        with suppress(OSError), socket.socket() as one:
            one.connect(("127.9.8.7", 4713))

    with policies.loaded(by(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    sock, address, size = record.args
    assert address == values.Sockaddr(2, bytes([127, 9, 8, 7]), 4713)
    assert (sock.family, size) == (2, 16)


def test_programs_and_maps(policies):
    """What these tests load themselves is seen."""
    needs(Mechanism.FENTRY)
    text = document("""
kprobes:
- call: security_bpf_map_alloc
  syscall: false
  ignore: {callNotFound: true}
  args:
  - {index: 0, type: bpf_map}
- call: security_bpf_map_create
  syscall: false
  ignore: {callNotFound: true}
  args:
  - {index: 0, type: bpf_map}
  - {index: 1, type: bpf_attr}
- call: bpf_check
  syscall: false
  args:
  - {index: 1, type: bpf_attr}
""")
    from collector.bpf import maps, programs
    from collector.bpf.maps import MapSpec, MapType
    from collector.bpf.programs import Kind, ProgramSpec

    def call() -> None:
        maps.create(MapSpec("seen", MapType.ARRAY, 4, 16, 3)).close()
        code = bytes.fromhex("b700000000000000 9500000000000000")
        programs.load(ProgramSpec("noticed", Kind.RAW_TRACEPOINT, code)).close()

    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(call)
        made, checked = loaded.until(2, pid)
    assert made.args[0] == values.BpfMap(2, 4, 16, 3, b"seen")
    assert checked.args == (values.BpfProgram(17, 2, b"noticed"),)


def test_owner_of_a_tracked_socket(policies):
    needs(Mechanism.FENTRY)
    text = document("""
kprobes:
- call: tcp_connect
  syscall: false
  args:
  - {index: 0, type: sock}
  selectors:
  - matchArgs:
    - {index: 0, operator: DPort, values: ["4713"]}
    matchActions:
    - {action: TrackSock, argSock: 0}
- call: tcp_close
  syscall: false
  args:
  - {index: 0, type: sock}
  selectors:
  - matchArgs:
    - {index: 0, operator: DPort, values: ["4713"]}
""")

    def call() -> None:
        with socket.socket() as server, socket.socket() as one:
            server.bind(("127.0.0.1", 4713))
            server.listen()
            one.connect(("127.0.0.1", 4713))
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)

    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(call)
        found = loaded.until(2, pid)
    assert {record.hook for record in found} == {0, 1}
    assert found[0].action == 11  # KPROBE_ACTION_TRACKSOCK


def test_a_socket_is_its_owners_until_it_is_untracked(policies, by):
    """Calls of other processes on a tracked socket are reported as the owner's."""
    text = document("""
kprobes:
- call: sk_alloc
  syscall: false
  return: true
  args:
  - {index: 1, type: int}
  returnArg: {index: 0, type: sock}
  returnArgAction: TrackSock
  selectors:
  - matchArgs:
    - {index: 1, operator: Equal, values: ["2"]}
    matchActions:
    - {action: NoPost}
- call: tcp_connect
  syscall: false
  args:
  - {index: 0, type: sock}
  selectors:
  - matchArgs:
    - {index: 0, operator: DPort, values: ["4713"]}
- call: inet_bind
  syscall: false
  args:
  - {index: 0, type: socket}
  selectors:
  - matchActions:
    - {action: UntrackSock, argSock: 0}
    - {action: Post}
""")

    def call() -> None:
        with socket.socket() as one:
            for _ in range(2):
                if os.fork() == 0:
                    with suppress(OSError):
                        one.connect(("127.0.0.1", 4713))
                    os._exit(0)
                os.wait()
                one.bind(("127.0.0.1", 0))

    with policies.loaded(by(text)) as loaded:
        owner = in_child(call)
        found = [record for record in loaded.pump() if record.hook in (1, 2)]
    tracked, bound, untracked, _ = found
    assert [record.hook for record in found] == [1, 2, 1, 2]
    assert (tracked.pid, bound.pid) == (owner, owner)
    assert untracked.pid != owner
    # Of the socket action the record names the last, Post.
    assert bound.action == 1


def test_lsm_hook(policies, tmp_path):
    needs(Mechanism.FMOD_RET)  # serves where BPF is no active security module
    text = document(f"""
lsmhooks:
- hook: file_open
  args:
  - {{index: 0, type: file}}
  selectors:
  - matchArgs:
    - {{index: 0, operator: Equal, values: ["{tmp_path}/opened"]}}
""")
    path = tmp_path / "opened"
    path.touch()
    (record,) = records(policies, text, lambda: os.close(os.open(path, os.O_RDONLY)))
    assert record.args[0].text == os.fsencode(path)


def test_lsm_hook_of_an_exec(policies):
    needs(Mechanism.FMOD_RET)  # serves where BPF is no active security module
    text = document("""
lsmhooks:
- hook: bprm_check_security
  args:
  - {index: 0, type: linux_binprm}
  - {index: 0, type: string, resolve: mm.owner.real_parent.comm}
  selectors:
  - matchArgs:
    - {index: 0, operator: Postfix, values: ["bin/true"]}
""")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen(["/bin/true"])
        child.wait()
        (record,) = loaded.until(1, child.pid)
    assert record.args[0].text == os.fsencode(os.path.realpath("/bin/true"))


def test_gained_capabilities(policies):
    """Of security_capset(new, old, ...): raising the effective set again is a gain."""
    needs(Mechanism.FENTRY)
    text = document("""
kprobes:
- call: security_capset
  syscall: false
  args:
  - {index: 1, type: cap_effective, resolve: cap_effective}
  - {index: 2, type: cap_effective}
  selectors:
  - matchArgs:
    - {args: [0, 1], operator: CapabilitiesGained}
""")

    def call() -> None:
        libc = ctypes.CDLL(None)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
        data = (ctypes.c_uint32 * 6)()
        libc.capget(header, data)
        full = data[0]
        data[0] = full & ~1  # drop CAP_CHOWN from the effective set
        libc.capset(header, data)
        data[0] = full
        libc.capset(header, data)

    with policies.loaded(plan_of(text)) as loaded:
        pid = in_child(call)
        (record,) = loaded.until(1, pid)
    old, new = record.args
    assert new & ~old == 1


def test_function_of_a_kernel_module(policies, tmp_path):
    """The module's own BTF says what the function's arguments are."""
    needs(Mechanism.FENTRY)
    if not Path("/sys/kernel/btf/ext4").exists():
        pytest.skip("ext4 is no module of this kernel, or has no BTF")
    text = document("""
kprobes:
- call: ext4_file_open
  syscall: false
  args:
  - {index: 1, type: file}
  selectors:
  - matchArgs:
    - {index: 1, operator: Equal, values: ["/usr/bin/true"]}
""")
    (record,) = records(policies, text, lambda: os.close(os.open("/usr/bin/true", os.O_RDONLY)))
    assert record.args[0].text == b"/usr/bin/true"


def test_function_of_a_module_that_comes_and_goes(policies, by):
    """By each way to hook it; a packet through the module's device is a call."""
    if not DUMMY.exists():
        pytest.skip("no module to load: guests have one")
    text = document("""
kprobes:
- call: dummy_xmit
  syscall: false
  return: true
  returnArg: {index: 0, type: int}
  args:
  - {index: 0, type: skb}
  - {index: 1, type: net_device}
""")
    with loaded_module(DUMMY, "numdummies=1"):
        for words in (
            "link set dummy0 up",
            "addr add 198.51.100.1/24 dev dummy0",
            "neigh add 198.51.100.2 lladdr 02:00:00:00:00:01 dev dummy0",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        if not Path("/sys/kernel/btf/dummy").exists():
            with pytest.raises(PolicyErrors, match="of the module dummy, which has no types here"):
                plan_of(text)
            return

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", ("198.51.100.2", 4711))

        with policies.loaded(by(text)) as loaded:
            (record,) = loaded.until(1, in_child(send))
        packet, name = record.args
        assert (packet.dport, packet.daddr) == (4711, bytes([198, 51, 100, 2]))
        assert (name, record.returned) == (b"dummy0", (0,))
    with pytest.raises(PolicyErrors, match='there is no function "dummy_xmit"'):
        plan_of(text)


def test_digest_of_a_program(policies, tmp_path):
    """IMA measures the file when it is asked, in a program that may sleep."""
    if reason := host().why_not(Mechanism.LSM, True):
        pytest.skip(reason)
    text = document("""
lsmhooks:
- hook: bprm_check_security
  args:
  - {index: 0, type: linux_binprm}
  selectors:
  - matchArgs:
    - {index: 0, operator: Postfix, values: ["bin/true"]}
    matchActions:
    - {action: Post, imaHash: true}
""")
    if not Path("/sys/kernel/security/ima").exists():
        pytest.skip("this kernel has no IMA, or securityfs is not mounted")
    with policies.loaded(plan_of(text)) as loaded:
        child = subprocess.Popen(["/bin/true"])
        child.wait()
        (record,) = loaded.until(1, child.pid)
    algorithm, digest = record.ima_hash
    names = {2: "sha1", 4: "sha256", 5: "sha384", 6: "sha512"}
    assert digest == hashlib.new(names[algorithm], Path("/bin/true").read_bytes()).digest()


def test_many_functions_of_a_list(policies):
    needs(Mechanism.FENTRY)
    text = document("""
lists:
- name: calls
  type: syscalls
  values: [sys_getpriority, sys_setpriority, sys_getpgid, sys_getsid]
kprobes:
- call: list:calls
  syscall: true
  args:
  - {index: 0, type: int}
""")

    def call() -> None:
        os.getsid(0)
        os.getpriority(os.PRIO_USER, 0)
        os.getpgid(0)

    found = records(policies, text, call, 3)
    assert [record.hook for record in found] == [3, 0, 2]
