/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Next hops: asks the kernel (rtnetlink, in fanwired's network namespace) for the route and the
 * neighbour of a destination, and keeps the neighbours' MAC addresses in the registry region up to
 * date. The route is asked once, when somebody registers: a later change of it is for who comes
 * then (docs/architecture.md). A port without a kernel interface has one configured MAC instead.
 * Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/messages.h"

struct event_base;
struct fan_config;
struct nexthops;
struct registry;

/* Takes up the next hops of the last run and watches neighbours, links and routes. */
int nexthops_open(struct nexthops **nexthops, struct event_base *base, struct registry *registry,
		  const struct fan_config *config, char why[1024]);
void nexthops_close(struct nexthops *nexthops);

/*
 * Index of the next hop towards an address; its MAC may follow later. -ENETUNREACH no route by the
 * dataplane's interface; -EAFNOSUPPORT the engine has no address of the family; -ENOSPC. `why` says
 * what to do.
 */
int nexthops_get(struct nexthops *nexthops, const struct message_address *address, uint32_t *idx,
		 char why[MESSAGE_REASON_MAX]);
/*
 * The same for one of many: asks the kernel once for all addresses that lie between the same two
 * ends of its routes' and rules' prefixes. begin: before a batch, so that changes which the kernel
 * has told count. -ENOSPC also where a quarter of the next hops is left: an address on the link
 * itself needs one of its own.
 */
void nexthops_bulk_begin(struct nexthops *nexthops);
int nexthops_get_bulk(struct nexthops *nexthops, const struct message_address *address,
		      uint32_t *idx, char why[MESSAGE_REASON_MAX]);
bool nexthops_resolved(const struct nexthops *nexthops, uint32_t idx);
/* How many there are, and how many of them without a MAC. */
void nexthops_counts(const struct nexthops *nexthops, unsigned *total, unsigned *unresolved);
