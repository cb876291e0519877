"""Documents of tracing policies for the section "policies"."""

from __future__ import annotations

_HEAD = """apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: {name}
spec:
  kprobes:
  - call: sys_{call}
    syscall: true
"""
NO_FLAGS = """    args:
    - {index: 0, type: int}
    - {index: 2, type: int}
    selectors:
    - matchArgs:
      - {index: 2, operator: Mask, values: ["0x400000"]}
"""
FLAGS = NO_FLAGS.replace("0x400000", "0x80000")  # O_CLOEXEC: what the workload opens with
NO_PREFIX = """    args:
    - {index: 1, type: string}
    selectors:
    - matchArgs:
      - {index: 1, operator: Prefix, values: ["/etc/"]}
"""
NO_BINARY = """    args:
    - {index: 0, type: int}
    selectors:
    - matchBinaries:
      - {operator: In, values: ["/usr/bin/none"]}
"""
PATH = """    args:
    - {index: 0, type: fd}
"""
STACK = """    args:
    - {index: 0, type: int}
    selectors:
    - matchActions:
      - {action: Post, userStackTrace: true}
"""
RETURN = """    args:
    - {index: 0, type: int}
    return: true
    returnArg: {index: 0, type: int}
"""
# Sixty of the system calls that every machine has, with arguments as the forms above name them.
CALLS = [
    "openat", "mkdirat", "unlinkat", "fchownat", "fchmodat", "faccessat", "readlinkat",
    "symlinkat", "renameat2", "linkat", "utimensat", "mknodat", "execveat", "statx",
    "name_to_handle_at", "newfstatat", "openat2", "inotify_add_watch", "fspick", "open_tree",
    "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "fsync", "fdatasync",
    "ftruncate", "fallocate", "fchmod", "fchown", "flock", "fcntl", "ioctl", "dup", "dup3",
    "getdents64", "fchdir", "epoll_ctl", "fstatfs", "sendfile64", "splice", "tee", "bind",
    "connect", "listen", "accept", "accept4", "shutdown", "setsockopt", "getsockopt",
    "getsockname", "getpeername", "sendto", "recvfrom", "sendmsg", "recvmsg", "syncfs",
]  # fmt: skip
_PATH_CALLS = 20  # of CALLS: the second argument is a path


def document(name: str, call: str, body: str) -> str:
    """Return the document of a policy with one system call."""
    return _HEAD.format(name=name, call=call) + body


def sixty() -> list[str]:
    """Return sixty different policies, each on a call of its own."""
    found = []
    for number, call in enumerate(CALLS):
        if number < _PATH_CALLS:
            body = (NO_FLAGS, NO_PREFIX, NO_BINARY, FLAGS)[number % 4]
        else:
            body = (PATH, NO_BINARY, RETURN, STACK)[number % 4]
        found.append(document(f"bench-{call.replace('_', '-')}", call, body))
    return found
