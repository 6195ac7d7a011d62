/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The DPDK port: buffers, queues, start and stop. Main lcore, while no worker runs.
 */
#pragma once

#include "dataplane/worker.h"

/* Buffers of `cnt` packets, each large enough for any packet of ours: half for what is received,
 * half for what is sent, or together where the port needs that. 0 or -errno, logged. */
int port_make_pool(struct plane *plane, unsigned cnt);
/* Configures and starts the port with up to a queue a worker; sets queue counts and MAC. */
int port_start(struct plane *plane);
void port_stop(struct plane *plane);
