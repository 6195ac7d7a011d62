/* SPDX-License-Identifier: BSD-3-Clause */
/* What DPDK does not do for a memif port. Main thread, before EAL. */
#pragma once

#include "common/config/config.h"

/*
 * Removes the socket that an earlier dataplane left, killed or no longer allowed to remove it,
 * where nobody listens on it: DPDK would not start over it. Ports of another kind: nothing.
 */
void memif_port_clear(const struct fan_config *config);
