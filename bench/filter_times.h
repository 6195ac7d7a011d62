/* SPDX-License-Identifier: BSD-3-Clause */
/* What the kernel itself says of the time that its BPF programs take. One thread; root. */
#pragma once

#include "bench/filter_host.h"

enum program_kind { PROGRAM_FILTER, PROGRAM_INGRESS, PROGRAM_EGRESS, PROGRAM_CNT };

struct program_time {
	uint64_t runs;
	uint64_t ns; /* all runs together, the kernel's own clock reads included */
};

extern const char *const program_names[PROGRAM_CNT];

/*
 * Sums of the programs that the case has, since they were loaded. They move only while statistics
 * are on: bpf_enable_stats().
 */
void program_times(const struct filter_host *host, struct program_time times[PROGRAM_CNT]);

/*
 * Nanoseconds of one run of the scope filter over an accepted delivery to users[0], by
 * BPF_PROG_TEST_RUN: no packet path round it, no clock read for each run, caches hot. Negative
 * errno where it cannot be had.
 */
int program_test_run(struct filter_host *host, unsigned repeat);
