/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * /fanwire/counters, /fanwire/workers and /fanwire/port on DPDK's telemetry socket. Answers come
 * from DPDK's telemetry thread, which only reads shared words.
 */
#pragma once

#include "dataplane/worker.h"

/* Main lcore, once; plane must outlive the process's EAL. 0 or -errno. */
int telemetry_register(const struct plane *plane);
