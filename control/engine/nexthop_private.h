/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the next hops: nexthop.c asks the kernel and follows its neighbours, nexthop_bulk.c asks
 * once for all addresses that share a way.
 */
#pragma once

#include <libmnl/libmnl.h>

#include "common/config/config.h"
#include "control/engine/nexthop.h"
#include "control/engine/spans.h"

struct event;
struct retries;

#define BULK_ON_LINK_CNT 8192 /* power of two; twice as many as there are next hops */

struct on_link {
	uint8_t address[16];
	uint32_t hop;
	uint8_t family; /* 0: empty */
};
/* What was asked for many; forgotten when routes, rules or links change. */
struct bulk {
	struct spans spans[2];	 /* IPv4, IPv6 */
	struct on_link *on_link; /* by address; a later one takes an earlier one's cell */
	uint32_t fixed[2];	 /* of a port without a kernel interface: next hop + 1 */
};

struct nexthops {
	struct registry *registry;
	const struct fan_config *config;
	struct mnl_socket *query, *watch;
	struct event *on_watch, *on_refresh;
	struct retries *retries;
	struct bulk bulk;
	uint32_t sequence;
	bool managed_refused; /* the kernel knows no NTF_EXT_MANAGED */
};

struct route {
	uint8_t gateway[16]; /* v4-mapped or IPv6; the destination itself where on-link */
	uint32_t ifindex;
	uint32_t mtu; /* 0: the link's */
	uint8_t type;
};

/* Sends a request and reads its answers to the end, or to the first one where there is no dump. */
int nexthop_ask(struct nexthops *n, struct nlmsghdr *request, mnl_cb_t on_answer, void *arg);
size_t nexthop_address_len(uint8_t family);
bool nexthop_address_take(uint8_t out[16], uint8_t family, const struct nlattr *attribute);
/* The engine's address of the family, or NULL. */
const struct fan_address *nexthop_source(const struct nexthops *n, uint8_t family);
/* The way to an address, its MTU resolved. -errno and a sentence. */
int nexthop_route(struct nexthops *n, const struct message_address *address, struct route *route,
		  char why[MESSAGE_REASON_MAX]);
/* The next hop of a way, asked for where it is new. */
int nexthop_by_route(struct nexthops *n, uint8_t family, const struct route *route, uint32_t *idx);
/* Reads what the kernel has told since. */
void nexthop_watch(struct nexthops *n);

/* nexthop_bulk.c */
void nexthop_bulk_forget(struct nexthops *n);
void nexthop_bulk_free(struct nexthops *n);
