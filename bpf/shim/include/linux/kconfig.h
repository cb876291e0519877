/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-in for the kernel headers that BCC expects. BCC force-includes this file first, so it
 * is the place that brings in every kernel type: vmlinux.h is generated from the running
 * kernel's BTF, so that offsets are exact without CO-RE.
 */
#pragma once

#ifdef __BPF_HELPERS_H /* compiled without headers of a kernel: collector/bpf/compiler.py */
#include <linux/helpers.h>
#else

/* Offsets already are this kernel's: no relocation records wanted. */
#define BPF_NO_PRESERVE_ACCESS_INDEX
/* BCC's helpers.h asks for it. */
#define CONFIG_BPF_SYSCALL 1
/* BCC carries a copy of uapi/linux/bpf.h; vmlinux.h has the same types already. */
#define _UAPI__LINUX_BPF_H__

#include "vmlinux.h"
#include <linux/helper_ids.h>

/* BTF carries types and enums, but no macros: the few that we and BCC use. */
#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define PAGE_SIZE 4096
#endif
