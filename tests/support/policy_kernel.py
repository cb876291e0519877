"""A small kernel to plan policies on: types, functions, system calls, tracepoints, tracefs."""

from __future__ import annotations

from pathlib import Path

from collector.bpf.btf import Btf
from collector.policies.check import Host
from collector.policies.check_types import STRUCTS
from collector.policies.plan import Mechanism
from support.btf_builder import BtfBuilder

_PTR, _TYPEDEF, _CONST = 2, 8, 10
SYSCALLS = ("openat", "read", "write", "close", "dup", "linkat", "bpf", "newstat", "stat", "clone")

FORMATS = {
    "sched/sched_switch": (
        "char prev_comm[16];	offset:8;	size:16;	signed:1",
        "pid_t prev_pid;	offset:24;	size:4;	signed:1",
        "long prev_state;	offset:32;	size:8;	signed:1",
        "__data_loc char[] reason;	offset:40;	size:4;	signed:1",
        "const char * text;	offset:48;	size:8;	signed:0",
        "size_t count;	offset:56;	size:8;	signed:0",
        "unsigned long words[3];	offset:64;	size:24;	signed:0",
        "u8 small;	offset:88;	size:1;	signed:0",
        "struct sk_buff * skbaddr;	offset:96;	size:8;	signed:0",
        "int pair[2];	offset:104;	size:8;	signed:1",
    ),
}
_COMMON = (
    "unsigned short common_type;	offset:0;	size:2;	signed:0",
    "unsigned char common_flags;	offset:2;	size:1;	signed:0",
    "unsigned char common_preempt_count;	offset:3;	size:1;	signed:0",
    "int common_pid;	offset:4;	size:4;	signed:1",
)


def _add_perf_events(b: BtfBuilder, text: int, file_pointer: int) -> int:
    """Add what ``loader`` reads; return struct perf_event."""
    wide, number = b.integer("u64", 8), b.integer("u32", 4)
    attr = b.struct("perf_event_attr", 16, [("config", wide, 0), ("config2", wide, 64)])
    event = b.struct("perf_event", 16, [("attr", attr, 0)])
    vma = b.struct("vm_area_struct", 8, [("vm_file", file_pointer, 0)])
    build_id = b.array(b.integer("u8", 1), 20)
    b.struct(
        "perf_mmap_event", 48,
        [("vma", b.add(_PTR, "", vma), 0), ("file_name", text, 64), ("build_id", build_id, 128),
         ("build_id_size", number, 288), ("prot", number, 320)],
    )  # fmt: skip
    params = [("event", b.add(_PTR, "", event)), ("data", b.add(_PTR, "", 0))]
    b.function("perf_event_mmap_output", 0, params)
    return event


def _types() -> bytes:
    b = BtfBuilder()
    number = b.integer("int", 4, signed=True)
    unsigned = b.integer("unsigned int", 4)
    byte = b.integer("char", 1, signed=True)
    short = b.integer("short unsigned int", 2)
    wide = b.integer("long unsigned int", 8)
    long = b.integer("long int", 8, signed=True)
    uid = b.add(_TYPEDEF, "uid_t", unsigned)
    kuid = b.struct("", 4, [("val", uid, 0)])
    kuid_t = b.add(_TYPEDEF, "kuid_t", kuid)
    capability = b.add(_TYPEDEF, "kernel_cap_t", b.struct("", 8, [("val", wide, 0)]))
    cred = b.struct("cred", 64, [("usage", long, 0), ("uid", kuid_t, 64), ("cap", capability, 128)])
    dentry = b.struct("dentry", 64, [("d_flags", unsigned, 0)])
    dentry_pointer = b.add(_PTR, "", dentry)
    path = b.struct("path", 16, [("mnt", long, 0), ("dentry", dentry_pointer, 64)])
    file = b.struct(
        "file", 64,
        [("f_lock", long, 0), ("f_path", path, 64),
         ("f_mode", unsigned, 192), ("low", number, 224)],
    )  # fmt: skip
    b.struct("bits", 8, [("a", unsigned, 0, 3), ("b", unsigned, 3, 5)], bit_fields=True)
    file_pointer, cred_pointer = b.add(_PTR, "", file), b.add(_PTR, "", b.add(_CONST, "", cred))
    common = b.struct("sock_common", 16, [("skc_family", short, 0)])
    sock = b.struct("sock", 64, [("__sk_common", common, 0)])
    tcp = b.struct("tcp_sock", 128, [("inet", sock, 0)])
    comm = b.array(byte, 16)
    task = b.struct(
        "task_struct", 128,
        [("comm", comm, 0), ("flags", unsigned, 128), ("cred", cred_pointer, 192),
         ("real_parent", b.add(_PTR, "", len(b.types) + 2), 256)],
    )  # fmt: skip
    task_pointer = b.add(_PTR, "", task)
    mm = b.struct("mm_struct", 16, [("owner", task_pointer, 0)])
    bprm = b.struct(
        "linux_binprm", 64,
        [("mm", b.add(_PTR, "", mm), 0), ("file", file_pointer, 64), ("cred", cred_pointer, 128)],
    )  # fmt: skip
    bprm_pointer, sock_pointer = b.add(_PTR, "", bprm), b.add(_PTR, "", sock)
    tcp_pointer, text = b.add(_PTR, "", tcp), b.add(_PTR, "", b.add(_CONST, "", byte))
    cap_pointer = b.add(_PTR, "", b.add(_CONST, "", capability))
    buffer, regs = b.add(_PTR, "", 0), b.add(_PTR, "", b.struct("pt_regs", 168, []))
    b.function("security_file_permission", number, [("file", file_pointer), ("mask", number)])
    b.function("security_file_open", number, [("file", file_pointer)])
    b.function("security_bprm_check", number, [("bprm", bprm_pointer)])
    b.function("fd_install", 0, [("fd", unsigned), ("file", file_pointer)])
    b.function("tcp_connect", number, [("sk", sock_pointer)])
    b.function("tcp_close", 0, [("sk", tcp_pointer), ("timeout", long)])
    b.function("sk_alloc", sock_pointer, [("family", number), ("priority", short)])
    b.function("commit_creds", number, [("new", cred_pointer)])
    b.function("set_caps", number, [("effective", cap_pointer), ("uid", kuid_t)])
    b.function("request_module", number, [("name", text), ("data", buffer), ("size", wide)])
    b.function("many", number, [(f"a{i}", number) for i in range(8)])
    b.function("new_creds", number, [("new", b.add(_PTR, "", cred_pointer))])
    # One function for each type of argument, named after it.
    made = {"file": file, "path": path, "dentry": dentry, "sock": sock, "cred": cred}
    made |= {"linux_binprm": bprm, "perf_event": _add_perf_events(b, text, file_pointer)}
    for kind, names in STRUCTS.items():
        target = made.get(names[0]) or b.struct(names[0], 8, [("first", long, 0)])
        pointer = b.add(_PTR, "", target)
        b.function(f"take_{kind.value}", number, [("one", pointer), ("size", wide)])
    for kind in ("string", "char_buf"):
        b.function(f"take_{kind}", number, [("one", text), ("size", wide)])
    b.function("take_number", number, [("one", long)])
    b.function("take_capabilities", number, [("old", cap_pointer), ("new", cap_pointer)])
    for name in SYSCALLS:
        b.function(f"__x64_sys_{name}", long, [("regs", regs)])
    b.function("__ia32_sys_dup", long, [("regs", regs)])
    b.function("__ia32_compat_sys_openat", long, [("regs", regs)])
    b.function("__do_sys_getppid", long, [])
    for hook, params in (
        ("file_open", [("file", file_pointer)]),
        ("bprm_check_security", [("bprm", bprm_pointer)]),
    ):
        b.function(f"bpf_lsm_{hook}", number, params)
    b.function("bpf_lsm_bprm_committed_creds", 0, [("bprm", bprm_pointer)])
    b.function("security_bprm_committed_creds", 0, [("bprm", bprm_pointer)])
    for event, params in (
        ("sched_process_exec", [("p", task_pointer), ("old", number), ("bprm", bprm_pointer)]),
        ("sys_enter", [("regs", regs), ("id", long)]),
        ("sys_exit", [("regs", regs), ("ret", long)]),
    ):
        proto = b.prototype(0, [("__data", buffer), *params])
        b.add(_TYPEDEF, f"btf_trace_{event}", b.add(_PTR, "", proto))
    return b.bytes()


BTF = Btf(_types())


def write_tracefs(folder: Path) -> Path:
    """Write the format files of the kernel's tracepoints below a folder."""
    for event, fields in FORMATS.items():
        place = folder / "events" / event
        place.mkdir(parents=True)
        lines = "".join(f"\tfield:{field};\n" for field in (*_COMMON, *fields))
        (place / "format").write_text(f"name: {place.name}\nID: 1\nformat:\n{lines}\nprint fmt: \n")
    functions = [*(f"security_{x}" for x in ("file_open", "bprm_check")), "not_in_btf", "m [mod]"]
    (folder / "available_filter_functions").write_text("\n".join(functions) + "\n")
    return folder


def host(tracefs: Path | None = None, refused: dict[Mechanism, str] | None = None) -> Host:
    """Return the host; ``refused`` has the mechanisms that do not work, each with the reason."""

    def why_not(mechanism: Mechanism, sleepable: bool) -> str:
        return (refused or {}).get(mechanism, "")

    none = Path("/nonexistent")
    return Host(BTF, why_not, "x86_64", (tracefs or none,), none, none, none, misreads_code=False)


def refusing_host() -> Host:
    """Return a host on which no mechanism works."""
    return host(refused=dict.fromkeys(Mechanism, "no rights"))
