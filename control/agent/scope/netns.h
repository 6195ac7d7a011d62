/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work in another network namespace without ever moving the caller's thread: a thread of its own
 * enters it at the start and stays there, so no error can leave the daemon in the wrong namespace,
 * and nobody needs the right to enter it (CAP_SYS_ADMIN) afterwards.
 */
#pragma once

#include "common/config/config.h"

struct netns; /* NULL: the caller's own namespace, in the caller's thread */

/* The namespace of config receiver_netns, or NULL in *out where it is "". */
int netns_open(const struct fan_config *config, struct netns **out, char why[1024]);
void netns_close(struct netns *netns);

/* Runs work(arg) there and returns its result. Blocks until done; one caller at a time. */
int netns_run(struct netns *netns, int (*work)(void *arg), void *arg);

/*
 * The reserved range must be out of reach of the ports that the receivers' kernel picks by itself:
 * outside net.ipv4.ip_local_port_range, or in ip_local_reserved_ports. -EINVAL: `why` has the
 * sysctl to run.
 */
int netns_check_ports(const struct fan_config *config, struct netns *netns, char why[1024]);
