/* SPDX-License-Identifier: BSD-3-Clause */
/* The way to each of many addresses: one question for all that lie between the same prefixes. */
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/nexthop_private.h"
#include "control/registry/registry.h"

/* Next hops that stay for subscribers: those of vouched neighbours are never given back. */
#define HOPS_LEFT 1024

struct dump {
	struct spans *spans;
	uint8_t family;
	int err;
};

static unsigned spans_of(uint8_t family)
{
	return family == 6;
}

void nexthop_bulk_forget(struct nexthops *n)
{
	spans_clear(&n->bulk.spans[0]);
	spans_clear(&n->bulk.spans[1]);
	free(n->bulk.on_link);
	n->bulk.on_link = NULL;
}

void nexthop_bulk_free(struct nexthops *n)
{
	nexthop_bulk_forget(n);
	spans_free(&n->bulk.spans[0]);
	spans_free(&n->bulk.spans[1]);
}

static void add_prefix(struct dump *dump, const struct nlattr *address, unsigned bits)
{
	uint8_t prefix[16];

	if (!dump->err && address && nexthop_address_take(prefix, dump->family, address))
		dump->err = spans_add(dump->spans, prefix, bits + (dump->family == 4 ? 96 : 0));
}

/* Of a route or a rule: their headers begin alike, and both name the destination as 1. */
static int on_prefix(const struct nlmsghdr *message, void *arg)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;

	_Static_assert(sizeof(struct rtmsg) == sizeof(struct fib_rule_hdr) &&
			       offsetof(struct rtmsg, rtm_dst_len) ==
				       offsetof(struct fib_rule_hdr, dst_len) &&
			       (int)RTA_DST == (int)FRA_DST,
		       "a rule reads as a route");
	mnl_attr_for_each(attribute, message, sizeof(*rtm))
	{
		if (mnl_attr_get_type(attribute) == RTA_DST)
			add_prefix(arg, attribute, rtm->rtm_dst_len);
	}
	return MNL_CB_OK;
}

static int dump_prefixes(struct nexthops *n, uint16_t type, struct dump *dump)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(request, sizeof(*rtm));
	int err;

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	rtm->rtm_family = dump->family == 4 ? AF_INET : AF_INET6;
	err = nexthop_ask(n, request, on_prefix, dump);
	return err ? err : dump->err;
}

/* Takes up changes that the kernel has told meanwhile; then reads all prefixes where need be. */
static int open_spans(struct nexthops *n, uint8_t family, struct spans *spans)
{
	struct dump dump = {.spans = spans, .family = family};
	int err;

	if (spans->closed)
		return 0;
	nexthop_watch(n);
	spans_clear(spans);
	err = dump_prefixes(n, RTM_GETROUTE, &dump);
	if (!err)
		err = dump_prefixes(n, RTM_GETRULE, &dump);
	return err ? err : spans_close(spans);
}

static int ask_way(struct nexthops *n, const struct message_address *address, struct span *span,
		   char why[MESSAGE_REASON_MAX])
{
	struct route route;
	int err = nexthop_route(n, address, &route, why);

	if (err)
		return err;
	if (memcmp(route.gateway, address->bytes, 16) == 0) {
		span->way = SPAN_ON_LINK;
		return 0;
	}
	err = nexthop_by_route(n, address->family, &route, &span->hop);
	if (!err)
		span->way = SPAN_GATEWAY;
	return err;
}

static struct on_link *on_link_cell(struct nexthops *n, const struct message_address *address)
{
	uint64_t low;

	if (!n->bulk.on_link)
		n->bulk.on_link = calloc(BULK_ON_LINK_CNT, sizeof(*n->bulk.on_link));
	if (!n->bulk.on_link)
		return NULL;
	memcpy(&low, address->bytes + 8, sizeof(low));
	low *= UINT64_C(0x9e3779b97f4a7c15);
	return &n->bulk.on_link[low >> 40 & (BULK_ON_LINK_CNT - 1)];
}

/* As a neighbour that has its next hop already. */
static bool is_known(const struct nexthops *n, const struct message_address *address)
{
	const struct fan_table *table = registry_table(n->registry);

	for (uint32_t i = 0; i < table->nexthop_cnt && table->nexthops[i].family; i++)
		if (table->nexthops[i].family == address->family &&
		    memcmp(table->nexthops[i].address, address->bytes, 16) == 0)
			return true;
	return false;
}

static int get_on_link(struct nexthops *n, const struct message_address *address, uint32_t *idx,
		       char why[MESSAGE_REASON_MAX])
{
	struct on_link *cell = on_link_cell(n, address);
	struct registry_counts counts;
	struct route route;
	int err;

	if (!cell)
		return -ENOMEM;
	if (cell->family == address->family && memcmp(cell->address, address->bytes, 16) == 0) {
		*idx = cell->hop;
		return 0;
	}
	registry_counts(n->registry, &counts);
	if (counts.nexthops + HOPS_LEFT >= FAN_NEXTHOPS_MAX && !is_known(n, address)) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "%u next hops are known, and each address on the link itself needs one; "
			 "put a gateway before so many receivers, and a route to their prefix",
			 counts.nexthops);
		return -ENOSPC;
	}
	err = nexthop_route(n, address, &route, why);
	if (!err)
		err = nexthop_by_route(n, address->family, &route, idx);
	if (err)
		return err;
	*cell = (struct on_link){.hop = *idx, .family = address->family};
	memcpy(cell->address, address->bytes, 16);
	return 0;
}

static int get_fixed(struct nexthops *n, const struct message_address *address, uint32_t *idx,
		     char why[MESSAGE_REASON_MAX])
{
	uint32_t *fixed = &n->bulk.fixed[spans_of(address->family)];
	int err = 0;

	if (!*fixed) {
		err = nexthops_get(n, address, idx, why);
		*fixed = err ? 0 : *idx + 1;
	}
	if (!err)
		*idx = *fixed - 1;
	return err;
}

int nexthops_get_bulk(struct nexthops *n, const struct message_address *address, uint32_t *idx,
		      char why[MESSAGE_REASON_MAX])
{
	struct spans *spans = &n->bulk.spans[spans_of(address->family)];
	struct span *span;
	int err = 0;

	why[0] = '\0';
	if (!n->config->interface[0])
		return get_fixed(n, address, idx, why);
	if (!nexthop_source(n, address->family) || open_spans(n, address->family, spans))
		return nexthops_get(n, address, idx, why);
	span = spans_find(spans, address->bytes);
	if (span->way == SPAN_UNKNOWN)
		err = ask_way(n, address, span, why);
	if (!err && span->way == SPAN_ON_LINK)
		err = get_on_link(n, address, idx, why);
	else if (!err)
		*idx = span->hop;
	if (err && !why[0])
		snprintf(why, MESSAGE_REASON_MAX, "no room for a next hop: %.200s",
			 registry_why(n->registry));
	return err;
}

void nexthops_bulk_begin(struct nexthops *n)
{
	if (n->watch)
		nexthop_watch(n);
}
