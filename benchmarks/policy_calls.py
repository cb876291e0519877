"""What a policy costs the calls that it hooks: nanoseconds, beside bpftrace with the same filter.

A workload makes system calls on one CPU in short pieces, with this process waiting meanwhile; the
fastest piece of a round counts. Each round measures all variants in turn, each over the bare call
of the same round, so that what else the machine does is in both.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator

from benchmarks import policy_documents as documents
from benchmarks.bpftrace import bpftrace
from benchmarks.harness import Report, build_static, mount_tracefs
from benchmarks.policy_kernel import PolicyKernel, empty_programs

CALLS_C = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* calls openat|lseek|close COUNT: for each byte of standard input so many calls, then ns a call. */
int main(int argc, char **argv)
{
	long count = atol(argv[2]), fd = open("/usr/share/misc", O_RDONLY | O_DIRECTORY);
	cpu_set_t one;
	char byte;

	CPU_ZERO(&one);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
	sched_setaffinity(0, sizeof(one), &one);
	while (read(0, &byte, 1) == 1) {
		double start = now();

		for (long n = 0; n < count; n++) {
			if (argv[1][0] == 'o') /* no such directory descriptor: the call, and no file */
				syscall(SYS_openat, -1, "usr/share/misc/none", O_RDONLY | O_CLOEXEC);
			else if (argv[1][0] == 'l')
				syscall(SYS_lseek, fd, 0, SEEK_SET);
			else
				syscall(SYS_close, -1);
		}
		printf("%.2f\n", (now() - start) / count);
		fflush(stdout);
	}
	return 0;
}
"""
CALLS = 2000  # of a piece: their records fit into the ring
PIECES = 60
ROUNDS = 7
_OPENAT = "tracepoint:syscalls:sys_enter_openat"
BPFTRACE = {
    "no match by flags": f"{_OPENAT} /args->flags & 0x400000/ {{ printf(\"%d\\n\", pid); }}",
    "no match by path prefix": (
        f'{_OPENAT} /strncmp(str(args->filename), "/etc/", 5) == 0/ {{ printf("%d\\n", pid); }}'
    ),
    "no match by binary": f'{_OPENAT} /comm == "none"/ {{ printf("%d\\n", pid); }}',
    "match, two plain arguments": (
        f'{_OPENAT} /args->flags & 0x80000/ {{ printf("%d %d\\n", args->dfd, args->flags); }}'
    ),
}  # fmt: skip


_EMPTY_TRACEPOINT = "close: an empty program at sys_enter"
_EMPTY_BOTH = "close: empty programs at sys_enter and sys_exit"
_EMPTY = {_EMPTY_TRACEPOINT: ("sys_enter",), _EMPTY_BOTH: ("sys_enter", "sys_exit")}
_LIMITS = {
    "match, two plain arguments": ("<=", 150.0),
    "match, path of three components": ("<=", 250.0),
    **{
        f"another call, {policies}": ("<=", 25.0)
        for policies in ("1 policy", "10 policies", "60 policies")
    },
}
# What the limits leave of a call where being called is all that an empty program does.
_OVER = {
    "match, two plain arguments": "openat: an empty program",
    "match, path of three components": "lseek: an empty program",
    "another call, 1 policy": _EMPTY_TRACEPOINT,
    "another call, 10 policies": _EMPTY_TRACEPOINT,
    "another call, 60 policies": _EMPTY_BOTH,  # some of them read what a call returns
}


class Workload:
    """The program that makes the calls, one for each kind of call."""

    def __init__(self, drain: Callable[[], object], pieces: int) -> None:
        program = build_static("calls", CALLS_C)
        self._drain, self._pieces = drain, pieces
        self._processes = {
            call: subprocess.Popen(
                [program, call, str(CALLS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for call in ("openat", "lseek", "close")
        }

    def fastest_ns(self, call: str) -> float:
        """Return the nanoseconds a call of the fastest piece."""
        return min(self._piece(call) for _ in range(self._pieces))

    def _piece(self, call: str) -> float:
        process = self._processes[call]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b".")
        process.stdin.flush()
        took_ns = float(process.stdout.readline())
        self._drain()
        return took_ns

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.communicate()


def run(report: Report, quick: bool) -> None:
    """Measure every variant in turn, in rounds."""
    mount_tracefs()
    rounds, pieces = (2, 20) if quick else (ROUNDS, PIECES)
    with PolicyKernel.opened() as kernel:
        workload = Workload(kernel.ring.drain, pieces)
        try:
            variants = _Variants(kernel, workload)
            variants.prepare()
            found: dict[str, list[float]] = {}
            for number in range(rounds):
                for name, cost_ns in variants.round():
                    found.setdefault(name, []).append(cost_ns)
                report.say(f"round {number + 1} done")
        finally:
            workload.close()
    _report(report, found)


class _Variants:
    def __init__(self, kernel: PolicyKernel, workload: Workload) -> None:
        self._kernel, self._workload = kernel, workload
        form = documents.document
        filters = {
            "no match by flags": documents.NO_FLAGS,
            "no match by path prefix": documents.NO_PREFIX,
            "no match by binary": documents.NO_BINARY,
            "match, two plain arguments": documents.FLAGS,
        }
        self._openat = {name: [form("bench", "openat", body)] for name, body in filters.items()}
        self._openat["10 policies on the call, no match by flags"] = [
            form(f"bench-{n}", "openat", documents.NO_FLAGS) for n in range(10)
        ]
        self._openat["60 policies, one on the call, no match by flags"] = documents.sixty()
        self._lseek = {
            "match, path of three components": [form("bench", "lseek", documents.PATH)],
            "match, user stack": [form("bench", "lseek", documents.STACK)],
            "match, entry and return joined": [form("bench", "lseek", documents.RETURN)],
        }
        self._other = {
            f"another call, {count} {'policy' if count == 1 else 'policies'}":
                documents.sixty()[:count]
            for count in (1, 10, 60)
        }  # fmt: skip

    def prepare(self) -> None:
        """Compile everything before the first round."""
        for variants in (self._openat, self._lseek, self._other):
            for texts in variants.values():
                self._kernel.prepare(texts)

    def round(self) -> Iterator[tuple[str, float]]:
        """Yield each variant's cost over the bare call of this round."""
        for call, variants in (
            ("openat", self._openat), ("lseek", self._lseek), ("close", self._other)
        ):  # fmt: skip
            bare = self._workload.fastest_ns(call)
            yield f"{call}, bare", bare
            with self._kernel.empty(documents.document("bench", call, "")):
                yield f"{call}: an empty program", self._workload.fastest_ns(call) - bare
            if variants is self._other:
                for name, at in _EMPTY.items():
                    with empty_programs(at):
                        yield name, self._workload.fastest_ns(call) - bare
            for name, texts in variants.items():
                with self._kernel.loaded(texts):
                    yield name, self._workload.fastest_ns(call) - bare
        bare = self._workload.fastest_ns("openat")
        for name, program in BPFTRACE.items():
            with bpftrace(program):
                yield f"bpftrace: {name}", self._workload.fastest_ns("openat") - bare


def _report(report: Report, found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        report.add(name, values, "ns", _LIMITS.get(name))
    for name, empty_name in _OVER.items():
        over = [a - b for a, b in zip(found[name], found[empty_name], strict=True)]
        both = empty_name is _EMPTY_BOTH
        what = "over two empty programs" if both else "over an empty program"
        report.add(f"{name}, {what}", over, "ns", _LIMITS[name])
    empty = found["openat: an empty program"]
    for name in BPFTRACE:
        if not name.startswith("no match"):
            continue
        over = [a - b for a, b in zip(found[name], empty, strict=True)]
        report.add(f"{name}, over an empty program", over, "ns", ("<=", 20.0))
        peer = statistics.median(found[f"bpftrace: {name}"])
        report.add(f"{name}, against bpftrace", [one / peer for one in found[name]], "x", ("<=", 1))
