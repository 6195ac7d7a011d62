/* SPDX-License-Identifier: BSD-3-Clause */
/* One timed run of a load (load.h). */
#pragma once

#include "bench/peers/load.h"

struct load_figures {
	double seconds;
	uint64_t in_time; /* copies received before the end */
	struct load_counts counts;
};

/* Publishes for ms milliseconds, then waits for what is on its way. 0, or -errno and load->why. */
int load_run(struct load *load, unsigned ms, struct load_figures *figures);
