/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a call that matched: a fixed head, then one item for each argument, each piece of
 * data, the return value and the stacks. records/tracing.py decodes it.
 *
 * Items are written when a filter first needs them, so their order is not the document's: each
 * carries its position.
 */
#pragma once

#include "maps.h"
#include "ring.h"
#include "values.h"

#define RECORD_TRACING 16

struct tracing_record {
	u32 kind; /* RECORD_TRACING */
	u32 policy; /* number and revision of the loaded policy, */
	u32 revision;
	u32 hook; /* and the index of the hook in it */
	u64 ktime_ns;
	u64 image_ktime_ns; /* of the process image, with pid its name; 0: not known */
	u64 start_boottime; /* of the task, where the image is not known */
	u32 pid, tid;
	u32 selector; /* the first that matched */
	u32 action; /* the last that was executed, ACTION_POST for none */
	u32 return_action;
	u32 flags; /* enum tracing_flags */
	u32 items_len; /* bytes behind this head */
	u32 items; /* items in them */
};
_Static_assert(sizeof(struct tracing_record) == 72, "tracing_record has a hole");

enum tracing_flags {
	TRACING_ITEMS_DROPPED = 1, /* there was no room for all arguments */
	TRACING_SOCK_OWNER = 2,	   /* pid, tid and image are those of the socket's tracked owner */
	TRACING_RETURNED = 4,	   /* the function's return completed the record */
	TRACING_NOT_POSTED = 8,	   /* kept only for the actions at return */
	TRACING_FELL_BACK = 16,	   /* with this call the policy reached its limit of signals */
};

struct item {
	u16 type; /* enum item_type: the form of the payload */
	u8 position; /* in args; POSITION_* of the others */
	u8 flags;    /* enum item_flags */
	u32 len;     /* bytes of payload that follow, then padding to 8 */
};

enum item_position {
	POSITION_DATA = 16, /* and following: `data` in order */
	POSITION_RETURN = 32,
	POSITION_KERNEL_STACK = 48,
	POSITION_USER_STACK,
	POSITION_IMA_HASH,
};

enum item_flags {
	ITEM_ERROR = 1,	    /* the payload is struct item_error */
	ITEM_TRUNCATED = 2, /* the payload is only a part of the value */
	ITEM_ABSTRACT = 4,  /* an abstract socket address; its NUL is written as @ */
};

struct item_error {
	u32 reason; /* enum item_error_reason */
	s32 detail; /* depth of a dereference, or as the reason defines */
};

enum item_error_reason {
	ERROR_VALUE = 1,	/* the address of the value cannot be read */
	ERROR_RESOLVE = 2,	/* a pointer on the way to it, at this depth, cannot be read */
	ERROR_BUFFER = 3,	/* a buffer; detail: 1 no memory, 2 page fault, 3 too large */
};

/*
 * Types of payloads. Numbers below 64 are those of argument types; see `TypeInfo.number` of
 * libs/tracingpolicy.
 */
enum item_type {
	ITEM_CHAR_BUF = 2,   /* u64 original size, bytes */
	ITEM_CHAR_IOVEC = 3,
	ITEM_SKB = 5,	     /* struct skb_view */
	ITEM_STRING = 6,     /* bytes */
	ITEM_SOCK = 7,	     /* struct sock_view */
	ITEM_CRED = 8,	     /* struct cred_item */
	ITEM_FILENAME = 14,
	ITEM_PATH = 15,	     /* struct file_item, path */
	ITEM_FILE = 16,
	ITEM_FD = 17,
	ITEM_CONST_BUF = 18, /* u64[] */
	ITEM_BPF_ATTR = 19,  /* struct bpf_program_item */
	ITEM_PERF_EVENT = 20,
	ITEM_BPF_MAP = 21,
	ITEM_USER_NAMESPACE = 22,
	ITEM_KIOCB = 24,
	ITEM_IOV_ITER = 25,
	ITEM_LOAD_INFO = 26,
	ITEM_MODULE = 27,
	ITEM_SYSCALL64 = 28,
	ITEM_LINUX_BINPRM = 37,
	ITEM_DATA_LOC = 38,
	ITEM_NET_DEVICE = 39,
	ITEM_SOCKADDR = 40,
	ITEM_SOCKET = 41,
	ITEM_DENTRY = 42,
	ITEM_BPF_PROG = 43,
	ITEM_SOCKADDR_UN = 44,
	ITEM_FD_SOCK = 46,
	ITEM_SKB_PAYLOAD = 48,
	/* Not arguments. */
	ITEM_STACK = 64,     /* u64[] addresses, innermost first */
	ITEM_IMA_HASH = 65,  /* u64 algorithm, digest */
};

/* Actions as the API numbers them less one: enum KprobeAction. */
enum action {
	ACTION_POST = 0, /* the others stand in generated text, from libs/tracingpolicy actions.py */
};

#define TEXT_MAX 4096  /* longest string, path or buffer */
#define ITEMS_MAX 16384 /* where the last item may begin */
#define ITEM_MAX (sizeof(struct item) + 64 + TEXT_MAX + 256)

/*
 * Where a record grows. fentry, LSM and uprobe programs can be preempted and another program can
 * run on the CPU, so each takes a slot of its own. A per-CPU value may not exceed 32 KiB.
 */
#define SCRATCH_SLOTS 3
#define TRIE_KEY_MAX 256 /* LPM_DATA_SIZE_MAX of kernel/bpf/lpm_trie.c */

/* The key of a longest-prefix trie. */
struct trie_key {
	u32 bits;
	char text[TRIE_KEY_MAX];
};

struct scratch {
	u64 users;
	u32 used; /* bytes of `items` in use */
	u32 text_start;	/* path of the last walk: text[text_start..TEXT_MAX) */
	u64 return_copy; /* address of a buffer that is read when the function returns, */
	u32 return_copy_entries; /* and how many struct iovec it has, if it is an array of them */
	u32 steps;		 /* of the last walk */
	struct tracing_record record;
	char items[ITEMS_MAX + ITEM_MAX];
	/* Paths grow from the end to the front; a name of 255 bytes may follow any position. */
	char text[TEXT_MAX + 256];
	struct trie_key trie_key;
};
_Static_assert(sizeof(struct scratch) == 25528, "SCRATCH_SIZE of policies/maps.py");

static __always_inline struct scratch *take_scratch(void)
{
#pragma unroll
	for (u32 i = 0; i < SCRATCH_SLOTS; i++) {
		u32 slot = i;
		struct scratch *s = bpf_map_lookup_elem(MAP(MAP_SCRATCH), &slot);

		if (!s)
			return NULL;
		__sync_fetch_and_add(&s->users, 1);
		if (*(volatile u64 *)&s->users == 1) {
			s->used = 0;
			s->record.items = 0;
			s->record.flags = 0;
			return s;
		}
		__sync_fetch_and_add(&s->users, -1);
	}
	count_loss(LOSS_NO_SCRATCH);
	return NULL;
}

static __always_inline void release_scratch(struct scratch *s)
{
	__sync_fetch_and_add(&s->users, -1);
}

static __always_inline u32 padded(u32 len)
{
	return (len + 7) & ~7u;
}

/* Room for the next item and its longest payload. NULL if the record is full. */
static __always_inline struct item *item_at_end(struct scratch *s)
{
	u32 at = s->used;

	if (at >= ITEMS_MAX) {
		s->record.flags |= TRACING_ITEMS_DROPPED;
		return NULL;
	}
	/* Verifiers of older kernels derive no bounds from 32-bit compares, but do from a mask. */
	FORGET(at);
	at &= ITEMS_MAX - 8;
	return __builtin_assume_aligned(s->items + at, 8);
}

/* Make what was written at item_at_end() part of the record. */
static __always_inline void item_finish(struct scratch *s, struct item *item, u32 type,
					u32 position, u32 flags, u32 len)
{
	item->type = type;
	item->position = position;
	item->flags = flags;
	item->len = len;
	s->used += sizeof(*item) + padded(len);
	s->record.items++;
}

/*
 * Items are padded to eight bytes, but clang cannot infer that for a position in an array of char.
 * Without this it copies byte by byte, with shifts that the verifier refuses on pointers.
 */
static __always_inline void *item_payload(struct item *item)
{
	return __builtin_assume_aligned(item + 1, 8);
}

static __always_inline void write_u64(struct scratch *s, u32 type, u32 position, u64 value)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	*(u64 *)item_payload(item) = value;
	item_finish(s, item, type, position, 0, sizeof(value));
}

static __always_inline void write_error(struct scratch *s, u32 type, u32 position, u32 reason,
					s32 detail)
{
	struct item *item = item_at_end(s);

	if (!item)
		return;
	struct item_error *error = item_payload(item);

	error->reason = reason;
	error->detail = detail;
	item_finish(s, item, type, position, ITEM_ERROR, sizeof(*error));
}

/* Who called: the current process as the process map knows it. */
static __always_inline struct process_value *find_process(u32 tgid)
{
	return bpf_map_lookup_elem(MAP(MAP_PROCESSES), &tgid);
}

static __always_inline void begin_record(struct tracing_record *record, u32 hook, u32 selector)
{
	u64 id = bpf_get_current_pid_tgid();
	struct process_value *process = find_process(id >> 32);

	record->kind = RECORD_TRACING;
	record->policy = NUMBER(NUMBER_POLICY);
	record->revision = NUMBER(NUMBER_REVISION);
	record->hook = hook;
	record->ktime_ns = bpf_ktime_get_boot_ns();
	record->image_ktime_ns = 0;
	record->start_boottime = 0;
	if (process)
		record->image_ktime_ns = process->ktime_ns;
	else
		record->start_boottime =
			KERNEL(u64, current_task() + OFFSET_task_start_boottime);
	record->pid = id >> 32;
	record->tid = id;
	record->selector = selector;
	record->action = ACTION_POST;
	record->return_action = ACTION_POST;
}

/*
 * An item of a record that holds only numbers: such a record is written directly into the ring,
 * since its size is known in advance.
 */
struct number_item {
	struct item item;
	u64 value;
};

static __always_inline void write_number(struct number_item *to, u32 type, u32 position, u64 value)
{
	to->item.type = type;
	to->item.position = position;
	to->item.flags = 0;
	to->item.len = sizeof(value);
	to->value = value;
}

/* Put the record into the ring; returns whether there was room. */
static __always_inline bool post(struct scratch *s)
{
	u32 len = s->used;

	s->record.items_len = len;
	/* For the verifier only: item_at_end() keeps it below. */
	FORGET(len);
	len &= 2 * ITEMS_MAX - 1;
	if (len > sizeof(s->items))
		return false;
	len += sizeof(s->record);
	if (ring_output(&s->record, len)) {
		count_loss(LOSS_RING_FULL);
		return false;
	}
	return true;
}
