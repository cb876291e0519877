/* SPDX-License-Identifier: Apache-2.0 */
/* The socket behind a descriptor that a system call takes or returns. */
#pragma once

#include "files.h"
#include "sockets.h"

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* The struct sock of a descriptor of the current task; 0 if it is no socket. */
static __always_inline u64 sock_of_fd(u32 fd)
{
	u64 file = file_of_fd(fd);
	u64 inode = file ? KERNEL(u64, file + OFFSET_file_inode) : 0;

	/* sock_alloc_file() of net/socket.c: such a file's private_data is its struct socket. */
	if (!inode || (KERNEL(u16, inode + OFFSET_inode_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	return sock_of_socket(KERNEL(u64, file + OFFSET_file_private_data));
}
