/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * When each (address, port) of the pool was released, and by whom, in a mapped file of run_dir: so
 * that a port rests its whole time though fanwired dies meanwhile, however it dies. The file is
 * advice about a few seconds, so anything odd in it is forgotten, not repaired.
 *
 * Owner: the agent. One thread.
 */
#pragma once

#include <stdint.h>

#include "common/config/config.h"

struct rest_log;

/*
 * Opens run_dir/ports, made anew where it does not fit the pool of `config`. -errno, and `why` says
 * what to do.
 */
int rest_log_open(struct rest_log **log, const struct fan_config *config, char why[1024]);
void rest_log_close(struct rest_log *log); /* NULL is allowed */

/* idx as in struct port; now_ns: CLOCK_MONOTONIC, which goes on over a restart of fanwired. */
void rest_log_add(struct rest_log *log, uint32_t idx, const uint8_t handle[16], uint64_t now_ns);
void rest_log_del(struct rest_log *log, uint32_t idx); /* taken again */

/* Calls on_rest, oldest release first, for each that was released less than quarantine_ns ago. */
typedef void (*rest_log_on_rest)(void *arg, uint32_t idx, const uint8_t handle[16],
				 uint64_t released_ns);
int rest_log_each(const struct rest_log *log, uint64_t now_ns, uint64_t quarantine_ns,
		  rest_log_on_rest on_rest, void *arg);
