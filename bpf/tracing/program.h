/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The base of every generated program, in addition to the types, helpers and maps of
 * linux/helpers.h.
 *
 * Generated programs include no kernel header: offsets of kernel structs stand in their text as
 * OFFSET_struct_member, taken from the kernel's BTF by policies/offsets.py.
 */
#pragma once

#include "loop.h"

/*
 * BCC redefines these, at the text's beginning, as helpers of kernels before 5.5, where it finds no
 * bpf_probe_read_kernel in /proc/kallsyms: addresses there are hidden from the compiler's child
 * (DoMiscWorkAround in iovisor/bcc: src/cc/frontends/clang/b_frontend_action.cc).
 */
#undef bpf_probe_read_kernel
#undef bpf_probe_read_kernel_str
#undef bpf_probe_read_user
#undef bpf_probe_read_user_str

/*
 * A constant that is known only when the policy is loaded, so that the text and its object do not
 * depend on which other policies are loaded. It is a 16-byte load with the source register 15,
 * which no valid instruction has; policies/numbers.py replaces it by a plain load.
 */
#define NUMBER(which) bpf_pseudo_fd(15, which)

/* What NUMBER can ask for; policies/numbers.py has the same list. */
enum number {
	NUMBER_SLOT,	 /* index of the mode word and of the losses; each loaded revision has its own */
	NUMBER_POLICY,	 /* a record holds this number and the revision */
	NUMBER_REVISION,
	NUMBER_HOOK,	 /* index of the hook that the program is attached to */
	NUMBER_LEVEL,	 /* place among the programs of one system call, see dispatch.h */
	NUMBER_FUNCTION, /* id in the kernel's BTF of the function that Override refuses */
	NUMBER_SIGNALS_MAX, /* that the policy may send in a minute; 0: no limit */
	NUMBER_LIST = 16, /* and on: the bit of the n-th list of binaries of this text */
	NUMBER_GROUP = 80, /* and on: the bit of the n-th filter on containers */
};

/*
 * A load from memory of the kernel to which the verifier allows plain ones. It is written in
 * assembler, because the compiler may merge loads from different pointers, which the verifier
 * refuses.
 */
#define TEXT_OF(x) #x
#define NUMBER_TEXT(x) TEXT_OF(x)
#define LOAD(size, memory, offset)                                                           \
	({                                                                                   \
		u64 _loaded;                                                                 \
		asm volatile("%0 = *(" #size " *)(%1 + " NUMBER_TEXT(offset) ")"             \
			     : "=r"(_loaded) : "r"(memory));                                 \
		_loaded;                                                                     \
	})

#ifdef CAST_FUNCTION
/*
 * Kernel memory for plain loads, which return 0 where an address cannot be read: bpf_rdonly_cast(),
 * which the verifier replaces by a move. CAST_TYPE begins with words, see policies/direct_reads.py.
 * The compiler cannot call functions of the kernel: so the text calls a helper with an unused
 * number, and policies/numbers.py replaces it by the call of the kernel function.
 */
#define KERNEL_FUNCTION 0x40000000 /* and the function's number in BTF */
static void *(*cast_address)(u64 address, u32 type) = (void *)(KERNEL_FUNCTION + CAST_FUNCTION);

static __always_inline void *kernel_memory(u64 address)
{
	return cast_address(address, CAST_TYPE);
}

static __always_inline u64 load_kernel(u64 address, u32 size)
{
	void *memory = kernel_memory(address);

	if (size == 1)
		return LOAD(u8, memory, 0);
	if (size == 2)
		return LOAD(u16, memory, 0);
	return size == 4 ? LOAD(u32, memory, 0) : LOAD(u64, memory, 0);
}

/* The value of type T at a kernel address; 0 if it cannot be read. */
#define KERNEL(T, address) ((T)load_kernel((u64)(address), sizeof(T)))
#else
#define KERNEL(T, address)                                                      \
	({                                                                      \
		T _value = 0;                                                   \
		bpf_probe_read_kernel(&_value, sizeof(T), (void *)(address));   \
		_value;                                                         \
	})
#endif

/* The same of the process's memory. */
#define USER(T, address)                                                        \
	({                                                                      \
		T _value = 0;                                                   \
		bpf_probe_read_user(&_value, sizeof(T), (void *)(address));     \
		_value;                                                         \
	})

static __always_inline u64 current_task(void)
{
	return (u64)bpf_get_current_task();
}

/*
 * Members of the current task, to be compared and nothing else: where the pointer to the task has a
 * type, the verifier keeps that of a member which is a pointer too, and allows no arithmetic with it.
 * bpf_get_current_task_btf(): "bpf: Add bpf_get_current_task_btf() helper", v5.11.
 */
#if defined(HAVE_TYPED_TASK) && !defined(CAST_FUNCTION)
#define TASK_TO_COMPARE() bpf_get_current_task_btf()
#define OF_TASK(size, task, offset) LOAD(size, task, offset)
#else
#define TASK_TO_COMPARE() current_task()
#define OF_TASK(size, task, offset) KERNEL(size, (task) + (offset))
#endif

/* Addresses of the kernel have the highest bit set, those of programs have not. */
static __always_inline bool is_user_address(u64 address)
{
	return (s64)address >= 0;
}

/*
 * A step of `resolve`: the pointer at *address, and `offset` bytes from where it points. False if
 * it cannot be read.
 */
static __always_inline bool follow(u64 *address, u64 offset, bool user)
{
	u64 pointer = 0;
	long failed;

	if (user)
		failed = bpf_probe_read_user(&pointer, sizeof(pointer), (void *)*address);
	else
		failed = bpf_probe_read_kernel(&pointer, sizeof(pointer), (void *)*address);
	*address = pointer + offset;
	return !failed;
}
