"""What each ready-made policy costs an act that it reports, and one that it does not.

Two figures an act: the CPU time of the acting process over that without the policy, in alternating
pieces, of which the fastest counts; and the run time of our BPF programs by the kernel's own
statistics. The first includes what the hook takes: where sys_enter is hooked, every system call
leaves the kernel's fast path. The second includes two readings of a clock for each run, some 50 ns.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Report, build_static
from benchmarks.policy_kernel import PolicyKernel
from benchmarks.storm import statistics_on
from readymade import load, render
from tracingpolicy.values import Mode

ROUNDS = 11
PIECES = 5
ACTS_C = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in peer = {.sin_family = AF_INET};
static int listener, datagrams;

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void open_and_close(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd >= 0)
		close(fd);
}

static void connection(void)
{
	char text[100] = "";
	int client = socket(AF_INET, SOCK_STREAM, 0), server;

	if (connect(client, (struct sockaddr *)&peer, sizeof(peer)))
		exit(1);
	server = accept(listener, NULL, NULL);
	if (write(client, text, sizeof(text)) < 0 || read(server, text, sizeof(text)) < 0)
		exit(1);
	close(client);
	close(server);
}

static void act(const char *name, const char *path)
{
	if (!strcmp(name, "open"))
		open_and_close(path, O_RDONLY);
	else if (!strcmp(name, "open-write"))
		open_and_close(path, O_WRONLY);
	else if (!strcmp(name, "chmod"))
		chmod(path, 0644);
	else if (!strcmp(name, "tcp"))
		connection();
	else if (!strcmp(name, "udp"))
		sendto(datagrams, "x", 1, 0, (struct sockaddr *)&peer, sizeof(peer));
	else if (!strcmp(name, "setuid"))
		syscall(SYS_setuid, 0);
	else if (!strcmp(name, "setresuid"))
		syscall(SYS_setresuid, -1, -1, -1);
	else
		syscall(SYS_getppid);
}

/* acts NAME PATH COUNT: for each byte of standard input so many acts, then ns of CPU an act. */
int main(int argc, char **argv)
{
	socklen_t size = sizeof(peer);
	long count = atol(argv[3]);
	char byte;

	peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(listener, (struct sockaddr *)&peer, size) || listen(listener, 16))
		return 1;
	getsockname(listener, (struct sockaddr *)&peer, &size);
	while (read(0, &byte, 1) == 1) {
		double start = cpu_ns();

		for (long n = 0; n < count; n++)
			act(argv[1], argv[2]);
		printf("%.2f\n", (cpu_ns() - start) / count);
		fflush(stdout);
	}
	return 0;
}
"""


class Case(NamedTuple):
    """An act beside a policy."""

    policy: str
    what: str
    act: str
    path: str = "-"
    acts: int = 2000
    fact: bool = False  # a repeated fact, which has a target


def _cases(folder: Path) -> tuple[Case, ...]:
    watched, outside = str(folder / "watched" / "file"), str(folder / "file")
    setting = "/proc/sys/kernel/threads-max"
    return (
        Case("files", "open to write and close, reported", "open-write", watched),
        Case("files", "open to read and close", "open", outside),
        Case("files", "chmod, reported", "chmod", watched),
        Case("host", "open of a setting to write and close, reported", "open-write", setting),
        Case("host", "open to read and close", "open", outside),
        Case("network", "TCP connection, both ends, reported", "tcp", acts=200),
        Case("network", "datagram to a peer reported before", "udp"),
        Case("credentials", "setresuid, reported", "setresuid"),
        Case("credentials", "another call", "getppid", acts=20_000),
        Case("capabilities", "setuid, a repeated fact", "setuid", acts=10_000),
        Case("syscalls", "a repeated fact", "getppid", acts=20_000, fact=True),
    )


class Costs(NamedTuple):
    """Nanoseconds an act, of one round."""

    without: float
    off: float  # the policy is loaded and switched off
    on: float
    programs: float  # the kernel's statistics while it is on


def run(report: Report, quick: bool) -> None:
    """Measure each act without the policy, with it off, and with it on in turn, in rounds."""
    with tempfile.TemporaryDirectory(prefix="tetra-ready-") as name:
        folder = Path(name)
        (folder / "watched").mkdir()
        (folder / "watched" / "file").touch()
        (folder / "file").touch()
        given = {"files": {"paths": str(folder / "watched")}}
        with PolicyKernel.opened() as kernel:
            for case in _cases(folder):
                text = render(load(case.policy), given.get(case.policy, {}))
                kernel.prepare([text])
                with acting(case, kernel.ring.drain) as piece:
                    rounds = 2 if quick else ROUNDS
                    found = [_round(kernel, text, case, piece) for _ in range(rounds)]
                _report(report, case, found)


def _round(kernel: PolicyKernel, text: str, case: Case, piece: Callable[[], float]) -> Costs:
    without = fastest(piece)
    with kernel.loaded([text]) as (installed,):
        installed.switch(None)
        off = fastest(piece)
        installed.switch(Mode.MONITOR)
        on = fastest(piece)  # facts are reported in the first piece
        with statistics_on():
            before_ns = _run_time_ns()
            piece()
            programs = (_run_time_ns() - before_ns) / case.acts
    return Costs(without, off, on, programs)


def fastest(piece: Callable[[], float]) -> float:
    """Return the CPU time of an act in ns, of the piece that others disturbed least."""
    return min(piece() for _ in range(PIECES))


def _report(report: Report, case: Case, found: list[Costs]) -> None:
    name = f"{case.policy}: {case.what}"
    report.add(f"{name}: without", [one.without for one in found], "ns")
    report.add(f"{name}: CPU more", [one.on - one.without for one in found], "ns")
    report.add(f"{name}: run time of programs", [one.programs for one in found], "ns")
    if case.fact:
        report.add(
            f"{name}: over its switch", [one.on - one.off for one in found], "ns", ("<=", 40)
        )


@contextmanager
def acting(case: Case, drain: Callable[[], object]) -> Iterator[Callable[[], float]]:
    """Start a process; yield what lets it do a piece and returns the CPU time of an act in ns."""
    program = build_static("acts", ACTS_C)
    command = [str(program), case.act, case.path, str(case.acts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def piece() -> float:
            stdin.write(b".")
            stdin.flush()
            took_ns = float(stdout.readline())
            drain()
            return took_ns

        yield piece
        stdin.close()


def _run_time_ns() -> int:
    """Return the run time of all BPF programs that this process holds.

    The kernel measures programs, not processes: what others do meanwhile is in it.
    """
    spent_ns = {}
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except OSError:  # the descriptor of the directory itself
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "run_time_ns" in fields:
            spent_ns[fields["prog_id"]] = int(fields["run_time_ns"])
    return sum(spent_ns.values())
