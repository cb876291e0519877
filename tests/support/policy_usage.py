"""How often Tetragon's policies use what a document can say.

For each: occurrences in its 83 example policies, how many of those policies have it, and
occurrences in the 25 complete policies of its documents.
"""

from __future__ import annotations

USAGE: dict[tuple[str, str], str] = {
    ("hook", "kprobes: function"): "116 (`syscall: false`)",
    ("hook", "kprobes: system call"): "22 (`syscall: true`)",
    ("hook", "kprobes: return"): "42 / 19",
    ("hook", "kprobes: list of syscalls"): "3 (tracepoints too)",
    ("hook", "kprobes: generated_syscalls"): "1",
    ("hook", "kprobes: generated_ftrace"): "1",
    ("hook", "fentries"): "0",
    ("hook", "tracepoints"): "3 / 3 / 1",
    ("hook", "tracepoints: raw"): "1 / 1 / 3",
    ("hook", "uprobes"): "4 / 4 / 3",
    ("hook", "usdts"): "2 / 2 / 2",
    ("hook", "lsmhooks"): "3 / 3 / 3",
    ("hook", "loader"): "2 / 2 / 0",
    **{
        ("type", name): count
        for name, count in {
            "int": "87 / 39 / 13", "file": "25 / 20 / 6", "sock": "30 / 14 / 0",
            "string": "19 / 13 / 2", "uint32": "9 / 6 / 1", "skb": "10 / 7", "nop": "9 / 8",
            "cred": "6 / 4", "int32": "4 / 2 / 1", "path": "4 / 4", "bpf_map": "4 / 2",
            "linux_binprm": "3 / 3 / 3", "syscall64": "2 / 2", "bpf_attr": "2 / 2",
            "perf_event": "2 / 2", "sockaddr": "2 / 2", "char_buf": "2 / 2", "size_t": "2 / 2",
            "module": "2 / 1", "int64": "1 / 1 / 4", "uint64": "1 / 1 / 1", "uint16": "0 / 0 / 2",
            **dict.fromkeys(
                ("cap_effective", "cap_inheritable", "cap_permitted", "net_device", "socket",
                 "dentry", "kiocb", "iov_iter", "user_namespace", "capability", "load_info"),
                "1 / 1",
            ),
        }.items()
    },
    **{
        ("operator", name): count
        for name, count in {
            "Equal": "64 / 28 / 7", "Prefix": "17 / 4 / 2", "Mask": "11 / 5", "DAddr": "10 / 5",
            "Protocol": "9 / 5", "Family": "7 / 6", "NotDAddr": "6 / 6", "Postfix": "4 / 4",
            "NotEqual": "3 / 1", "State": "2 / 2", "InMap": "2 / 2", "SPort": "2 / 2",
            "DPort": "1 / 1", "GT": "1 / 1", "SAddr": "1 / 1", "CelExpr": "0 / 0 / 1",
        }.items()
    },
    **{
        ("filter", name): count
        for name, count in {
            "matchArgs": "102 / 43 / 8", "matchNamespaces": "18 / 9 / 3",
            "matchBinaries": "15 / 11 / 7", "matchPIDs": "5 / 5 / 1",
            "matchCapabilities": "4 / 4 / 0", "matchReturnArgs": "1 / 1 / 1",
            "matchCapabilityChanges": "1 / 1 / 0",
        }.items()
    },
    **{
        ("action", name): count
        for name, count in {
            "Post": "39 / 12 / 4", "Sigkill": "16 / 9 / 3", "Override": "10 / 8 / 0",
            "UntrackSock": "5 / 5", "NoPost": "2 / 1 / 1", "NotifyEnforcer": "1 / 1",
            "DnsLookup": "1 / 1", "GetUrl": "1 / 1", "Set": "1 / 1",
        }.items()
    },
    ("argument key", "label"): "15 / 6 / 10",
    ("argument key", "resolve"): "1 / 1 / 10",
    ("argument key", "sizeArgIndex"): "2 / 2 / 3",
    ("argument key", "maxData"): "1 / 1 / 3",
    ("argument key", "returnCopy"): "0 / 0 / 3",
    ("argument key", "btfType"): "0 / 0 / 4",
    ("policy key", "podSelector"): "2",
    ("policy key", "enforcers"): "1",
    ("policy key", "options"): "2",
}  # fmt: skip
