/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hooks FILE: the calls that the policies of tests/kernel/test_policy_stack.py report, each once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBED __attribute__((noinline, noclone, used))

PROBED int take_probed(const char *text, int number)
{
	asm volatile("" ::"r"(text), "r"(number) : "memory");
	return number + 1;
}

int main(int argc, char **argv)
{
	/* On the stack: what is there can be read without a page fault. */
	char missing[] = "/nonexistent/program", next[] = "/usr/bin/true";
	struct sockaddr_in nobody = { .sin_family = AF_INET, .sin_port = htons(9) };

	if (argc < 2)
		return 2;
	signal(SIGUSR1, SIG_IGN);
	inet_aton("127.0.0.1", &nobody.sin_addr);
	int file = open(argv[1], O_RDWR | O_CLOEXEC);
	int copy = dup(file);

	if (write(copy, "content\n", 8) != 8)
		return 3;
	ftruncate(file, 4);
	dup2(file, 40);
	close(-1);
	syscall(SYS_getpgid, -7);
	syscall(SYS_getsid, 0);
	take_probed(argv[1], 41);
	int client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);

	connect(client, (struct sockaddr *)&nobody, sizeof(nobody));
	if (!fork())
		execl(next, next, "child", NULL);
	wait(NULL);
	execl(missing, missing, NULL);
	execl(next, next, NULL);
	return 4;
}
