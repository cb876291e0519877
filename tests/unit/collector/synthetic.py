"""Records as the kernel side writes them, packed by hand: layouts.py is what they test."""

from struct import pack

from collector.records.layouts import Namespaces

HOST_NS = Namespaces(*range(4026531830, 4026531840))
SECOND = 1_000_000_000


def exec_record(
    pid,
    ktime_ns,
    *,
    parent=(1, 1000),
    flags=0x4001,
    replaced_ktime_ns=0,
    filename=b"/bin/true",
    args=b"true\0",
    envs=b"",
    cwd=b"/tmp",
    cgroup=b"",
    nspid=None,
    ids=(0,) * 8,
    capabilities=(0, 0, 0),
    auid=0xFFFFFFFF,
    securebits=0,
    secureexec=0,
    nlink=1,
    inode=7,
    ns=HOST_NS,
    start_boottime_ns=0,
    arg_start=0x7FFF0000,
    sessionid=0xFFFFFFFF,
    args_len=None,
    envs_len=None,
):
    return (
        pack("<IIQII", 1, flags, ktime_ns, pid, pid if nspid is None else nspid)
        + pack("<QII", parent[1], parent[0], auid)
        + pack("<QQQ", replaced_ktime_ns, 99, inode)
        + pack("<QQQ", *capabilities)
        + pack("<8I", *ids)
        + pack("<III", securebits, secureexec, nlink)
        + pack("<II", len(filename), len(cgroup))
        + pack("<I", len(args) if args_len is None else args_len)
        + pack("<I", len(envs) if envs_len is None else envs_len)
        + pack("<I", len(cwd))
        + pack("<10I", *ns)
        + pack("<QQII", start_boottime_ns, arg_start, sessionid, 0)
        + filename
        + cgroup
        + args
        + envs
        + cwd
    )


def fork_record(pid, ktime_ns, *, parent=(1, 1000), flags=0x4000, start_boottime_ns=0, nspid=None):
    head = pack("<IIQII", 2, flags, ktime_ns, pid, parent[0])
    tail = pack("<QQ", parent[1], start_boottime_ns)
    return head + tail + pack("<II", pid if nspid is None else nspid, 0)


def exit_record(pid, image_ktime_ns, ktime_ns, code=0, tid=None):
    return pack("<IIQQII", 3, code, ktime_ns, image_ktime_ns, pid, pid if tid is None else tid)


def data_record(pid, ktime_ns, field, offset, data):
    return pack("<IIQIIII", 4, field, ktime_ns, pid, offset, len(data), 0) + data


def item(kind, position, data, *, flags=0):
    """Pack an argument of a tracing record: its type's number, its place, its bytes."""
    return pack("<HBBI", kind, position, flags, len(data)) + data + bytes(-len(data) % 8)


def tracing_record(
    pid,
    image_ktime_ns,
    *items,
    policy=2,
    revision=1,
    hook=0,
    ktime_ns=5000,
    start_boottime_ns=0,
    tid=None,
    action=0,
):
    packed = b"".join(items)
    return (
        pack("<IIII", 16, policy, revision, hook)
        + pack("<QQQ", ktime_ns, image_ktime_ns, start_boottime_ns)
        + pack("<IIIIIIII", pid, tid or pid, 0, action, 0, 0, len(packed), len(items))
        + packed
    )
