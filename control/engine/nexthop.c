/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/nexthop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/config.h"
#include "common/log.h"
#include "control/engine/nexthop_private.h"
#include "control/engine/retry.h"
#include "control/registry/registry.h"

#define REFRESH_S  30 /* asks the kernel anew: whatever was missed comes right */
#define NUD_USABLE (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE)

size_t nexthop_address_len(uint8_t family)
{
	return family == 4 ? 4 : 16;
}

/* The family's own bytes inside the 16: IPv4 is v4-mapped. */
static const uint8_t *address_bytes(const uint8_t bytes[16], uint8_t family)
{
	return family == 4 ? bytes + 12 : bytes;
}

bool nexthop_address_take(uint8_t out[16], uint8_t family, const struct nlattr *attribute)
{
	if (mnl_attr_get_payload_len(attribute) < nexthop_address_len(family))
		return false;
	memset(out, 0, 16);
	if (family == 4)
		memset(out + 10, 0xff, 2);
	memcpy(out + (family == 4 ? 12 : 0), mnl_attr_get_payload(attribute),
	       nexthop_address_len(family));
	return true;
}

/* Sends a request and reads its answers to the end, or to the first one where there is no dump. */
int nexthop_ask(struct nexthops *n, struct nlmsghdr *request, mnl_cb_t on_answer, void *arg)
{
	char buffer[32768];
	unsigned portid = mnl_socket_get_portid(n->query);
	ssize_t len;
	int rc = MNL_CB_OK;

	request->nlmsg_seq = ++n->sequence;
	if (mnl_socket_sendto(n->query, request, request->nlmsg_len) < 0)
		return -errno;
	while (rc > MNL_CB_STOP) {
		len = mnl_socket_recvfrom(n->query, buffer, sizeof(buffer));
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return -errno;
		rc = mnl_cb_run(buffer, (size_t)len, n->sequence, portid, on_answer, arg);
		if (rc < 0 && errno == EPROTO) { /* an answer to an older question: read on */
			rc = MNL_CB_OK;
			continue;
		}
		if (rc < 0)
			return -errno;
		if (!(request->nlmsg_flags & (NLM_F_DUMP | NLM_F_ACK)))
			break;
	}
	return 0;
}

static void route_metrics(struct route *route, const struct nlattr *metrics)
{
	const struct nlattr *attribute;

	mnl_attr_for_each_nested(attribute, metrics) if (mnl_attr_get_type(attribute) == RTAX_MTU)
		route->mtu = mnl_attr_get_u32(attribute);
}

static int on_route(const struct nlmsghdr *message, void *arg)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	struct route *route = arg;
	uint8_t family = rtm->rtm_family == AF_INET ? 4 : 6;

	route->type = rtm->rtm_type;
	mnl_attr_for_each(attribute, message, sizeof(*rtm))
	{
		switch (mnl_attr_get_type(attribute)) {
		case RTA_OIF:
			route->ifindex = mnl_attr_get_u32(attribute);
			break;
		case RTA_GATEWAY:
			nexthop_address_take(route->gateway, family, attribute);
			break;
		case RTA_METRICS:
			route_metrics(route, attribute);
			break;
		}
	}
	return MNL_CB_OK;
}

static int route_get(struct nexthops *n, const struct message_address *address, struct route *route)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct rtmsg *rtm = mnl_nlmsg_put_extra_header(request, sizeof(*rtm));
	size_t len = nexthop_address_len(address->family);

	request->nlmsg_type = RTM_GETROUTE;
	request->nlmsg_flags = NLM_F_REQUEST;
	rtm->rtm_family = address->family == 4 ? AF_INET : AF_INET6;
	rtm->rtm_dst_len = (uint8_t)(8 * len);
	mnl_attr_put(request, RTA_DST, len, address_bytes(address->bytes, address->family));
	memset(route, 0, sizeof(*route));
	memcpy(route->gateway, address->bytes, 16);
	return nexthop_ask(n, request, on_route, route);
}

static int on_link_mtu(const struct nlmsghdr *message, void *arg)
{
	const struct nlattr *attribute;

	mnl_attr_for_each(attribute, message,
			  sizeof(struct ifinfomsg)) if (mnl_attr_get_type(attribute) == IFLA_MTU) *
		(uint32_t *)arg = mnl_attr_get_u32(attribute);
	return MNL_CB_OK;
}

static uint32_t link_mtu(struct nexthops *n, uint32_t ifindex)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *ifi = mnl_nlmsg_put_extra_header(request, sizeof(*ifi));
	uint32_t mtu = 0;

	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST;
	ifi->ifi_family = AF_UNSPEC;
	ifi->ifi_index = (int)ifindex;
	return nexthop_ask(n, request, on_link_mtu, &mtu) || !mtu ? 1500 : mtu;
}

static int on_ack(const struct nlmsghdr *message, void *arg)
{
	return MNL_CB_OK;
}

/*
 * Makes the kernel resolve the neighbour and keep it resolved. Nothing of ours passes through the
 * kernel's stack, so without this the entry would age away under full traffic.
 */
static int neighbour_trigger(struct nexthops *n, const struct fan_nexthop *hop, bool managed)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ndmsg *ndm = mnl_nlmsg_put_extra_header(request, sizeof(*ndm));

	request->nlmsg_type = RTM_NEWNEIGH;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
	ndm->ndm_family = hop->family == 4 ? AF_INET : AF_INET6;
	ndm->ndm_ifindex = (int)hop->ifindex;
	ndm->ndm_flags = NTF_USE;
	mnl_attr_put(request, NDA_DST, nexthop_address_len(hop->family),
		     address_bytes(hop->address, hop->family));
	if (managed)
		mnl_attr_put_u32(request, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	return nexthop_ask(n, request, on_ack, NULL);
}

/* An event of the kernel's, not an answer to us. */
static void neighbour_changed(struct nexthops *n, const struct ndmsg *ndm,
			      const uint8_t address[16], bool removed)
{
	const struct fan_table *table = registry_table(n->registry);
	uint8_t family = ndm->ndm_family == AF_INET ? 4 : 6;
	enum retry_news news = RETRY_FOUND;

	if (removed)
		news = RETRY_REMOVED;
	else if (ndm->ndm_state & NUD_FAILED)
		news = RETRY_SILENT;
	else if (!(ndm->ndm_state & NUD_USABLE))
		return; /* it is being asked for */
	for (uint32_t i = 0; i < table->nexthop_cnt; i++) {
		const struct fan_nexthop *hop = &table->nexthops[i];

		if (hop->family == family && hop->ifindex == (uint32_t)ndm->ndm_ifindex &&
		    memcmp(hop->address, address, 16) == 0)
			retries_plan(n->retries, i, news);
	}
}

static void neighbour_take(struct nexthops *n, const struct ndmsg *ndm, const uint8_t address[16],
			   const uint8_t *mac)
{
	const struct fan_table *table = registry_table(n->registry);
	uint8_t family = ndm->ndm_family == AF_INET ? 4 : 6;

	for (uint32_t i = 0; i < table->nexthop_cnt; i++) {
		const struct fan_nexthop *hop = &table->nexthops[i];

		if (hop->family == family && hop->ifindex == (uint32_t)ndm->ndm_ifindex &&
		    memcmp(hop->address, address, 16) == 0)
			registry_nexthop_set_mac(n->registry, i, mac);
	}
}

static int read_neighbour(struct nexthops *n, const struct nlmsghdr *message, bool event)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	const uint8_t *mac = NULL;
	uint8_t address[16];
	bool found = false, removed = message->nlmsg_type == RTM_DELNEIGH;

	if (ndm->ndm_family != AF_INET && ndm->ndm_family != AF_INET6)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(*ndm))
	{
		if (mnl_attr_get_type(attribute) == NDA_DST)
			found = nexthop_address_take(address, ndm->ndm_family == AF_INET ? 4 : 6,
						     attribute);
		else if (mnl_attr_get_type(attribute) == NDA_LLADDR &&
			 mnl_attr_get_payload_len(attribute) == 6)
			mac = mnl_attr_get_payload(attribute);
	}
	if (removed || !(ndm->ndm_state & NUD_USABLE))
		mac = NULL;
	if (found)
		neighbour_take(n, ndm, address, mac);
	if (found && event)
		neighbour_changed(n, ndm, address, removed);
	return MNL_CB_OK;
}

static int on_neighbour(const struct nlmsghdr *message, void *arg)
{
	return read_neighbour(arg, message, false);
}

struct known {
	struct nexthops *nexthops;
	uint16_t state;
};

static int on_known_neighbour(const struct nlmsghdr *message, void *arg)
{
	struct known *known = arg;

	known->state = ((const struct ndmsg *)mnl_nlmsg_get_payload(message))->ndm_state;
	return on_neighbour(message, known->nexthops);
}

/* Takes the MAC that the kernel knows already, and returns its state of the neighbour. */
static uint16_t neighbour_look(struct nexthops *n, const struct fan_nexthop *hop)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ndmsg *ndm = mnl_nlmsg_put_extra_header(request, sizeof(*ndm));
	struct known known = {.nexthops = n};

	request->nlmsg_type = RTM_GETNEIGH;
	request->nlmsg_flags = NLM_F_REQUEST;
	ndm->ndm_family = hop->family == 4 ? AF_INET : AF_INET6;
	ndm->ndm_ifindex = (int)hop->ifindex;
	mnl_attr_put(request, NDA_DST, nexthop_address_len(hop->family),
		     address_bytes(hop->address, hop->family));
	return nexthop_ask(n, request, on_known_neighbour, &known) ? NUD_NONE : known.state;
}

static void neighbour_want(struct nexthops *n, const struct fan_nexthop *hop)
{
	int err;

	/* asking for it would turn an administrator's permanent entry into an ordinary one */
	if (neighbour_look(n, hop) & (NUD_PERMANENT | NUD_NOARP))
		return;
	err = n->managed_refused ? -EINVAL : neighbour_trigger(n, hop, true);

	if (err == -EINVAL || err == -EOPNOTSUPP) {
		n->managed_refused = true; /* before Linux 5.16: asked anew each REFRESH_S */
		err = neighbour_trigger(n, hop, false);
	}
	if (err)
		fan_log(FAN_LOG_WARNING, "nexthop", "the kernel will not resolve a neighbour: %s",
			strerror(-err));
}

static int neighbours_dump(struct nexthops *n)
{
	char buffer[256];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);

	mnl_nlmsg_put_extra_header(request, sizeof(struct ndmsg));
	request->nlmsg_type = RTM_GETNEIGH;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	return nexthop_ask(n, request, on_neighbour, n);
}

static void refresh(struct nexthops *n, bool all)
{
	const struct fan_table *table = registry_table(n->registry);

	for (uint32_t i = 0; i < table->nexthop_cnt; i++) {
		const struct fan_nexthop *hop = &table->nexthops[i];

		if (hop->family && (all || n->managed_refused || !nexthops_resolved(n, i)))
			neighbour_want(n, hop);
	}
	neighbours_dump(n);
}

static void on_refresh(evutil_socket_t fd, short what, void *arg)
{
	struct timeval each = {.tv_sec = REFRESH_S};
	struct nexthops *n = arg;

	refresh(n, false);
	evtimer_add(n->on_refresh, &each);
}

/* The kernel's answer, or its giving up, plans the next. */
static void on_due(void *arg, uint32_t idx)
{
	struct nexthops *n = arg;
	const struct fan_nexthop *hop = &registry_table(n->registry)->nexthops[idx];

	if (hop->family && !nexthops_resolved(n, idx))
		neighbour_want(n, hop);
}

static int on_event_message(const struct nlmsghdr *message, void *arg)
{
	struct nexthops *n = arg;
	struct timeval soon = {.tv_usec = 100000};

	if (message->nlmsg_type == RTM_NEWNEIGH || message->nlmsg_type == RTM_DELNEIGH)
		return read_neighbour(n, message, true);
	nexthop_bulk_forget(n);
	/* a link or a route changed: look at all once it has calmed down */
	evtimer_add(n->on_refresh, &soon);
	return MNL_CB_OK;
}

void nexthop_watch(struct nexthops *n)
{
	int fd = mnl_socket_get_fd(n->watch);
	char buffer[32768];
	ssize_t len;

	while ((len = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT)) != 0) {
		if (len < 0 && errno == ENOBUFS) { /* events were lost */
			refresh(n, true);
			continue;
		}
		if (len < 0)
			return;
		mnl_cb_run(buffer, (size_t)len, 0, 0, on_event_message, n);
	}
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	nexthop_watch(arg);
}

static struct mnl_socket *socket_open(unsigned groups)
{
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	struct timeval patience = {.tv_sec = 2};

	if (!socket)
		return NULL;
	if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) < 0) {
		mnl_socket_close(socket);
		return NULL;
	}
	setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return socket;
}

static int watch_start(struct nexthops *n, struct event_base *base)
{
	struct timeval each = {.tv_sec = REFRESH_S};

	n->query = socket_open(0);
	n->watch = socket_open(RTMGRP_NEIGH | RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE |
			       RTMGRP_IPV4_RULE | 1u << (RTNLGRP_IPV6_RULE - 1));
	if (!n->query || !n->watch)
		return -errno;
	n->on_watch =
		event_new(base, mnl_socket_get_fd(n->watch), EV_READ | EV_PERSIST, on_watch, n);
	n->on_refresh = evtimer_new(base, on_refresh, n);
	n->retries = retries_create(base, registry_table(n->registry)->nexthop_cnt, on_due, n);
	if (!n->on_watch || !n->on_refresh || !n->retries || event_add(n->on_watch, NULL) ||
	    evtimer_add(n->on_refresh, &each))
		return -ENOMEM;
	return 0;
}

int nexthops_open(struct nexthops **out, struct event_base *base, struct registry *registry,
		  const struct fan_config *config, char why[1024])
{
	struct nexthops *n = calloc(1, sizeof(*n));
	int err = -ENOMEM;

	if (!n)
		return err;
	n->registry = registry;
	n->config = config;
	err = config->interface[0] ? watch_start(n, base) : 0;
	if (err) {
		snprintf(why, 1024, "cannot watch the kernel's neighbours (rtnetlink): %s",
			 strerror(-err));
		nexthops_close(n);
		return err;
	}
	if (config->interface[0])
		refresh(n, true);
	*out = n;
	return 0;
}

void nexthops_close(struct nexthops *n)
{
	if (!n)
		return;
	if (n->on_watch)
		event_free(n->on_watch);
	if (n->on_refresh)
		event_free(n->on_refresh);
	retries_destroy(n->retries);
	if (n->watch)
		mnl_socket_close(n->watch);
	if (n->query)
		mnl_socket_close(n->query);
	nexthop_bulk_free(n);
	free(n);
}

const struct fan_address *nexthop_source(const struct nexthops *n, uint8_t family)
{
	for (unsigned i = 0; i < n->config->engine_address_cnt; i++)
		if (n->config->engine_address[i].family == family)
			return &n->config->engine_address[i];
	return NULL;
}

static int get_static(struct nexthops *n, const struct message_address *address,
		      const struct fan_address *source, uint32_t *idx)
{
	static const uint8_t anywhere[16];
	uint16_t mtu = (uint16_t)(n->config->payload_limit + FAN_DELIVERY_LEN + 48);
	int err = registry_nexthop_get(n->registry, address->family, anywhere, 0, source->bytes,
				       mtu < 1500 ? 1500 : mtu, idx);

	if (!err)
		registry_nexthop_set_mac(n->registry, *idx,
					 n->config->has_static_mac ? n->config->static_mac : NULL);
	return err;
}

int nexthop_route(struct nexthops *n, const struct message_address *address, struct route *route,
		  char why[MESSAGE_REASON_MAX])
{
	uint32_t ifindex = if_nametoindex(n->config->interface);
	char text[46];
	int err = ifindex ? route_get(n, address, route) : -ENODEV;

	if (!err && (route->type != RTN_UNICAST || route->ifindex != ifindex))
		err = -ENETUNREACH;
	if (err) {
		fan_address_format(text, address->bytes, address->family);
		snprintf(why, MESSAGE_REASON_MAX,
			 "no route to %s by the dataplane's interface %s (%s); add one, or correct "
			 "receiver_addresses or interface in the configuration",
			 text, n->config->interface, strerror(-err));
		return err;
	}
	if (!route->mtu)
		route->mtu = link_mtu(n, ifindex);
	if (route->mtu > 65535)
		route->mtu = 65535;
	return 0;
}

int nexthop_by_route(struct nexthops *n, uint8_t family, const struct route *route, uint32_t *idx)
{
	int err = registry_nexthop_get(n->registry, family, route->gateway, route->ifindex,
				       nexthop_source(n, family)->bytes, (uint16_t)route->mtu, idx);

	if (!err && !nexthops_resolved(n, *idx))
		neighbour_want(n, &registry_table(n->registry)->nexthops[*idx]);
	return err;
}

static int get_routed(struct nexthops *n, const struct message_address *address, uint32_t *idx,
		      char why[MESSAGE_REASON_MAX])
{
	struct route route;
	int err = nexthop_route(n, address, &route, why);

	return err ? err : nexthop_by_route(n, address->family, &route, idx);
}

int nexthops_get(struct nexthops *n, const struct message_address *address, uint32_t *idx,
		 char why[MESSAGE_REASON_MAX])
{
	const struct fan_address *source = nexthop_source(n, address->family);
	int err;

	why[0] = '\0';
	if (!source) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "the engine has no IPv%u address; add one to engine_addresses",
			 address->family);
		return -EAFNOSUPPORT;
	}
	err = n->config->interface[0] ? get_routed(n, address, idx, why)
				      : get_static(n, address, source, idx);
	if (err && !why[0])
		snprintf(why, MESSAGE_REASON_MAX, "no room for a next hop: %.200s",
			 registry_why(n->registry));
	return err;
}

bool nexthops_resolved(const struct nexthops *n, uint32_t idx)
{
	const struct fan_table *table = registry_table(n->registry);

	return idx < table->nexthop_cnt &&
	       (__atomic_load_n(&table->nexthops[idx].mac, __ATOMIC_RELAXED) &
		FAN_NEXTHOP_RESOLVED);
}

void nexthops_counts(const struct nexthops *n, unsigned *total, unsigned *unresolved)
{
	const struct fan_table *table = registry_table(n->registry);

	*total = *unresolved = 0;
	for (uint32_t i = 0; i < table->nexthop_cnt; i++) {
		if (!table->nexthops[i].family)
			continue;
		(*total)++;
		*unresolved += !nexthops_resolved(n, i);
	}
}
