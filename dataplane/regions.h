/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two shared-memory regions of a dataplane: fanwired's registry, mapped read-only, and its own
 * state, created or taken over. Main lcore only; logs what it does.
 */
#pragma once

#include "dataplane/worker.h"

/*
 * Waits up to wait_s seconds for the registry region, then maps it. 0, -ETIMEDOUT when there was
 * none, -EINTR when `interrupted` said to leave, or another -errno; what was wrong is logged.
 */
int regions_open_registry(struct plane *plane, unsigned wait_s, bool (*interrupted)(void));

/*
 * Takes over the state region where it belongs to this registry region, or makes a new one. After
 * this the region's lock says that the instance runs. 0 or -errno, logged.
 */
int regions_open_state(struct plane *plane);

/* Bytes of a state region for so many groups and publisher sessions, and a log of so many MiB. */
uint64_t regions_state_size(uint32_t group_cnt, uint32_t session_cnt, uint32_t log_mb);

/* Whether the registry file still is the one that is mapped. */
bool regions_registry_is_current(const struct plane *plane);
void regions_close(struct plane *plane);
