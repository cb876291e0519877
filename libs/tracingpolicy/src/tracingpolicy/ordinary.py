"""System calls that nearly every program makes, and that a profile always allows.

They work on the process itself, on descriptors that it has, or open a file by its name, so a filter
that refuses them would stop nearly every program and protect little. They are also those that are
made most often: policy `syscalls` may leave some of their uses out.
"""

from __future__ import annotations

ORDINARY = frozenset(
    {
        # memory
        "brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
        # descriptors
        "close", "dup", "dup2", "dup3", "epoll_ctl", "epoll_pwait", "epoll_wait", "fcntl", "fstat",
        "lseek", "poll", "ppoll", "pread64", "preadv", "pselect6", "pwrite64", "pwritev", "read",
        "readv", "recvfrom", "recvmsg", "select", "sendmsg", "sendto", "write", "writev",
        # files by name
        "access", "faccessat", "faccessat2", "getdents64", "lstat", "newfstatat", "open", "openat",
        "readlink", "readlinkat", "stat", "statx",
        # the process itself, time
        "clock_gettime", "clock_nanosleep", "futex", "getcpu", "getegid", "geteuid", "getgid",
        "getpid", "getppid", "getrandom", "gettid", "gettimeofday", "getuid", "nanosleep",
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield", "set_robust_list", "time",
    }
)  # fmt: skip
