/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/fanout.h"

#include <rte_ip.h>
#include <rte_prefetch.h>

#include "common/wire/handle.h"
#include "dataplane/handover.h"
#include "dataplane/send.h"

#define PREFETCH_AHEAD 3

void fanout_emit(struct worker *w, uint8_t *image, const struct fan_delivery *delivery,
		 const uint8_t tag_key[16], const struct fan_endpoint *endpoints, unsigned cnt,
		 uint16_t kind)
{
	uint16_t len = (uint16_t)(FAN_DELIVERY_LEN + delivery->payload_len);
	uint16_t sum;

	fan_delivery_encode(image, delivery);
	fan_filter_tag(image, tag_key);
	sum = rte_raw_cksum(image, len);
	for (unsigned i = 0; i < cnt; i++) {
		const struct fan_endpoint *endpoint = &endpoints[i];
		const struct destination to = {
			.address = endpoint->address,
			.nexthop = fan_endpoint_nexthop(endpoint),
			.port = endpoint->port,
			.family = fan_endpoint_family(endpoint),
		};

		if (i + PREFETCH_AHEAD < cnt)
			rte_prefetch0(endpoint + PREFETCH_AHEAD);
		if (unlikely(memcmp(endpoint->handle, delivery->handle, FAN_HANDLE_LEN) != 0))
			COUNT(w, drop_endpoint_foreign);
		else
			send_datagram(w, &to, image, len, sum, kind);
	}
}

/* A block that lies outside the region reads as no endpoints: it is counted, never followed. */
static const struct fan_endpoint *endpoints_get(struct worker *w, const struct fan_group *group,
						uint32_t *cnt)
{
	const struct fan_endpoint *endpoints = fan_group_endpoints(&w->plane->table, group, cnt);

	if (unlikely(*cnt == 0) &&
	    (__atomic_load_n(&group->endpoints, __ATOMIC_RELAXED) & FAN_ENDPOINT_CNT_MAX))
		COUNT(w, drop_endpoint_range);
	return endpoints;
}

/* The payload stays where it was opened; the header goes right before it, over what has been read.
 */
static void fanout_event(struct worker *w, unsigned idx)
{
	struct packet *packet = packet_of(w->events[idx]);
	const struct fan_publish *publish = &packet->publish;
	const struct fan_group *group = w->groups[idx];
	const struct fan_endpoint *endpoints;
	uint32_t cnt;
	struct fan_delivery delivery = {
		.type = FAN_TYPE_DELIVERY,
		.flags = publish->flags,
		.key_generation = group->key_generation,
		.payload_len = publish->payload_len,
		.kind = publish->kind,
		.channel = publish->channel,
		.epoch = packet->result.epoch,
		.sequence = packet->result.sequence,
		.time_ns = w->now_ns,
		.user_generation = group->user_generation,
		.session = publish->session,
		.publisher_sequence = publish->publisher_sequence,
	};

	memcpy(delivery.handle, group->handle, FAN_HANDLE_LEN);
	endpoints = endpoints_get(w, group, &cnt);
	packet->result.attempted = cnt;
	COUNT_N(w, copies_attempted, cnt);
	fanout_emit(w, packet->wire + FAN_PUBLISH_LEN - FAN_DELIVERY_LEN, &delivery, group->tag_key,
		    endpoints, cnt, (uint16_t)idx);
}

/* What became of it goes to the session's owner, who acknowledges. */
static void event_close(struct worker *w, unsigned idx)
{
	struct packet *packet = packet_of(w->events[idx]);
	unsigned owner = session_owner(w->plane, packet->publish.session);

	packet->result.sent = w->tx_sent[idx];
	if (w->groups[idx]) {
		uint64_t *copies =
			&w->plane->group_states[fan_group_idx(&w->plane->table, w->groups[idx])]
				 .copies;

		__atomic_store_n(copies, *copies + w->tx_sent[idx], __ATOMIC_RELAXED);
		COUNT_N(w, copies_sent, w->tx_sent[idx]);
	}
	if (owner == w->idx)
		stage_add(w->done, &w->done_cnt, w->events[idx]);
	else
		handover_result(w, owner, w->events[idx]);
}

void fanout_burst(struct worker *w)
{
	memset(w->tx_sent, 0, w->event_cnt * sizeof(w->tx_sent[0]));
	for (unsigned i = 0; i < w->event_cnt; i++)
		if (w->groups[i])
			fanout_event(w, i);
	send_flush(w);
	for (unsigned i = 0; i < w->event_cnt; i++)
		event_close(w, i);
	w->event_cnt = 0;
}

void fanout_challenge(struct worker *w, const struct fan_request *request)
{
	uint8_t image[FAN_DELIVERY_LEN];
	struct fan_endpoint endpoint = {
		.connection = request->connection,
		.port = request->port,
		.hop = fan_hop(request->nexthop, request->family),
	};
	struct fan_delivery delivery = {
		.type = FAN_TYPE_CHALLENGE,
		.key_generation = request->key_generation,
		.channel = FAN_CHANNEL_SINGLE | request->connection,
		.epoch = request->salt,
		.sequence = fan_challenge_proof(w->plane->table.registry->challenge_key,
						request->connection, request->salt,
						request->address, request->port),
		.time_ns = w->now_ns,
		.user_generation = request->user_generation,
	};

	memcpy(endpoint.handle, request->handle, FAN_HANDLE_LEN);
	memcpy(endpoint.address, request->address, sizeof(endpoint.address));
	memcpy(delivery.handle, request->handle, FAN_HANDLE_LEN);
	fanout_emit(w, image, &delivery, request->tag_key, &endpoint, 1, SENT_CHALLENGE);
}
