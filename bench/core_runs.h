/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timed runs of one worker in its three modes:
 *
 *   whole   all that a loop of the worker does: parse … acknowledge, housekeeping, quiescence
 *   fanout  look up and replicate alone: opened events lie ready
 *   stages  whole, with the time read between the stages
 *
 * Publishes are made and sealed outside the timed part. A copy counts when the port took it: where
 * the pipeline's count and the port's own differ, the run fails.
 */
#pragma once

#include "bench/rig.h"

enum core_mode { CORE_WHOLE, CORE_FANOUT, CORE_STAGES, CORE_MODE_CNT };
extern const char *const core_mode_names[CORE_MODE_CNT];

enum core_stage {
	STAGE_PARSE,
	STAGE_CLOCK, /* and what other workers handed over */
	STAGE_LOOKUP,
	STAGE_OPEN,
	STAGE_SEQUENCE,
	STAGE_HEADER,
	STAGE_SEAL,
	STAGE_TAG,
	STAGE_LOG,
	STAGE_FANOUT,
	STAGE_FINISH,
	STAGE_ACK,
	STAGE_HOUSEKEEPING,
	STAGE_CNT
};
extern const char *const core_stage_names[STAGE_CNT];

/* What the timed part did. */
struct core_run {
	uint64_t cycles, events, copies, acks;
	uint64_t keys_derived;	    /* of streams, since they were not kept */
	uint64_t stages[STAGE_CNT]; /* cycles; mode stages only */
};

/* About ms milliseconds of timed work on the worker's lcore. 0 or -errno with `why`. */
int core_run(struct rig *rig, enum core_mode mode, unsigned ms, struct core_run *run,
	     char why[256]);
