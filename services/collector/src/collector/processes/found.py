"""A process that is found in /proc after its exec was withheld, as the exec record of it."""

from __future__ import annotations

from pathlib import Path

from collector.processes.procfs import ProcfsProcess, read_process
from collector.records import layouts
from collector.records import process as records
from collector.records.layouts import Credentials, ExecRecord, Namespaces, ProcessValue
from collector.records.process import FLAG_IN_INIT_TREE, FLAG_PROCFS, INLINE_MAX

_FIXED = ExecRecord._fields[: len(layouts.EXEC.names)]  # those in front of the texts


def exec_record(
    procfs: Path,
    pid: int,
    value: ProcessValue,
    replaced_ktime_ns: int,
    cgroup_id: int,
    *,
    environment: bool = False,
) -> bytes | None:
    """Return the record of a living image, with the flag procFS; None where it is gone.

    ``value``: its entry in the kernel's process map. ``replaced_ktime_ns``: of the pid's image
    that the process table has; 0: none.
    """
    found = read_process(procfs, pid, environment=environment)
    if found is None or not found.cmdline:
        return None
    args, envs = found.cmdline[:INLINE_MAX], found.environ[:INLINE_MAX]
    flags = FLAG_PROCFS | (value.flags & FLAG_IN_INIT_TREE)
    flags |= records.FLAG_TRUNC_ARGS if len(found.cmdline) > INLINE_MAX else 0
    if found.cwd is None:
        flags |= records.FLAG_ROOT_CWD | records.FLAG_ERROR_CWD
    elif found.cwd == b"/":
        flags |= records.FLAG_ROOT_CWD
    filename, cwd, cgroup = found.exe, found.cwd or b"", _leaf(found)
    fields: dict[str, int] = {
        "kind": records.EXEC,
        "flags": flags,
        "ktime_ns": value.ktime_ns,
        "pid": pid,
        "nspid": found.nspid,
        "parent_ktime_ns": value.parent_ktime_ns,
        "parent_pid": value.parent_pid,
        "auid": found.auid,
        "sessionid": found.sessionid,
        "replaced_ktime_ns": replaced_ktime_ns,
        "cgroup_id": cgroup_id,
        "nlink": 1,
        "filename_len": len(filename),
        "cgroup_len": len(cgroup),
        "args_len": len(args),
        "envs_len": len(envs),
        "cwd_len": len(cwd),
        "start_boottime_ns": value.start_boottime_ns,
        "arg_start": found.arg_start,
        **_credentials(found.credentials),
        **_namespaces(found.namespaces),
    }
    numbers = (fields.get(name, 0) for name in _FIXED)
    packed = layouts.EXEC.format.pack(*numbers)
    return b"".join((packed, filename, cgroup, args, envs, cwd))


def _credentials(found: Credentials) -> dict[str, int]:
    capabilities = ("permitted", "effective", "inheritable")
    return {
        f"cap_{name}" if name in capabilities else name: value
        for name, value in found._asdict().items()
    }


def _namespaces(found: Namespaces) -> dict[str, int]:
    return {f"ns_{name}": value for name, value in found._asdict().items()}


def _leaf(found: ProcfsProcess) -> bytes:
    """Return the last component of the longest of its cgroups' paths."""
    paths = [line.split(":", 2)[-1] for line in found.cgroup.splitlines()]
    return max(paths, key=len, default="/").rpartition("/")[2].encode()
