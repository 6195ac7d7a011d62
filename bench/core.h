/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `fanwire-bench core`: copies a second and cycles a copy of one worker. The very pipeline of
 * fanwire-dataplane on DPDK's null port, fed with sealed publishes; what counts as a copy is what
 * the port took, checked against the port's own count.
 */
#pragma once

#include <stdint.h>

#define CORE_CASES_MAX 16

struct core_options {
	uint32_t users[CORE_CASES_MAX], fanouts[CORE_CASES_MAX];
	unsigned user_cnt, fanout_cnt;
	unsigned runs;	 /* of each case; the median counts */
	unsigned run_ms; /* timed part of a run */
	unsigned burst, payload_len, sessions;
	unsigned core;	 /* CPU of the worker */
	uint64_t memory; /* bytes for one registry region; larger cases are skipped; 0: half of what
			    is free */
	const char *dir; /* of the regions */
	char json[256];	 /* file to write; "": none */
};

/* 0, or an exit status; says on standard error what was wrong. */
int core_run(const struct core_options *options);
