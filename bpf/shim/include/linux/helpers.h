/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What BPF programs need independently of the kernel: integer names, maps as numbers, helpers. BCC
 * force-includes it (through kconfig.h) in place of kernel headers and of its own helpers.h.
 *
 * Helper numbers are kernel ABI: enum bpf_func_id of include/uapi/linux/bpf.h. A program that calls
 * one that the running kernel lacks is refused by the verifier ("unknown func").
 */
#pragma once

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef short s16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef u8 __u8;
typedef s8 __s8;
typedef u16 __u16;
typedef s16 __s16;
typedef u32 __u32;
typedef s32 __s32;
typedef u64 __u64;
typedef s64 __s64;
typedef _Bool bool;
typedef unsigned long size_t;

#define true 1
#define false 0
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
/* BCC's, for names that it puts into sections of its own. */
#define BCC_SEC(NAME) __attribute__((section(NAME), used))
/* Hides a value's range from clang: it would remove a mask that the verifier still needs. */
#define FORGET(x) asm volatile("" : "+r"(x))

/*
 * Maps are numbers here: LLVM writes the number into the instruction, and the loader replaces it by
 * the map's descriptor (collector/bpf/bytecode.py). MAP_VALUE is the address of an array's values.
 */
u64 bpf_pseudo_fd(u64 kind, u64 number) asm("llvm.bpf.pseudo");
#define MAP(number) ((void *)bpf_pseudo_fd(1, number))
#define MAP_VALUE(number) ((void *)bpf_pseudo_fd(2, number))

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_trace_printk)(const char *format, u32 size, ...) = (void *)6;
static u32 (*bpf_get_prandom_u32)(void) = (void *)7;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_tail_call)(void *ctx, void *map, u32 slot) = (void *)12;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *to, u32 size) = (void *)16;
static long (*bpf_get_stackid)(void *ctx, void *map, u64 flags) = (void *)27;
static void *(*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_write_user)(void *to, const void *from, u32 size) = (void *)36;
static long (*bpf_override_return)(void *ctx, u64 value) = (void *)58;
static long (*bpf_get_stack)(void *ctx, void *to, u32 size, u64 flags) = (void *)67;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static void *(*bpf_inode_storage_get)(void *map, void *inode, void *value, u64 flags) = (void *)145;
static long (*bpf_inode_storage_delete)(void *map, void *inode) = (void *)146;
static long (*bpf_send_signal)(u32 signal) = (void *)109;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_user_str)(void *to, u32 size, const void *from) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*bpf_send_signal_thread)(u32 signal) = (void *)117;
static u64 (*bpf_jiffies64)(void) = (void *)118;
static long (*bpf_get_ns_current_pid_tgid)(u64 dev, u64 ino, void *to, u32 size) = (void *)120;
static u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_ringbuf_output)(void *map, void *data, u64 size, u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static u64 (*bpf_ringbuf_query)(void *map, u64 flags) = (void *)134;
static long (*bpf_get_task_stack)(void *task, void *to, u32 size, u64 flags) = (void *)141;
static long (*bpf_d_path)(void *path, char *to, u32 size) = (void *)147;
static long (*bpf_copy_from_user)(void *to, u32 size, const void *from) = (void *)148;
static void *(*bpf_per_cpu_ptr)(const void *percpu, u32 cpu) = (void *)153;
static void *(*bpf_task_storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static long (*bpf_task_storage_delete)(void *map, void *task) = (void *)157;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_bprm_opts_set)(void *bprm, u64 flags) = (void *)159;
static long (*bpf_ima_inode_hash)(void *inode, void *to, u32 size) = (void *)161;
static void *(*bpf_sock_from_file)(void *file) = (void *)162;
static u64 (*bpf_get_func_ip)(void *ctx) = (void *)173;
static u64 (*bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*bpf_task_pt_regs)(void *task) = (void *)175;
static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;
static long (*bpf_strncmp)(const char *one, u32 size, const char *other) = (void *)182;
static long (*bpf_get_func_arg)(void *ctx, u32 index, u64 *value) = (void *)183;
static long (*bpf_get_func_ret)(void *ctx, u64 *value) = (void *)184;
static u64 (*bpf_get_func_arg_cnt)(void *ctx) = (void *)185;
static long (*bpf_copy_from_user_task)(void *to, u32 size, const void *from, void *task, u64 flags) = (void *)191;
static long (*bpf_ima_file_hash)(void *file, void *to, u32 size) = (void *)193;
static void *(*bpf_map_lookup_percpu_elem)(void *map, const void *key, u32 cpu) = (void *)195;
