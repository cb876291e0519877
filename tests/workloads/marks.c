/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A steady load with marks: marks PROGRAM MARK FIRST COUNT PER_SECOND. Runs `PROGRAM MARK n` for n
 * from FIRST on, one after the other, and prints `n start end` of each, in ns of the boot clock.
 * SIGTERM ends it after the process that is running.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static volatile sig_atomic_t stopping;

static void stop(int number)
{
	(void)number;
	stopping = 1;
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	char number[24], *args[] = {argv[1], argv[2], number, NULL};
	long first, count;
	long long period, next;

	if (argc != 6)
		return 2;
	first = atol(argv[3]);
	count = atol(argv[4]);
	period = 1000000000LL / atol(argv[5]);
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	signal(SIGTERM, stop); /* glibc's: waitpid() is restarted */
	next = now();
	for (long n = first; n < first + count && !stopping; n++) {
		long long start, wait;
		pid_t pid;
		int status;

		snprintf(number, sizeof(number), "%ld", n);
		start = now();
		if (posix_spawn(&pid, argv[1], NULL, NULL, args, environ))
			return 1;
		waitpid(pid, &status, 0);
		printf("%ld %lld %lld\n", n, start, now());
		next += period;
		wait = next - now();
		if (wait > 0) {
			struct timespec t = {wait / 1000000000LL, wait % 1000000000LL};

			nanosleep(&t, NULL);
		} else if (wait < -1000000000LL) {
			next = now(); /* the machine could not keep up: restart the schedule */
		}
	}
	return 0;
}
