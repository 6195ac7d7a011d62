/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work in another network namespace without ever moving the caller's thread: a short-lived thread
 * enters it, does the work and ends, so no error can leave the daemon in the wrong namespace.
 */
#pragma once

#include "common/config/config.h"

/*
 * Runs work(arg) in the namespace of netns_fd and returns its result, or -errno where that could
 * not be entered. netns_fd -1: the caller's own namespace, in the caller's thread. Blocks until
 * done.
 */
int netns_run(int netns_fd, int (*work)(void *arg), void *arg);

/* Descriptor of config receiver_netns, or -1 in *fd where it is "". */
int netns_open(const struct fan_config *config, int *fd, char why[1024]);

/*
 * The reserved range must be out of reach of the ports that the receivers' kernel picks by itself:
 * outside net.ipv4.ip_local_port_range, or in ip_local_reserved_ports. -EINVAL: `why` has the
 * sysctl to run.
 */
int netns_check_ports(const struct fan_config *config, int netns_fd, char why[1024]);
