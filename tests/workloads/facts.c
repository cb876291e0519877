/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts: getsid(2), or an operation that needs a capability, in the named way.
 *
 *   facts call WAY         getsid(0)
 *   facts capability WAY   CAP_SETGID, or the capability that this way needs
 *
 * Prints the ids of children. Exit code 77: this kernel or machine does not support that way.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define NO_SUCH_WAY 77
#define IS(name) (!strcmp(way, name))

static int calls; /* 0: capabilities */

static void act(int unused)
{
	(void)unused;
	if (calls)
		getsid(0);
	else
		syscall(SYS_setgid, 0);
}

static void *act_in_thread(void *unused)
{
	(void)unused;
	act(0);
	return NULL;
}

/* A 32-bit call of a 64-bit program. */
static void by_compat(void)
{
#ifdef __x86_64__
	int result;

	asm volatile("int $0x80" : "=a"(result) : "a"(calls ? 147 : 214), "b"(0) : "memory");
	if (result == -ENOSYS)
		exit(NO_SUCH_WAY);
#else
	exit(NO_SUCH_WAY);
#endif
}

/* The same program from anonymous memory. */
static void by_memfd(char **argv)
{
	int own = open("/proc/self/exe", O_RDONLY), copy = memfd_create("facts", MFD_CLOEXEC);
	char *args[] = {argv[0], argv[1], "plain", NULL}, *none[] = {NULL};

	while (sendfile(copy, own, NULL, 1 << 20) > 0)
		;
	fexecve(copy, args, none);
}

/* A tracer replaces a call of the program by another one. */
static void by_tracer(void)
{
	int status, number = SYS_getsid;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		syscall(SYS_getppid);
		_exit(0);
	}
	printf("%d\n", pid);
	waitpid(pid, &status, 0);
	for (;;) {
		struct user_regs_struct regs;
		struct iovec all = {&regs, sizeof(regs)}, one = {&number, sizeof(number)};

		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		if (waitpid(pid, &status, 0) != pid || WIFEXITED(status))
			return;
		ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &all);
#ifdef __x86_64__
		(void)one;
		if (regs.orig_rax == SYS_getppid && (long)regs.rax == -ENOSYS)
			ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.orig_rax), number);
#else
		if (regs.regs[8] == SYS_getppid && regs.regs[7] == 0)
			ptrace(PTRACE_SETREGSET, pid, (void *)0x404, &one); /* NT_ARM_SYSTEM_CALL */
#endif
	}
}

/* A filter refuses the call before the kernel's tracepoint. */
static void by_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, code};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(NO_SUCH_WAY);
	act(0);
}

/* One request: a raw socket, which needs CAP_NET_RAW. */
static void by_ring(void)
{
	struct io_uring_params p = {0};
	int ring = syscall(SYS_io_uring_setup, 4, &p);

	if (ring < 0)
		exit(NO_SUCH_WAY);
	char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED,
			ring, IORING_OFF_SQ_RING);
	char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE,
					 MAP_SHARED, ring, IORING_OFF_SQES);

	sqes[0] = (struct io_uring_sqe){.opcode = 45 /* IORING_OP_SOCKET, Linux 5.19 */,
					.fd = AF_INET, .off = SOCK_RAW, .len = 1};
	*(uint32_t *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	if (((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res < 0)
		exit(NO_SUCH_WAY);
}

static int in_both(char **argv, const char *way)
{
	pthread_t thread;
	pid_t pid;

	if (IS("plain"))
		act(0);
	else if (IS("raw"))
		syscall(calls ? SYS_getsid : SYS_setgid, 0);
	else if (IS("thread"))
		pthread_create(&thread, NULL, act_in_thread, NULL) ?: pthread_join(thread, NULL);
	else if (IS("handler"))
		signal(SIGUSR1, act), raise(SIGUSR1);
	else if (IS("child")) {
		if (!(pid = fork()))
			act(0), _exit(0);
		printf("%d\n", pid);
		waitpid(pid, NULL, 0);
	} else if (IS("vfork")) {
		if (!(pid = vfork()))
			act(0), _exit(0);
		printf("%d\n", pid);
		waitpid(pid, NULL, 0);
	} else if (IS("mounts")) {
		if (unshare(CLONE_NEWNS))
			exit(NO_SUCH_WAY);
		act(0);
	} else if (IS("compat"))
		by_compat();
	else if (IS("memfd"))
		by_memfd(argv);
	else
		return 0;
	return 1;
}

int main(int argc, char **argv)
{
	const char *way = argv[2];
	gid_t none = 65534;

	if (argc != 3)
		return 2;
	calls = !strcmp(argv[1], "call");
	if (in_both(argv, way))
		return 0;
	if (IS("tracer"))
		by_tracer();
	else if (IS("filter"))
		by_filter();
	else if (IS("x32"))
		syscall(SYS_getsid | 0x40000000, 0);
	else if (IS("fsgid"))
		setfsgid(1);
	else if (IS("groups"))
		setgroups(1, &none);
	else if (IS("ring"))
		by_ring();
	else if (IS("namespace"))
		(void)(unshare(CLONE_NEWUSER) || unshare(CLONE_NEWUTS));
	else if (IS("file")) {
		char name[] = "/tmp/tetra-facts-XXXXXX";
		int fd = mkstemp(name);

		(void)(fchown(fd, 65534, 65534) || fchmod(fd, 0) || open(name, O_RDWR));
		unlink(name);
	} else if (IS("refused"))
		(void)(syscall(SYS_setuid, 65534) || setgroups(1, &none));
	else
		return 2;
	return 0;
}
