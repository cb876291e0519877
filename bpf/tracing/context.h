/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a hook's arguments are: the registers that struct pt_regs saves, by their byte offset, and
 * the calling conventions. The struct is kernel ABI for user space (struct user_regs_struct).
 */
#pragma once

#include "program.h"

#if defined(__x86_64__)
/* arch/x86/include/asm/ptrace.h. Functions: rdi, rsi, rdx, rcx, r8, r9; system calls: r10 for rcx. */
#define REG_ARG0 112
#define REG_ARG1 104
#define REG_ARG2 96
#define REG_ARG3 88
#define REG_ARG4 72
#define REG_ARG5 64
#define REG_SYSCALL_ARG3 56
#define REG_SYSCALL_FIRST 56 /* r10 to rdi: all arguments of a system call */
#define SYSCALL_WORDS 8
#define REG_RETURN 80
#define REG_SYSCALL_NUMBER 120 /* orig_ax */
#define REG_STACK 152
#define THREAD_BYTES 16384 /* THREAD_SIZE without KASAN */
#define REGISTERS_BYTES 168
/* 32-bit system calls: ebx, ecx, edx, esi, edi, ebp. */
#define REG_COMPAT_ARG0 40
#define REG_COMPAT_ARG1 88
#define REG_COMPAT_ARG2 96
#define REG_COMPAT_ARG3 104
#define REG_COMPAT_ARG4 112
#define REG_COMPAT_ARG5 32
#define REG_ARG0_AT_RETURN REG_ARG0
#define REG_COMPAT_ARG0_AT_RETURN REG_COMPAT_ARG0
#elif defined(__aarch64__)
/* arch/arm64/include/asm/ptrace.h: regs[31], sp, pc, pstate, orig_x0, syscallno. */
#define REG_ARG0 0
#define REG_ARG1 8
#define REG_ARG2 16
#define REG_ARG3 24
#define REG_ARG4 32
#define REG_ARG5 40
#define REG_SYSCALL_ARG3 24
#define REG_SYSCALL_FIRST 0
#define SYSCALL_WORDS 6
#define REG_RETURN 0
#define REG_SYSCALL_NUMBER 280
#define REG_STACK 248
#define THREAD_BYTES 16384
#define REGISTERS_BYTES 336
#define REG_COMPAT_ARG0 0
#define REG_COMPAT_ARG1 8
#define REG_COMPAT_ARG2 16
#define REG_COMPAT_ARG3 24
#define REG_COMPAT_ARG4 32
#define REG_COMPAT_ARG5 40
/* orig_x0: x0 has the result (syscall_set_return_value() of arch/arm64/include/asm/syscall.h). */
#define REG_ARG0_AT_RETURN 272
#define REG_COMPAT_ARG0_AT_RETURN 272
#else
#error "no register layout for this machine"
#endif

/*
 * The registers that the current task had in user space: the end of its kernel stack
 * (task_pt_regs() of arch/x86/include/asm/processor.h); by helper since v5.15.
 */
static __always_inline u64 user_registers(void)
{
#ifdef HAVE_TASK_PT_REGS
	return (u64)bpf_task_pt_regs(bpf_get_current_task_btf());
#else
	return KERNEL(u64, current_task() + OFFSET_task_stack) + THREAD_BYTES - REGISTERS_BYTES;
#endif
}

/* A register of the context of a kprobe or uprobe, which is struct pt_regs itself. */
#define CONTEXT_REGISTER(ctx, offset) (*(u64 *)((void *)(ctx) + (offset)))
/* Arguments of a system call, where a program needs several: one read costs as much as another. */
#ifdef CAST_FUNCTION
#define SYSCALL_WORDS_AT(words, regs) void *words = kernel_memory(regs)
#define SYSCALL_WORD(words, offset) LOAD(u64, words, offset)
#else
#define SYSCALL_WORDS_AT(words, regs)                                            \
	u64 words[SYSCALL_WORDS] = {};                                           \
	bpf_probe_read_kernel(words, sizeof(words), (void *)((regs) + REG_SYSCALL_FIRST))
#define SYSCALL_WORD(words, offset) ((words)[((offset) - REG_SYSCALL_FIRST) / 8])
#endif
/* A register of a struct pt_regs at an address. */
#define SAVED_REGISTER(regs, offset) KERNEL(u64, (regs) + (offset))

/*
 * Whether the current system call came through the 32-bit interface: thread_info.status has
 * TS_COMPAT (arch/x86/include/asm/thread_info.h); arm64: flag TIF_32BIT, 22 of thread_info.flags.
 */
static __always_inline bool is_compat_call(void)
{
#if defined(__x86_64__)
	return KERNEL(u32, current_task() + OFFSET_task_thread_status) & 2;
#else
	return KERNEL(u64, current_task() + OFFSET_task_thread_flags) >> 22 & 1;
#endif
}

/*
 * Eight bytes of the context, by their offset. clang would keep the address of a word that it reads
 * twice, and the verifier accepts no loads from an address inside the context: a load by hand has
 * the offset in the instruction, wherever it stands. volatile: not behind a write to the register.
 */
#define CONTEXT_WORD(ctx, offset)                                                            \
	({                                                                                   \
		u64 _word;                                                                   \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(_word) : "r"(ctx), "i"(offset)); \
		_word;                                                                       \
	})
