/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of the maps and their bounds. The collector creates the maps (collector/bpf/probes.py
 * lists them): MAP_<NAME> is a map's number, SIZEOF_<NAME> the size of its values there.
 */
#pragma once

#include "events.h"
#include "path.h"
#include "ring.h"
#include "values.h"

#define map_lookup(name, key) bpf_map_lookup_elem(MAP(MAP_##name), key)
#define map_update(name, key, value) bpf_map_update_elem(MAP(MAP_##name), key, value, 0 /* BPF_ANY */)
#define map_delete(name, key) bpf_map_delete_elem(MAP(MAP_##name), key)
/* EVENTS: one ring for all hooks, so that the order of records is the order of events. See ring.h. */
/* Neither side can change alone. */
#define VALUES(name, type) _Static_assert(sizeof(type) == SIZEOF_##name, "values of " #name)

/* PROCESSES: every living process, by tgid. */
VALUES(PROCESSES, struct process_value);

/* LOST: records that could not be delivered, by enum loss. */
VALUES(LOST, u64);

/*
 * Longest parts of an exec record. A path has at most PATH_MAX bytes; the name given to execveat
 * has "/dev/fd/N/" before it. Arguments up to INLINE_MAX travel in the record, longer ones
 * before it in pieces of PIECE_MAX.
 */
#define FILENAME_MAX (PATH_LEN_MAX + 64)
#define INLINE_MAX 4096
#define PIECE_MAX 16384
/*
 * Pieces that one program sends before it calls itself again. The kernel takes up to 6 MiB of
 * arguments and environment (_STK_LIM / 4 * 3, fs/exec.c): 384 pieces, so 24 calls.
 */
#define PIECES_PER_CALL 16

/* Sum of the parts, rounded up to a power of two for the verifier's sake. */
#define DATA_MASK 0x3fff
#define DATA_MAX (DATA_MASK + 1)

/*
 * Scratch: records are built here and copied into the ring with their true length, as a
 * reservation needs a constant one. Raw tracepoints cannot nest on a CPU, and a program does not
 * run twice on one, so each hook has its own. A per-CPU value may not exceed 32 KiB.
 */
struct user_range {
	unsigned long from;
	u32 len;
	u32 sent; /* in pieces, ahead of the record */
};

struct exec_scratch {
	struct exec_record record;
	/* An offset masked to DATA_MASK plus the longest part stays inside. */
	char data[DATA_MAX + FILENAME_MAX + 64];
	struct walk walk;
	struct user_range args, envs;
	u32 data_len; /* bytes of data in use */
	/* Paths grow from the end to the front; a name of 255 bytes may follow any position. */
	char path[PATH_LEN_MAX + 256];
};
VALUES(EXEC_SCRATCH, struct exec_scratch);

struct data_scratch {
	struct data_record record;
	char data[PIECE_MAX];
};
VALUES(DATA_SCRATCH, struct data_scratch);

/*
 * EXEC_STAGES: programs that on_exec continues in when a process is unusual: a loop that could carry
 * the longest arguments or the deepest path is more than the verifier follows in one program.
 */
enum exec_stage {
	STAGE_PIECES,
	STAGE_WALK,
	STAGES,
};
#define continue_in(ctx, stage) bpf_tail_call(ctx, MAP(MAP_EXEC_STAGES), stage)
