/* SPDX-License-Identifier: Apache-2.0 */
/* Processes with unusual lives, one for each word: lives WORD [ARG...]. Each prints the pids that a
 * test looks for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRUE "/usr/bin/true"

static void wait_all(void)
{
	while (wait(NULL) > 0)
		;
}

static void *sleeper(void *_)
{
	usleep(20000);
	return NULL;
}

static void *leaver(void *_)
{
	usleep(30000);
	_exit(6);
}

static void *execer(void *_)
{
	execl(TRUE, "true", "from-thread", NULL);
	_exit(9);
}

static void *forker(void *_)
{
	pid_t pid = fork();

	if (pid == 0)
		execl(TRUE, "true", "forked-by-thread", NULL);
	printf("%d\n", pid);
	waitpid(pid, NULL, 0);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *life = argc > 1 ? argv[1] : "";
	extern char **environ;
	pthread_t thread;
	pid_t pid;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (!strcmp(life, "fork")) { /* fork without exec */
		if ((pid = fork()) == 0)
			_exit(3);
		printf("%d\n", pid);
		wait_all();
	} else if (!strcmp(life, "vfork")) {
		if ((pid = vfork()) == 0) {
			execl(TRUE, "true", "vforked", NULL);
			_exit(9);
		}
		printf("%d\n", pid);
		wait_all();
	} else if (!strcmp(life, "chain")) { /* exec after exec in one pid */
		char *rest[] = {argv[0], "chain-2", NULL};

		execv("/proc/self/exe", rest);
	} else if (!strcmp(life, "chain-2")) {
		execl(TRUE, "true", "chain-3", NULL);
	} else if (!strcmp(life, "orphan")) { /* the parent exits first */
		if (fork() == 0) {
			if ((pid = fork()) == 0) {
				while (getppid() != 1 && access("/dev/null", F_OK) == 0 &&
				       kill(atoi(argv[2]), 0) == 0 && getppid() != atoi(argv[2]))
					usleep(1000);
				usleep(20000);
				_exit(4);
			}
			printf("%d\n%d\n", getpid(), pid);
			_exit(0);
		}
		usleep(60000);
		wait_all();
	} else if (!strcmp(life, "orphan-exec")) { /* an exec looks up its present parent */
		pid_t reaper = getpid();

		prctl(PR_SET_CHILD_SUBREAPER, 1);
		if (fork() == 0) {
			if ((pid = fork()) == 0) {
				while (getppid() != reaper)
					usleep(1000);
				execl(TRUE, "true", "adopted", NULL);
				_exit(9);
			}
			printf("%d\n%d\n", getpid(), pid);
			_exit(0);
		}
		wait_all();
	} else if (!strcmp(life, "parent-execs")) { /* the parent's image is replaced */
		int held[2];
		char *rest[] = {argv[0], "hold", NULL, NULL}, number[16];

		if (pipe(held))
			return 1;
		if ((pid = fork()) == 0) {
			char byte;

			close(held[1]);
			if (read(held[0], &byte, 1) == 0) /* the exec, or its end, closed the other */
				_exit(2);
			_exit(3);
		}
		printf("%d\n", pid);
		close(held[0]);
		fcntl(held[1], F_SETFD, FD_CLOEXEC);
		snprintf(number, sizeof(number), "%d", pid);
		rest[2] = number;
		execv("/proc/self/exe", rest);
	} else if (!strcmp(life, "hold")) {
		wait_all();
	} else if (!strcmp(life, "reuse")) { /* two lives, one pid */
		struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (unsigned long)&pid,
					  .set_tid_size = 1};

		if ((pid = fork()) == 0) {
			if (argc > 2 && setuid(1) == 0)
				execl(argv[2], "first", NULL);
			_exit(3);
		}
		printf("%d\n", pid);
		wait_all();
		if (syscall(SYS_clone3, &args, sizeof(args)) == 0) {
			execl(TRUE, "true", "again", NULL);
			_exit(9);
		}
		wait_all();
	} else if (!strcmp(life, "no-argv")) { /* the kernel puts an empty argv[0] there */
		char *rest[] = {NULL};

		execve(TRUE, rest, environ);
	} else if (!strcmp(life, "execveat")) { /* a name relative to an open folder */
		char *rest[] = {"true", "below", NULL};

		syscall(SYS_execveat, open("/usr/bin", O_PATH | O_DIRECTORY), "true", rest, environ, 0);
	} else if (!strcmp(life, "unlinked")) { /* a file deleted before it is run */
		char *rest[] = {"gone", "still-runs", NULL};
		int fd = open(argv[2], O_RDONLY);

		unlink(argv[2]);
		fexecve(fd, rest, environ);
	} else if (!strcmp(life, "clone-parent")) { /* a sibling, not a child */
		struct clone_args args = {.flags = CLONE_PARENT, .exit_signal = 0};

		if ((pid = syscall(SYS_clone3, &args, sizeof(args))) == 0)
			execl(TRUE, "true", "sibling", NULL);
		printf("%d\n", pid);
		usleep(50000);
	} else if (!strcmp(life, "threads")) { /* threads end: not an exit of the process */
		for (int i = 0; i < 8; i++)
			pthread_create(&thread, NULL, sleeper, NULL);
		pthread_join(thread, NULL);
		usleep(30000);
	} else if (!strcmp(life, "exit-group")) { /* sixteen threads end at once */
		for (int i = 0; i < 16; i++)
			pthread_create(&thread, NULL, sleeper, NULL);
		_exit(5);
	} else if (!strcmp(life, "leader-first")) { /* the first thread exits before the process ends */
		pthread_create(&thread, NULL, leaver, NULL);
		syscall(SYS_exit, 1);
	} else if (!strcmp(life, "thread-exec")) { /* exec from a thread that is not the leader */
		pthread_create(&thread, NULL, execer, NULL);
		pause();
	} else if (!strcmp(life, "thread-fork")) {
		pthread_create(&thread, NULL, forker, NULL);
		pthread_join(thread, NULL);
	} else if (!strcmp(life, "no-exec")) { /* a failed exec, then an exit */
		execl("/nonexistent/binary", "binary", NULL);
		return 8;
	} else if (!strcmp(life, "fexecve")) {
		char *rest[] = {"true", "by-fd", NULL};

		fexecve(open(TRUE, O_RDONLY), rest, environ);
	} else if (!strcmp(life, "memfd")) { /* a file without a name in any folder */
		int fd = memfd_create("ghost", 0), from = open(TRUE, O_RDONLY);
		char *rest[] = {"ghost", "in-memory", NULL}, buffer[65536];
		ssize_t n;

		while ((n = read(from, buffer, sizeof(buffer))) > 0)
			if (write(fd, buffer, n) != n)
				return 1;
		fexecve(fd, rest, environ);
	} else if (!strcmp(life, "signal")) {
		kill(getpid(), atoi(argv[2]));
		pause();
	} else if (!strcmp(life, "pid-namespace")) {
		if (unshare(CLONE_NEWPID))
			return 1;
		if ((pid = fork()) == 0)
			execl(TRUE, "true", "first-of-its-own", NULL);
		printf("%d\n", pid);
		wait_all();
	} else if (!strcmp(life, "deleted-cwd")) {
		if (chdir(argv[2]) || rmdir(argv[2]))
			return 1;
		execl(TRUE, "true", "nowhere", NULL);
	} else if (!strcmp(life, "chroot")) {
		if (chroot(argv[2]) || chdir("/inside"))
			return 1;
		execl("/true", "true", "jailed", NULL);
		return 1;
	} else if (!strcmp(life, "forks")) { /* many, one after the other, as fast as possible */
		for (int i = 0, count = atoi(argv[2]); i < count; i++) {
			if ((pid = vfork()) == 0)
				_exit(7);
			waitpid(pid, NULL, 0);
		}
	} else if (!strcmp(life, "bomb")) { /* many, all alive until the last one has started */
		int count = atoi(argv[2]), made = 0, held[2];
		char byte;

		if (pipe(held))
			return 1;
		for (; made < count && (pid = fork()) >= 0; made++) {
			if (pid == 0) {
				close(held[1]);
				_exit(read(held[0], &byte, 1) == 0 ? 7 : 1);
			}
		}
		printf("%d\n", made);
		close(held[1]);
		wait_all();
	} else if (!strcmp(life, "setuid")) { /* events carry the uid at exec */
		if (setuid(1))
			return 1;
		_exit(0);
	}
	return 0;
}
