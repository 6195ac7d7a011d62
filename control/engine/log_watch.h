/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How fast the dataplane's event log fills, by its heads, and so for how long it holds what it is
 * given. Event-loop thread only.
 */
#pragma once

#include "control/engine/engine.h"

struct log_status {
	uint64_t capacity;	  /* bytes, of all workers */
	uint64_t logged;	  /* bytes, since the state region was made */
	double bytes_per_s;	  /* over the last seconds */
	double retention_seconds; /* capacity at that rate; 0: nothing is logged */
};

/* Call each tick. */
void log_watch_tick(struct engine *engine, struct moment now);
void log_watch_status(const struct engine *engine, struct log_status *status);
