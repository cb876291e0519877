/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all programs of a policy share: its mode, its losses, its counters. MAP_ numbers are defined
 * at the head of the generated text, from the list in policies/maps.py.
 */
#pragma once

#include "program.h"

enum policy_mode {
	MODE_OFF,
	MODE_MONITOR,
	MODE_ENFORCE,
};

/* Read before anything else: user space switches a policy with one store. */
static __always_inline u32 policy_mode(void)
{
	volatile u32 *modes = MAP_VALUE(MAP_MODES);

	return modes[NUMBER(NUMBER_SLOT)];
}

/*
 * The same number, which the verifier does not know any more: it follows each value that it knows
 * separately, so what comes behind would be checked once for every set of candidates.
 */
static __always_inline u32 any_number(u32 number)
{
	u32 unknown = policy_mode();

	asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(number) : "r"(unknown));
	return number;
}

/* Why a record was lost; MAP_LOST has u64[LOSS_REASONS] for each loaded policy and CPU. */
enum loss_reason {
	LOSS_RING_FULL,	   /* no room in the ring */
	LOSS_NO_SCRATCH,   /* more than SCRATCH_SLOTS programs interrupted each other on one CPU */
	LOSS_NO_PENDING,   /* the table of pending returns was full */
	LOSS_REASONS = 4,
};

static __always_inline void count_loss(u32 reason)
{
	u32 slot = (u32)NUMBER(NUMBER_SLOT);
	u64 *counts = bpf_map_lookup_elem(MAP(MAP_LOST), &slot);

	if (counts)
		__sync_fetch_and_add(&counts[reason], 1);
}

/*
 * MAP_COUNTERS is u64[COUNTER_CPUS][COUNTER_SLOTS], both sizes from the text's head: it is
 * addressed directly, while a per-CPU map costs a lookup. Slot 0 counts calls that no selector
 * matched; then come COUNTERS_OF_SELECTOR for each selector of each hook, numbered through.
 */
enum selector_counter {
	COUNTER_POSTED, /* records that reached the ring */
	COUNTER_NOT_POSTED, /* NoPost */
	COUNTER_RATE_LIMITED,
	/* Enforcement actions: carried out, and omitted in mode monitor. */
	COUNTER_SIGNAL,
	COUNTER_MONITOR_SIGNAL,
	COUNTER_OVERRIDE,
	COUNTER_MONITOR_OVERRIDE,
	COUNTER_NOTIFY,
	COUNTER_MONITOR_NOTIFY,
	COUNTER_SET,
	COUNTER_MONITOR_SET,
	COUNTER_SPARED, /* not carried out: the process is spared, or the kernel refused */
	COUNTER_FAILED,
	/* Notifications that reached no enforcer: evicted, or replaced by the thread's next one. */
	COUNTER_MISSED,
	COUNTER_OVERWRITTEN,
	COUNTERS_OF_SELECTOR = 16,
};
#define COUNTER_OF(selector, counter) (1 + (selector) * COUNTERS_OF_SELECTOR + (counter))

static __always_inline void count(u32 slot)
{
	u64 *counters = MAP_VALUE(MAP_COUNTERS);
	u32 at = bpf_get_smp_processor_id() * COUNTER_SLOTS + slot;

	/* One mask for the sum: an OR of two bounded registers is unbounded for older verifiers. */
	FORGET(at);
	at &= COUNTER_CPUS * COUNTER_SLOTS - 1;
	__sync_fetch_and_add(&counters[at], 1);
}

/*
 * A call that no selector matched. Not atomic: when one program interrupts another on a CPU, a
 * count can be lost. That is acceptable for a statistic; an atomic add would slow down every call.
 */
static __always_inline void count_filtered(void)
{
	u64 *counters = MAP_VALUE(MAP_COUNTERS);
	u32 at = bpf_get_smp_processor_id() * COUNTER_SLOTS;

	FORGET(at);
	at &= COUNTER_CPUS * COUNTER_SLOTS - 1;
	counters[at] += 1;
}
