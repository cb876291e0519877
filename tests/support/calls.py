"""System calls of this machine, by the numbers of its headers."""

import platform

_TABLES = {
    # arch/x86/entry/syscalls/syscall_64.tbl
    "x86_64": {
        "close": 3,
        "connect": 42,
        "getpriority": 140,
        "openat": 257,
        "sync_file_range": 277,
    },
    # include/uapi/asm-generic/unistd.h
    "aarch64": {
        "close": 57,
        "connect": 203,
        "getpriority": 141,
        "openat": 56,
        "sync_file_range": 84,
    },
}
NUMBERS = _TABLES[platform.machine()]
ABI = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
PREFIX = f"__{ABI}_sys_"
