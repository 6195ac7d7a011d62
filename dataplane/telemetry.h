/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /fanwire/counters, /fanwire/workers and /fanwire/port on DPDK's telemetry socket. Answers come
 * from DPDK's telemetry thread, which only reads shared words.
 */
#pragma once

#include "dataplane/worker.h"

/* Main lcore, once, while regions, pool and port are there. 0 or -errno. */
int telemetry_register(const struct plane *plane);
/* Before any of them goes: from here on there is no answer. */
void telemetry_forget(void);
