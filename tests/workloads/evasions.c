/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evasions: one operation, done in the named way, so that a test can check whether it was reported.
 *
 *   evasions write WAY FOLDER FILE    open FOLDER/FILE for writing
 *   evasions remove WAY FOLDER FILE   remove FOLDER/FILE
 *   evasions make WAY FOLDER FILE     make FOLDER/FILE, which is not there
 *   evasions connect WAY PORT         connect to PORT of this host by TCP
 *   evasions accept WAY PORT          accept one connection that it makes
 *   evasions send WAY PORT            send a datagram to PORT of this host
 *
 * Exit code 77: this kernel or machine does not support that way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define NO_SUCH_WAY 77
#define IS(way) (!strcmp(argv[2], way))

static void check(int failed, const char *what)
{
	if (!failed)
		return;
	if (errno == ENOSYS || errno == EOPNOTSUPP)
		exit(NO_SUCH_WAY);
	perror(what);
	exit(1);
}

/* Submit one request to a new ring; return its result. */
static int by_ring(struct io_uring_sqe *wanted)
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

	check(sq == MAP_FAILED || cq == MAP_FAILED || sqes == MAP_FAILED, "mmap");
	sqes[0] = *wanted;
	*(uint32_t *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	check(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0, "enter");
	int result = ((struct io_uring_cqe *)(cq + p.cq_off.cqes))->res;

	if (result == -EINVAL)
		exit(NO_SUCH_WAY);
	close(ring);
	return result;
}

/* A 32-bit call of a 64-bit program: the registers of int 0x80, pointers below 4 GB. */
static int by_compat(int number, long a, long b, long c)
{
#ifdef __x86_64__
	int result;

	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
#else
	exit(NO_SUCH_WAY);
#endif
}

static void *low_memory(void)
{
#ifdef __x86_64__
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	check(memory == MAP_FAILED, "mmap");
	return memory;
#else
	exit(NO_SUCH_WAY);
#endif
}

static char path[4096], other[4096];

static void *open_in_thread(void *unused)
{
	(void)unused;
	return (void *)(intptr_t)open(path, O_WRONLY);
}

static int opened(char **argv, const char *folder, const char *file)
{
	if (IS("plain"))
		return open(path, O_WRONLY);
	if (IS("relative"))
		return chdir(folder) ?: open(file, O_RDWR);
	if (IS("dots")) {
		snprintf(other, sizeof(other), "%s/../%s/%s", folder, strrchr(folder, '/') + 1, file);
		return open(other, O_WRONLY);
	}
	if (IS("link")) {
		snprintf(other, sizeof(other), "%s.link", folder);
		check(symlink(path, other), "symlink");
		int fd = open(other, O_WRONLY);
		unlink(other);
		return fd;
	}
	if (IS("folder-link")) {
		snprintf(other, sizeof(other), "%s.link", folder);
		check(symlink(folder, other), "symlink");
		snprintf(other, sizeof(other), "%s.link/%s", folder, file);
		int fd = open(other, O_WRONLY);
		snprintf(other, sizeof(other), "%s.link", folder);
		unlink(other);
		return fd;
	}
	if (IS("descriptor"))
		return openat(open(folder, O_PATH), file, O_WRONLY | O_APPEND);
	if (IS("openat2")) {
		struct open_how how = {.flags = O_WRONLY};
		return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	}
	if (IS("creat"))
		return creat(path, 0600);
	if (IS("create")) {
		unlink(path);
		return open(path, O_RDONLY | O_CREAT | O_EXCL, 0600);
	}
	if (IS("reopen")) { /* a descriptor without access, opened again through /proc */
		snprintf(other, sizeof(other), "/proc/self/fd/%d", open(path, O_PATH));
		return open(other, O_WRONLY);
	}
	if (IS("handle")) {
		struct {
			struct file_handle handle;
			char bytes[128];
		} h = {.handle.handle_bytes = 128};
		int mount;

		check(name_to_handle_at(AT_FDCWD, path, &h.handle, &mount, 0), "handle");
		return open_by_handle_at(open(folder, O_RDONLY), &h.handle, O_WRONLY);
	}
	if (IS("mapping")) {
		int fd = open(path, O_RDWR);
		char *memory = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (memory != MAP_FAILED)
			*memory = 'm';
		return fd;
	}
	if (IS("thread")) {
		pthread_t thread;
		void *fd;

		check(pthread_create(&thread, NULL, open_in_thread, NULL), "thread");
		pthread_join(thread, &fd);
		return (intptr_t)fd;
	}
	if (IS("ring")) {
		struct io_uring_sqe sqe = {
			.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD,
			.addr = (uintptr_t)path, .open_flags = O_WRONLY,
		};
		return by_ring(&sqe);
	}
	if (IS("compat"))
		return by_compat(5, (long)strcpy(low_memory(), path), O_WRONLY, 0);
	if (IS("compat-at"))
		return by_compat(295, AT_FDCWD, (long)strcpy(low_memory(), path), O_WRONLY);
	if (IS("bind")) {
		snprintf(other, sizeof(other), "%s.bound", folder);
		mkdir(other, 0700);
		check(unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		      mount(folder, other, NULL, MS_BIND, NULL), "bind");
		snprintf(other, sizeof(other), "%s.bound/%s", folder, file);
		return open(other, O_WRONLY);
	}
	if (IS("root")) {
		snprintf(other, sizeof(other), "/%s", file);
		check(chroot(folder) || chdir("/"), "chroot");
		return open(other, O_WRONLY);
	}
	fprintf(stderr, "no way %s\n", argv[2]);
	exit(2);
}

static int removed(char **argv, const char *folder, const char *file)
{
	if (IS("plain"))
		return unlink(path);
	if (IS("relative"))
		return chdir(folder) ?: unlink(file);
	if (IS("descriptor"))
		return unlinkat(open(folder, O_PATH), file, 0);
	if (IS("renamed")) {
		snprintf(other, sizeof(other), "%s.gone", folder);
		return rename(path, other) ?: unlink(other);
	}
	if (IS("renamed-at")) {
		snprintf(other, sizeof(other), "%s.gone", folder);
		int at = open(folder, O_PATH);
		return renameat(at, file, AT_FDCWD, other) ?: unlink(other);
	}
	if (IS("renamed-to")) { /* another file replaces it */
		snprintf(other, sizeof(other), "%s.new", folder);
		close(creat(other, 0600));
		return chdir(folder) ?: rename(other, file);
	}
	if (IS("exchanged")) {
		snprintf(other, sizeof(other), "%s.new", folder);
		close(creat(other, 0600));
		int result = syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, other, 2);
		unlink(other);
		return result;
	}
	if (IS("ring")) {
		struct io_uring_sqe sqe = {
			.opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (uintptr_t)path,
		};
		return by_ring(&sqe);
	}
	if (IS("dots")) {
		snprintf(other, sizeof(other), "%s.x", folder);
		mkdir(other, 0700);
		snprintf(other, sizeof(other), "%s.x/../%s/%s", folder, strrchr(folder, '/') + 1, file);
		return unlink(other);
	}
	if (IS("folder-link")) {
		snprintf(other, sizeof(other), "%s.link", folder);
		check(symlink(folder, other), "symlink");
		snprintf(other, sizeof(other), "%s.link/%s", folder, file);
		int result = unlink(other);
		snprintf(other, sizeof(other), "%s.link", folder);
		unlink(other);
		return result;
	}
	if (IS("compat"))
		return by_compat(10, (long)strcpy(low_memory(), path), 0, 0);
	fprintf(stderr, "no way %s\n", argv[2]);
	exit(2);
}

static int made(char **argv, const char *folder)
{
	struct io_uring_sqe sqe = {.fd = AT_FDCWD, .addr = (uintptr_t)other, .addr2 = (uintptr_t)path};

	snprintf(other, sizeof(other), "%s.old", folder); /* where nothing is watched */
	close(creat(other, 0600));
	sqe.len = AT_FDCWD; /* the folder of the new name */
	if (IS("ring-rename")) {
		sqe.opcode = IORING_OP_RENAMEAT;
	} else if (IS("ring-link")) {
		sqe.opcode = IORING_OP_LINKAT;
	} else if (IS("ring-symlink")) {
		sqe.opcode = IORING_OP_SYMLINKAT;
		sqe.len = 0;
	} else if (IS("ring-mkdir")) {
		sqe.opcode = IORING_OP_MKDIRAT;
		sqe.addr = (uintptr_t)path;
		sqe.addr2 = 0;
		sqe.len = 0700;
	} else {
		fprintf(stderr, "no way %s\n", argv[2]);
		exit(2);
	}
	int result = by_ring(&sqe);

	unlink(other);
	return result;
}

static struct sockaddr_in peer = {.sin_family = AF_INET};

static int connected(char **argv)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr *to = (struct sockaddr *)&peer;

	if (IS("plain"))
		return connect(fd, to, sizeof(peer));
	if (IS("later")) {
		fcntl(fd, F_SETFL, O_NONBLOCK);
		int result = connect(fd, to, sizeof(peer));
		usleep(200000);
		return result && errno == EINPROGRESS ? 0 : result;
	}
	if (IS("copy"))
		return connect(fcntl(fd, F_DUPFD, 200), to, sizeof(peer));
	if (IS("fast-open"))
		return sendto(fd, "x", 1, MSG_FASTOPEN, to, sizeof(peer)) == 1 ? 0 : -1;
	if (IS("mapped")) { /* IPv4 through a socket of IPv6 */
		struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = peer.sin_port};

		inet_pton(AF_INET6, "::ffff:127.0.0.1", &six.sin6_addr);
		fd = socket(AF_INET6, SOCK_STREAM, 0);
		if (fd < 0)
			exit(NO_SUCH_WAY);
		return connect(fd, (struct sockaddr *)&six, sizeof(six));
	}
	if (IS("bound")) {
		struct sockaddr_in own = {.sin_family = AF_INET};

		own.sin_addr.s_addr = inet_addr("127.0.0.9");
		return bind(fd, (struct sockaddr *)&own, sizeof(own)) ?: connect(fd, to, sizeof(peer));
	}
	if (IS("crossing")) { /* to itself: both ends send SYN, and none ever listens */
		struct sockaddr_in own = {.sin_family = AF_INET};
		socklen_t size = sizeof(own);

		own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		check(bind(fd, (struct sockaddr *)&own, size), "bind");
		check(getsockname(fd, (struct sockaddr *)&own, &size), "getsockname");
		printf("%d\n", ntohs(own.sin_port));
		return connect(fd, (struct sockaddr *)&own, sizeof(own));
	}
	if (IS("child")) {
		int status;
		pid_t pid = vfork();

		if (!pid)
			_exit(connect(fd, to, sizeof(peer)) != 0);
		waitpid(pid, &status, 0);
		return status;
	}
	if (IS("raw-call"))
		return syscall(SYS_connect, fd, to, sizeof(peer));
	if (IS("ring")) {
		struct io_uring_sqe sqe = {
			.opcode = IORING_OP_CONNECT, .fd = fd,
			.addr = (uintptr_t)&peer, .off = sizeof(peer),
		};
		return by_ring(&sqe);
	}
	if (IS("compat"))
		return by_compat(362, fd, (long)memcpy(low_memory(), &peer, sizeof(peer)), sizeof(peer));
	fprintf(stderr, "no way %s\n", argv[2]);
	exit(2);
}

static int accepted(char **argv)
{
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	check(bind(server, (struct sockaddr *)&peer, sizeof(peer)) || listen(server, 8), "listen");
	check(connect(client, (struct sockaddr *)&peer, sizeof(peer)), "connect");
	if (IS("plain"))
		return accept(server, NULL, NULL);
	if (IS("accept4"))
		return accept4(server, NULL, NULL, SOCK_CLOEXEC);
	if (IS("copy"))
		return accept4(dup(server), NULL, NULL, 0);
	if (IS("ring")) {
		struct io_uring_sqe sqe = {.opcode = IORING_OP_ACCEPT, .fd = server};
		return by_ring(&sqe);
	}
	fprintf(stderr, "no way %s\n", argv[2]);
	exit(2);
}

static int sent(char **argv)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct iovec text = {"x", 1};
	struct msghdr message = {
		.msg_name = &peer, .msg_namelen = sizeof(peer), .msg_iov = &text, .msg_iovlen = 1,
	};

	if (IS("sendto"))
		return sendto(fd, "x", 1, 0, (struct sockaddr *)&peer, sizeof(peer));
	if (IS("sendmsg"))
		return sendmsg(fd, &message, 0);
	if (IS("sendmmsg")) {
		struct mmsghdr messages = {.msg_hdr = message};
		return sendmmsg(fd, &messages, 1, 0);
	}
	if (IS("write"))
		return connect(fd, (struct sockaddr *)&peer, sizeof(peer)) ?: write(fd, "x", 1);
	if (IS("writev"))
		return connect(fd, (struct sockaddr *)&peer, sizeof(peer)) ?: writev(fd, &text, 1);
	if (IS("ring")) {
		struct io_uring_sqe sqe = {
			.opcode = IORING_OP_SENDMSG, .fd = fd, .addr = (uintptr_t)&message, .len = 1,
		};
		return by_ring(&sqe);
	}
	fprintf(stderr, "no way %s\n", argv[2]);
	exit(2);
}

int main(int argc, char **argv)
{
	int result = -1;

	if (argc == 5) {
		snprintf(path, sizeof(path), "%s/%s", argv[3], argv[4]);
		result = !strcmp(argv[1], "write")  ? opened(argv, argv[3], argv[4])
			 : !strcmp(argv[1], "make") ? made(argv, argv[3])
						    : removed(argv, argv[3], argv[4]);
	} else if (argc == 4) {
		peer.sin_port = htons(atoi(argv[3]));
		peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		result = !strcmp(argv[1], "connect")  ? connected(argv)
			 : !strcmp(argv[1], "accept") ? accepted(argv)
						      : sent(argv);
	}
	if (result < -1)
		errno = -result;
	check(result < 0, argv[1]);
	return 0;
}
