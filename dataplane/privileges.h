/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the dataplane may do once it has started: docs/security.md, What each process can do. It
 * starts as root, and no packet is looked at before privileges_drop(). The main thread.
 */
#pragma once

#include "common/config/config.h"
#include "common/shm/region.h"

/* Gives the state region to the dataplane's user, readable by fanwired's. 0 or -errno; logs why. */
int privileges_give_state(const struct fan_config *config, const struct fan_region *state);

/* Once everything is open and all of DPDK's threads are there. 0 or -errno; logs why. */
int privileges_drop(const struct fan_config *config);

/* At the very end: what taking the port down needs. */
void privileges_raise(void);
