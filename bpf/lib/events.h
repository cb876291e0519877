/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in the ring buffer: fixed widths, explicit padding.
 * collector/records/layouts.py mirrors them; a kernel test compares both field by field.
 */
#pragma once

enum record_kind {
	RECORD_EXEC = 1,
	RECORD_FORK = 2,
	RECORD_EXIT = 3,
	RECORD_DATA = 4, /* a piece of arguments or environment; its exec record follows */
	RECORD_THROTTLE = 5,
	RECORD_RETIRE = 6, /* struct exit_record: an image ended, and its exit was withheld */
};

/* Bits of `flags`, numbered as Tetragon prints them. */
enum process_flags {
	FLAG_EXECVE = 0x0000001,
	FLAG_ERROR_ENVS = 0x0000008,
	FLAG_TRUNC_ARGS = 0x0000010,
	FLAG_ERROR_FILENAME = 0x0000100,
	FLAG_ERROR_ARGS = 0x0000200,
	FLAG_ROOT_CWD = 0x0001000,
	FLAG_ERROR_CWD = 0x0002000,
	FLAG_CLONE = 0x0004000,
	FLAG_ERROR_CGROUP_NAME = 0x0010000,
	FLAG_ERROR_CGROUP_SUBSYS_CGRP = 0x0040000,
	FLAG_ERROR_CGROUPS = 0x0100000,
	FLAG_ERROR_PATH_RESOLUTION_CWD = 0x0400000,
	FLAG_IN_INIT_TREE = 0x2000000,
	/* Only in the process map: the image was not reported; the map `withheld` may have it. */
	FLAG_WITHHELD = 0x80000000,
};

/* Bits of `secureexec`: how an exec changed privileges. */
enum secureexec_flags {
	SECURE_SETUID = 1,	/* effective uid is no longer the caller's uid */
	SECURE_SETGID = 2,
	SECURE_FILE_CAPS = 4,	/* capabilities gained from the file */
	SECURE_SETUID_ROOT = 8, /* not root before, effective root now */
	SECURE_SETGID_ROOT = 16,
};

/* Index into `ns`. */
enum namespace_kind {
	NS_UTS,
	NS_IPC,
	NS_MNT,
	NS_PID,
	NS_PID_FOR_CHILDREN,
	NS_NET,
	NS_TIME,
	NS_TIME_FOR_CHILDREN,
	NS_CGROUP,
	NS_USER,
	NS_KINDS,
};

/* A process image: (pid, ktime_ns) names it. pid is the kernel's tgid. */

struct exec_record {
	u32 kind;
	u32 flags;
	u64 ktime_ns; /* boot clock, suspend included */
	u32 pid;
	u32 nspid; /* pid in the process's own pid namespace */
	u64 parent_ktime_ns; /* 0: the kernel's process map does not know the parent */
	u32 parent_pid;
	u32 auid; /* login uid, 0xffffffff where unset */
	u64 replaced_ktime_ns; /* what the map held for this pid: fork or previous image; 0: nothing */
	u64 cgroup_id;
	u64 inode; /* of the file executed; only looked at when nlink is 0 */
	u64 cap_permitted;
	u64 cap_effective;
	u64 cap_inheritable;
	u32 uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
	u32 securebits;
	u32 secureexec;
	u32 nlink;
	u32 filename_len; /* bytes behind the record, in this order, without terminating NUL */
	u32 cgroup_len;
	u32 args_len; /* arg_start..arg_end, argv[0] too; if above INLINE_MAX ahead, in RECORD_DATA */
	u32 envs_len; /* env_start..env_end, likewise; 0 unless asked for */
	u32 cwd_len;
	u32 ns[NS_KINDS];
	u64 start_boottime; /* task_struct.start_boottime: field 22 of /proc/PID/stat, in ns */
	u64 arg_start;	    /* mm_struct.arg_start: field 48; no two images of a pid share it */
	u32 sessionid; /* login session, 0xffffffff where unset: /proc/PID/sessionid */
	u32 pad;
};
_Static_assert(sizeof(struct exec_record) == 216, "exec_record has a hole");

struct fork_record {
	u32 kind;
	u32 flags;
	u64 ktime_ns;
	u32 pid;
	u32 parent_pid;
	u64 parent_ktime_ns;
	u64 start_boottime;
	u32 nspid; /* pid in the process's own pid namespace */
	u32 pad;
};
_Static_assert(sizeof(struct fork_record) == 48, "fork_record has a hole");

struct exit_record {
	u32 kind;
	u32 exit_code; /* task_struct.exit_code: signal in bits 0-6, core dumped in 7, status from 8 */
	u64 ktime_ns;
	u64 image_ktime_ns; /* start of the image that ends: with pid its name */
	u32 pid;
	u32 tid;
};
_Static_assert(sizeof(struct exit_record) == 32, "exit_record has a hole");

enum data_field {
	DATA_ARGS = 1,
	DATA_ENVS = 2,
};

struct data_record {
	u32 kind;
	u32 field;
	u64 ktime_ns; /* of the exec record that follows */
	u32 pid;
	u32 offset;
	u32 len;
	u32 pad;
};
_Static_assert(sizeof(struct data_record) == 32, "data_record has a hole");

enum throttle_type { /* as the API numbers them: enum ThrottleType */
	THROTTLE_START = 1,
	THROTTLE_STOP = 2, /* written by the collector, see collector/throttle.py */
};

#define THROTTLE_NAME_MAX 128 /* leaf name of a cgroup with NUL */

struct throttle_record {
	u32 kind;
	u32 type;
	u64 ktime_ns;
	u64 cgroup_id;
	u32 policy; /* number of the loaded policy whose events are withheld; 0: process life */
	u32 name_len;
	u64 exec, exit, tracing; /* with THROTTLE_STOP: events that were withheld since the last one */
	/* name_len bytes of the cgroup's name, without NUL */
};
_Static_assert(sizeof(struct throttle_record) == 56, "throttle_record has a hole");

/* The form of it that the kernel side writes: its size is known before. */
struct throttle_start_record {
	struct throttle_record record;
	char name[THROTTLE_NAME_MAX];
};
