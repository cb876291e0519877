"""Offsets of kernel structs that the headers of bpf/tracing name, as numbers from BTF.

Only those that a text uses are looked up and defined, so the text of a program changes, and its
object is compiled anew, only where the kernel's layout differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from collector.bpf.btf import Btf
from collector.errors import BtfError

_USED = re.compile(r"\b(OFFSET|SIZE|HAVE)_(\w+)\b")

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# OFFSET_x: (struct, member), or several where kernels differ: the first that exists.
_OFFSETS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "task_start_boottime": (("task_struct", "start_boottime"),),
        "task_fs": (("task_struct", "fs"),),
        "task_files": (("task_struct", "files"),),
        "task_cred": (("task_struct", "cred"),),
        "task_nsproxy": (("task_struct", "nsproxy"),),
        "task_group_leader": (("task_struct", "group_leader"),),
        "task_real_parent": (("task_struct", "real_parent"),),
        "task_tgid": (("task_struct", "tgid"),),
        "task_thread_pid": (("task_struct", "thread_pid"),),
        "task_loginuid": (("task_struct", "loginuid"),),
        "task_thread_status": (("task_struct", "thread_info.status"),),
        "task_thread_flags": (("task_struct", "thread_info.flags"),),
        "task_stack": (("task_struct", "stack"),),
        "fs_root": (("fs_struct", "root"),),
        "vfsmount_root": (("vfsmount", "mnt_root"),),
        "mount_mnt": (("mount", "mnt"),),
        "mount_parent": (("mount", "mnt_parent"),),
        "mount_mountpoint": (("mount", "mnt_mountpoint"),),
        "dentry_parent": (("dentry", "d_parent"),),
        "dentry_inode": (("dentry", "d_inode"),),
        "dentry_hash_pprev": (("dentry", "d_hash.pprev"),),
        "inode_mode": (("inode", "i_mode"),),
        "file_path": (("file", "f_path"),),
        "file_inode": (("file", "f_inode"),),
        "files_fdt": (("files_struct", "fdt"),),
        "fdtable_fd": (("fdtable", "fd"),),
        "fdtable_max_fds": (("fdtable", "max_fds"),),
        "kiocb_file": (("kiocb", "ki_filp"),),
        "binprm_file": (("linux_binprm", "file"),),
        "filename_name": (("filename", "name"),),
        "net_device_name": (("net_device", "name"),),
    }
)


# Members that some kernels or configurations lack.
_OPTIONAL = frozenset({"task_loginuid"})


def definitions(text: str, btf: Btf) -> str:
    """Return a #define for each OFFSET_, SIZE_ and HAVE_ that ``text`` uses; raise `BtfError`."""
    lines = []
    text = _COMMENT.sub("", text)
    for kind, name in sorted(set(_USED.findall(text))):
        if kind == "OFFSET":
            lines.append(f"#define OFFSET_{name} {_offset(btf, name)}")
        elif kind == "SIZE" and name in _OFFSETS:
            lines.append(f"#define SIZE_{name} {_member_size(btf, name)}")
        elif kind == "HAVE" and name in _OFFSETS and _exists(btf, name):
            lines.append(f"#define HAVE_{name} 1")
    return "\n".join(lines)


def _offset(btf: Btf, name: str) -> int:
    error = BtfError(f"no offset {name}")
    for struct, member in _OFFSETS[name]:
        try:
            return btf.struct_member(f"struct {struct}", member).offset
        except BtfError as missing:
            error = missing
    if name in _OPTIONAL:
        return 0  # guarded by HAVE_ in the text
    raise error


def _member_size(btf: Btf, name: str) -> int:
    struct, member = _OFFSETS[name][0]
    return btf.struct_member(f"struct {struct}", member).size


def _exists(btf: Btf, name: str) -> bool:
    for struct, member in _OFFSETS[name]:
        try:
            btf.struct_member(f"struct {struct}", member)
        except BtfError:
            continue
        return True
    return False
