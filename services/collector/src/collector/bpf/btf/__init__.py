"""The kernel's types and functions, read from BTF: offsets, prototypes, enums, sizes."""

from collector.bpf.btf.kinds import BtfKind, Field, FuncProto, Member, Param, Type
from collector.bpf.btf.reader import VMLINUX, Btf

__all__ = [
    "VMLINUX", "Btf", "BtfKind", "Field", "FuncProto", "Member", "Param", "Type",
]  # fmt: skip
