"""Offsets of kernel structs that the headers of bpf/tracing name, as numbers from BTF.

Only offsets that a text uses are defined. So the text changes, and has to be compiled again, only
if a layout that it uses differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from collector.bpf.btf import Btf, BtfKind
from collector.errors import BtfError

_USED = re.compile(r"\b(OFFSET|SIZE|HAVE)_(\w+)\b")

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# OFFSET_x: (struct, member), or several where kernels differ: the first that exists.
_OFFSETS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "task_start_boottime": (("task_struct", "start_boottime"),),
        "task_mm": (("task_struct", "mm"),),
        "task_comm": (("task_struct", "comm"),),
        "mm_exe_file": (("mm_struct", "exe_file"),),
        "mm_env_end": (("mm_struct", "env_end"),),
        "task_fs": (("task_struct", "fs"),),
        "task_files": (("task_struct", "files"),),
        "task_cred": (("task_struct", "cred"),),
        "task_nsproxy": (("task_struct", "nsproxy"),),
        "task_group_leader": (("task_struct", "group_leader"),),
        "task_real_parent": (("task_struct", "real_parent"),),
        "task_tgid": (("task_struct", "tgid"),),
        "task_pid": (("task_struct", "pid"),),
        "task_signal": (("task_struct", "signal"),),
        "signal_live": (("signal_struct", "live"),),
        "task_thread_pid": (("task_struct", "thread_pid"),),
        "task_loginuid": (("task_struct", "loginuid"),),
        "task_thread_status": (("task_struct", "thread_info.status"),),
        "task_thread_flags": (("task_struct", "thread_info.flags"),),
        "task_stack": (("task_struct", "stack"),),
        # throttling.h
        "task_cgroups": (("task_struct", "cgroups"),),
        "css_set_dfl_cgrp": (("css_set", "dfl_cgrp"),),
        "css_set_subsys": (("css_set", "subsys"),),
        "css_cgroup": (("cgroup_subsys_state", "cgroup"),),
        "cgroup_kn": (("cgroup", "kn"),),
        "kernfs_node_id": (("kernfs_node", "id"),),
        "kernfs_node_name": (("kernfs_node", "name"),),
        "fs_root": (("fs_struct", "root"),),
        "vfsmount_root": (("vfsmount", "mnt_root"),),
        "mount_mnt": (("mount", "mnt"),),
        "mount_parent": (("mount", "mnt_parent"),),
        "mount_mountpoint": (("mount", "mnt_mountpoint"),),
        "dentry_parent": (("dentry", "d_parent"),),
        "dentry_name": (("dentry", "d_name.name"),),
        "dentry_name_len": (("dentry", "d_name.len"),),
        "dentry_inode": (("dentry", "d_inode"),),
        "dentry_hash_pprev": (("dentry", "d_hash.pprev"),),
        "inode_mode": (("inode", "i_mode"),),
        "inode_number": (("inode", "i_ino"),),
        "inode_generation": (("inode", "i_generation"),),
        "file_path": (("file", "f_path"),),
        "file_dentry": (("file", "f_path.dentry"),),
        "file_inode": (("file", "f_inode"),),
        "file_private_data": (("file", "private_data"),),
        "files_fdt": (("files_struct", "fdt"),),
        "fdtable_fd": (("fdtable", "fd"),),
        "fdtable_max_fds": (("fdtable", "max_fds"),),
        "kiocb_file": (("kiocb", "ki_filp"),),
        "binprm_file": (("linux_binprm", "file"),),
        "filename_name": (("filename", "name"),),
        "net_device_name": (("net_device", "name"),),
        # sockets.h
        "sock_common": (("sock", "__sk_common"),),
        "sock_type": (("sock", "sk_type"),),
        "sock_protocol": (("sock", "sk_protocol"),),
        "sock_mark": (("sock", "sk_mark"),),
        "sock_priority": (("sock", "sk_priority"),),
        "common_family": (("sock_common", "skc_family"),),
        "common_state": (("sock_common", "skc_state"),),
        "common_num": (("sock_common", "skc_num"),),
        "common_dport": (("sock_common", "skc_dport"),),
        "common_rcv_saddr": (("sock_common", "skc_rcv_saddr"),),
        "common_daddr": (("sock_common", "skc_daddr"),),
        "common_v6_rcv_saddr": (("sock_common", "skc_v6_rcv_saddr"),),
        "common_v6_daddr": (("sock_common", "skc_v6_daddr"),),
        "inet_sport": (("inet_sock", "inet_sport"),),
        "socket_sk": (("socket", "sk"),),
        "skb_head": (("sk_buff", "head"),),
        "skb_network_header": (("sk_buff", "network_header"),),
        "skb_transport_header": (("sk_buff", "transport_header"),),
        "skb_tail": (("sk_buff", "tail"),),
        "skb_hash": (("sk_buff", "hash"),),
        "skb_len": (("sk_buff", "len"),),
        "skb_mark": (("sk_buff", "mark"),),
        "skb_priority": (("sk_buff", "priority"),),
        "skb_active_extensions": (("sk_buff", "active_extensions"),),
        "skb_extensions": (("sk_buff", "extensions"),),
        "skb_ext_offset": (("skb_ext", "offset"),),
        "sec_path_len": (("sec_path", "len"),),
        "sec_path_olen": (("sec_path", "olen"),),
        # credentials.h, process.h
        "cred_uid": (("cred", "uid"),),
        "cred_euid": (("cred", "euid"),),
        "cred_securebits": (("cred", "securebits"),),
        "cred_permitted": (("cred", "cap_permitted"),),
        "cred_effective": (("cred", "cap_effective"),),
        "cred_inheritable": (("cred", "cap_inheritable"),),
        "cred_user_ns": (("cred", "user_ns"),),
        "user_ns_level": (("user_namespace", "level"),),
        "user_ns_owner": (("user_namespace", "owner"),),
        "user_ns_group": (("user_namespace", "group"),),
        "user_ns_inum": (("user_namespace", "ns.inum"),),
        "pid_level": (("pid", "level"),),
        "pid_numbers": (("pid", "numbers"),),
        "nsproxy_uts": (("nsproxy", "uts_ns"),),
        "nsproxy_ipc": (("nsproxy", "ipc_ns"),),
        "nsproxy_mnt": (("nsproxy", "mnt_ns"),),
        "nsproxy_pid_for_children": (("nsproxy", "pid_ns_for_children"),),
        "nsproxy_net": (("nsproxy", "net_ns"),),
        "nsproxy_time": (("nsproxy", "time_ns"),),
        "nsproxy_time_for_children": (("nsproxy", "time_ns_for_children"),),
        "nsproxy_cgroup": (("nsproxy", "cgroup_ns"),),
        "uts_namespace_inum": (("uts_namespace", "ns.inum"),),
        "ipc_namespace_inum": (("ipc_namespace", "ns.inum"),),
        "mnt_namespace_inum": (("mnt_namespace", "ns.inum"),),
        "pid_namespace_inum": (("pid_namespace", "ns.inum"),),
        "net_inum": (("net", "ns.inum"),),
        "time_namespace_inum": (("time_namespace", "ns.inum"),),
        "cgroup_namespace_inum": (("cgroup_namespace", "ns.inum"),),
        # objects.h
        "bpf_attr_prog_type": (("bpf_attr", "prog_type"),),
        "bpf_attr_insn_cnt": (("bpf_attr", "insn_cnt"),),
        "bpf_attr_prog_name": (("bpf_attr", "prog_name"),),
        "bpf_prog_type": (("bpf_prog", "type"),),
        "bpf_prog_len": (("bpf_prog", "len"),),
        "bpf_prog_aux": (("bpf_prog", "aux"),),
        "bpf_prog_aux_name": (("bpf_prog_aux", "name"),),
        "bpf_map_type": (("bpf_map", "map_type"),),
        "bpf_map_key_size": (("bpf_map", "key_size"),),
        "bpf_map_value_size": (("bpf_map", "value_size"),),
        "bpf_map_max_entries": (("bpf_map", "max_entries"),),
        "bpf_map_name": (("bpf_map", "name"),),
        "perf_event_attr": (("perf_event", "attr"),),
        "perf_attr_type": (("perf_event_attr", "type"),),
        "perf_attr_config": (("perf_event_attr", "config"),),
        "perf_attr_probe_offset": (("perf_event_attr", "probe_offset"),),
        "perf_attr_kprobe_func": (("perf_event_attr", "kprobe_func"),),
        "module_name": (("module", "name"),),
        "module_taints": (("module", "taints"),),
        "load_info_name": (("load_info", "name"),),
        "load_info_mod": (("load_info", "mod"),),
        "load_info_sig_ok": (("load_info", "sig_ok"),),
        # buffers.h: "iov_iter: use bvec/kvec..." renamed the member in v6.4
        "iov_iter_type": (("iov_iter", "iter_type"), ("iov_iter", "type")),
        "iov_iter_iov": (("iov_iter", "__iov"), ("iov_iter", "iov")),
        "iov_iter_ubuf": (("iov_iter", "ubuf"),),
        "iov_iter_count": (("iov_iter", "count"),),
    }
)


_ENUMERATORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "iter_type": ("ITER_IOVEC", "ITER_UBUF"),
        "skb_ext_id": ("SKB_EXT_SEC_PATH",),
    }
)

# Members that some kernels or configurations lack.
_OPTIONAL = frozenset(
    {
        "task_thread_status",  # x86 only; the text asks for it there
        "task_loginuid", "nsproxy_time", "nsproxy_time_for_children", "time_namespace_inum",
        "sec_path_len", "sec_path_olen", "skb_active_extensions", "skb_extensions",
        "skb_ext_offset", "iov_iter_ubuf", "load_info_sig_ok",
    }
)  # fmt: skip


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
    return "\n".join([*lines, *_constants(text, btf)])


def _constants(text: str, btf: Btf) -> list[str]:
    """Return enumerators and facts that the text asks for; absent ones stay undefined."""
    lines = []
    for enum, names in _ENUMERATORS.items():
        used = [name for name in names if re.search(rf"\b{name}\b", text)]
        if used and btf.find(enum, BtfKind.ENUM, BtfKind.ENUM64) is not None:
            values = btf.enum_values(enum)
            lines += [f"#define {name} {values[name]}" for name in used if name in values]
    # bpf_task_pt_regs(): "bpf: Add bpf_task_pt_regs() helper", v5.15.
    if "HAVE_TASK_PT_REGS" in text and btf.has_name("BPF_FUNC_task_pt_regs"):
        lines.append("#define HAVE_TASK_PT_REGS")
    # bpf_get_current_task_btf(): "bpf: Add bpf_get_current_task_btf() helper", v5.11.
    typed = btf.has_name("BPF_FUNC_get_current_task_btf")
    if "HAVE_TYPED_TASK" in text and typed:
        lines.append("#define HAVE_TYPED_TASK")
    # bpf_d_path(): "bpf: Add d_path helper", v5.10, whose verifier was not tried with it.
    if "HAVE_D_PATH" in text and typed and btf.has_name("BPF_FUNC_d_path"):
        lines.append("#define HAVE_D_PATH")
    # BPF_MAY_GOTO: "bpf: Introduce may_goto instruction", v6.9.
    if "HAVE_MAY_GOTO" in text and _has_may_goto(btf):
        lines.append("#define HAVE_MAY_GOTO")
    # bpf_ima_file_hash(): "bpf-lsm: Introduce new helper bpf_ima_file_hash()", v5.18.
    if "HAVE_IMA_FILE_HASH" in text and btf.has_name("BPF_FUNC_ima_file_hash"):
        lines.append("#define HAVE_IMA_FILE_HASH")
    if "SOCK_PROTOCOL_IS_BYTE" in text:
        # A bit field of 8 bits until "net: Make sock protocol value checks more specific", v5.6.
        size = btf.struct_member("struct sock", "sk_protocol").size
        lines += ["#define SOCK_PROTOCOL_IS_BYTE"] if size == 1 else []
    return lines


def _has_may_goto(btf: Btf) -> bool:
    try:
        btf.struct_member("struct bpf_verifier_state", "may_goto_depth")
    except BtfError:
        return False
    return True


def _offset(btf: Btf, name: str) -> int:
    error = BtfError(f"no offset {name}")
    for struct, member in _OFFSETS[name]:
        try:
            return btf.struct_member(_c_name(struct), member).offset
        except BtfError as missing:
            error = missing
    if name in _OPTIONAL:
        return 0  # the text does not use it where it is absent
    raise error


def _member_size(btf: Btf, name: str) -> int:
    struct, member = _OFFSETS[name][0]
    return btf.struct_member(_c_name(struct), member).size


def _exists(btf: Btf, name: str) -> bool:
    for struct, member in _OFFSETS[name]:
        try:
            btf.struct_member(_c_name(struct), member)
        except BtfError:
            continue
        return True
    return False


def _c_name(struct: str) -> str:
    return f"union {struct}" if struct == "bpf_attr" else f"struct {struct}"
