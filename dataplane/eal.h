/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DPDK's environment for one instance: lcore 0 is the main one, lcore i + 1 is worker i, each bound
 * to the core that the configuration names. Main thread only; logs what is wrong.
 */
#pragma once

#include "common/config/config.h"

/* vdev: arguments of the virtual device, NULL where the port is a PCI address. 0 or -errno. */
int eal_start(const struct fan_config *config, const char *vdev);
/* "0000:03:00.0" and the like. */
bool eal_port_is_pci(const char *port);
