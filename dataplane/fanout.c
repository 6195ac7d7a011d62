/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/fanout.h"

#include <rte_prefetch.h>
#include <sodium.h>

#include "common/wire/handle.h"
#include "dataplane/flows.h"
#include "dataplane/frame.h"
#include "dataplane/handover.h"
#include "dataplane/seal.h"
#include "dataplane/send.h"
#include "dataplane/tag.h"

#define PREFETCH_FROM 192 /* bytes of a block */
#define PREFETCH_TO   1728

/* ---- copies ---- */

/* What the copies' mbufs hold besides their frames. */
static void mbuf_fields(struct kernel_emit *event)
{
	const struct rte_mbuf mbuf = {
		.data_off = RTE_PKTMBUF_HEADROOM,
		.refcnt = 1,
		.nb_segs = 1,
		.port = RTE_MBUF_PORT_INVALID,
		.pkt_len = event->len,
		.data_len = (uint16_t)event->len,
	};

	memcpy(event->mbuf, &mbuf.rearm_data, sizeof(event->mbuf));
}

/* As many as go the way of the first endpoint; returns how many of the endpoints are done with. */
static unsigned emit_run(struct worker *w, struct kernel_emit *event,
			 const struct fan_endpoint *endpoints, unsigned cnt, uint16_t kind)
{
	unsigned done = 0, made;

	do {
		unsigned room = send_room(w);

		if (unlikely(room == 0)) {
			COUNT_N(w, drop_no_mbuf, cnt - done);
			return cnt;
		}
		room = RTE_MIN(room, cnt - done);
		made = w->plane->kernels->emit(event, endpoints + done, room, w->tx + w->tx_cnt);
		if (made)
			send_made(w, made, (uint16_t)event->len, kind);
		done += made;
		if (made < room)
			break;
	} while (done < cnt);
	return done;
}

/* One copy of the image to each of the endpoints. The frames' headers go right before it. */
static void emit(struct worker *w, uint8_t *image, uint16_t len,
		 const struct fan_endpoint *endpoints, unsigned cnt, uint16_t kind)
{
	const uint8_t *handle = image + FAN_DELIVERY_HANDLE_OFF;
	uint16_t sum = w->plane->kernels->sum(image, len);
	struct kernel_emit event;

	memcpy(event.handle, handle, sizeof(event.handle));
	event.end = endpoints + cnt;
	while (cnt) {
		const struct frame_template *template = NULL;
		unsigned done = 1; /* what cannot be sent is left out, one by one */

		if (unlikely(memcmp(endpoints->handle, handle, FAN_HANDLE_LEN) != 0) &&
		    !fan_planted(PLANT_ENDPOINT_NOT_COMPARED))
			COUNT(w, drop_endpoint_foreign);
		else
			template = frame_template_get(w, fan_endpoint_nexthop(endpoints),
						      fan_endpoint_family(endpoints), len);
		if (likely(template)) {
			event.frame = image - template->len;
			event.len = template->len + len;
			event.hop = endpoints->hop;
			frame_begin(image - template->len, template, len, sum, &event.ip_sum,
				    &event.udp_sum);
			mbuf_fields(&event);
			done = emit_run(w, &event, endpoints, cnt, kind);
		}
		endpoints += done;
		cnt -= done;
	}
}

/* ---- events ---- */

/* A block that lies outside the region reads as no endpoints: it is counted, never followed. */
struct block fanout_block(struct worker *w, struct packet *packet, const struct fan_group *group)
{
	struct block block;

	block.endpoints = fan_group_endpoints(&w->plane->table, group, &block.cnt);
	if (unlikely(block.cnt == 0) &&
	    (__atomic_load_n(&group->endpoints, __ATOMIC_RELAXED) & FAN_ENDPOINT_CNT_MAX))
		COUNT(w, drop_endpoint_range);
	packet->result.attempted = block.cnt;
	COUNT_N(w, copies_attempted, block.cnt);
	return block;
}

static void header_make(struct worker *w, struct packet *packet, const struct fan_group *group)
{
	const struct fan_publish *publish = &packet->publish;
	struct fan_delivery delivery = {
		.type = FAN_TYPE_DELIVERY,
		.flags = publish->flags,
		.key_generation = (uint8_t)w->roots.generation,
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
	fan_delivery_encode(fanout_image(packet), &delivery);
}

void header_burst(struct worker *w)
{
	tag_generation(w);
	for (unsigned i = 0; i < w->event_cnt; i++) {
		struct packet *packet = packet_of(w->events[i]);

		if (!w->groups[i])
			continue;
		seal_prefetch(w, w->groups[i]);
		packet->incarnation = w->groups[i]->incarnation;
		header_make(w, packet, w->groups[i]);
	}
}

void fanout_copies(struct worker *w, const struct packet *packet,
		   const struct fan_endpoint *endpoints, unsigned cnt, uint16_t kind)
{
	emit(w, fanout_image(packet), (uint16_t)(FAN_DELIVERY_LEN + packet->publish.payload_len),
	     endpoints, cnt, kind);
}

/* The lookup asked for the first endpoints; a long block's next ones are asked for here. */
static void prefetch_block(const struct worker *w, unsigned idx)
{
	const char *endpoints;
	uint32_t cnt;

	if (idx >= w->event_cnt || !w->groups[idx])
		return;
	endpoints = (const char *)fan_group_endpoints(&w->plane->table, w->groups[idx], &cnt);
	for (size_t off = PREFETCH_FROM;
	     off < PREFETCH_TO && off < cnt * sizeof(struct fan_endpoint);
	     off += RTE_CACHE_LINE_SIZE)
		rte_prefetch0(endpoints + off);
}

/* A share of it, or what there is; false where the rest, or all, follows in later bursts. */
static bool event_fan_out(struct worker *w, unsigned idx)
{
	struct packet *packet = packet_of(w->events[idx]);
	struct flow *flow = unlikely(w->flow_cnt) ? flow_of(w, packet->hash) : NULL;
	struct block block;
	unsigned now;

	if (flow) {
		flow_push(w, flow, w->events[idx]);
		return false;
	}
	if (unlikely(w->flow_cnt))
		w->mixed_tsc = rte_rdtsc();
	block = fanout_block(w, packet, w->groups[idx]);
	now = flow_share(w, w->groups[idx], block.cnt);
	if (unlikely(now < block.cnt)) {
		struct block rest = {block.endpoints + now, block.cnt - now};

		if (flow_begin(w, w->events[idx], w->groups[idx], rest)) {
			if (now)
				fanout_copies(w, packet, block.endpoints, now, (uint16_t)idx);
			return false;
		}
	}
	if (block.cnt)
		fanout_copies(w, packet, block.endpoints, block.cnt, (uint16_t)idx);
	return true;
}

void fanout_count(struct worker *w, struct rte_mbuf *event, const struct fan_group *group,
		  uint32_t sent)
{
	uint32_t *copies;

	packet_of(event)->result.sent += sent;
	if (!group)
		return;
	copies = &w->plane->group_states[fan_group_idx(&w->plane->table, group)].copies;
	__atomic_store_n(copies, *copies + sent, __ATOMIC_RELAXED);
	COUNT_N(w, copies_sent, sent);
}

/* To the session's owner, who acknowledges. */
void fanout_close(struct worker *w, struct rte_mbuf *event)
{
	unsigned owner = session_owner(w->plane, packet_of(event)->publish.session);

	if (owner == w->idx)
		stage_add(w->done, &w->done_cnt, event);
	else
		handover_result(w, owner, event);
}

void fanout_burst(struct worker *w)
{
	bool whole[STAGE_MAX];

	memset(w->tx_sent, 0, w->event_cnt * sizeof(w->tx_sent[0]));
	for (unsigned i = 0; i < w->event_cnt; i++) {
		prefetch_block(w, i + 1);
		whole[i] = !w->groups[i] || event_fan_out(w, i);
	}
	if (unlikely(w->flow_cnt))
		flows_serve(w);
	send_flush(w);
	for (unsigned i = 0; i < w->event_cnt; i++) {
		fanout_count(w, w->events[i], w->groups[i], w->tx_sent[i]);
		if (likely(whole[i]))
			fanout_close(w, w->events[i]);
	}
	flows_settle(w);
	w->event_cnt = 0;
}

/* ---- beside events ---- */

/* Of a delivery header. */
#define FLAGS_OFF	   2
#define KEY_GENERATION_OFF 3

bool fanout_can_replay(const struct worker *w, const struct fan_group *group, const uint8_t *image)
{
	uint8_t key[FAN_TAG_KEY_LEN];
	bool known = tag_key(w, key, group, image[KEY_GENERATION_OFF]);

	sodium_memzero(key, sizeof(key));
	return known;
}

void fanout_replay(struct worker *w, const struct fan_group *group,
		   const struct fan_endpoint *endpoint, const uint8_t *image, uint16_t len)
{
	uint8_t bytes[FRAME_HEADERS_MAX + FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX + KERNEL_SLACK];
	uint8_t *copy = bytes + FRAME_HEADERS_MAX;

	RTE_VERIFY(len <= FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX);
	memcpy(copy, image, len);
	copy[FLAGS_OFF] |= FAN_FLAG_REPLAY;
	if (tag_image(w, copy, group))
		emit(w, copy, len, endpoint, 1, SENT_REPLAY);
}

/* A header without a payload, as of now. */
static void control_emit(struct worker *w, const struct fan_group *group,
			 const struct fan_endpoint *endpoints, uint32_t cnt,
			 struct fan_delivery *delivery, uint16_t kind)
{
	uint8_t bytes[FRAME_HEADERS_MAX + FAN_DELIVERY_LEN + KERNEL_SLACK];
	uint8_t *image = bytes + FRAME_HEADERS_MAX;

	tag_generation(w);
	delivery->key_generation = (uint8_t)w->roots.generation;
	delivery->channel = group->channel;
	delivery->time_ns = w->now_ns;
	delivery->user_generation = group->user_generation;
	memcpy(delivery->handle, group->handle, FAN_HANDLE_LEN);
	fan_delivery_encode(image, delivery);
	if (tag_image(w, image, group))
		emit(w, image, FAN_DELIVERY_LEN, endpoints, cnt, kind);
}

void fanout_lost(struct worker *w, const struct fan_group *group,
		 const struct fan_endpoint *endpoint, uint64_t epoch, uint64_t first, uint64_t last)
{
	struct fan_delivery delivery = {
		.type = FAN_TYPE_LOST,
		.epoch = epoch,
		.sequence = first,
		.publisher_sequence = last,
	};

	control_emit(w, group, endpoint, 1, &delivery, SENT_LOST);
}

void fanout_status(struct worker *w, const struct fan_group *group,
		   const struct fan_endpoint *endpoints, uint32_t cnt)
{
	const struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	struct fan_delivery delivery = {.type = FAN_TYPE_STATUS};

	if (state->incarnation == group->incarnation) {
		delivery.epoch = state->epoch;
		delivery.sequence = state->sequence;
	}
	control_emit(w, group, endpoints, cnt, &delivery, SENT_STATUS);
}

void fanout_beside_flush(struct worker *w)
{
	send_flush(w);
	COUNT_N(w, replay_sent, w->tx_sent[SENT_REPLAY]);
	COUNT_N(w, statuses_sent, w->tx_sent[SENT_STATUS]);
	w->tx_sent[SENT_REPLAY] = w->tx_sent[SENT_STATUS] = w->tx_sent[SENT_LOST] = 0;
}

/* ---- challenges ---- */

void fanout_challenge(struct worker *w, const struct fan_request *request)
{
	uint8_t bytes[FRAME_HEADERS_MAX + FAN_DELIVERY_LEN + KERNEL_SLACK];
	uint8_t *image = bytes + FRAME_HEADERS_MAX;
	const uint8_t *key = request->tag_key;
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
	fan_delivery_encode(image, &delivery);
	w->plane->kernels->tag(&image, &key, 1);
	emit(w, image, FAN_DELIVERY_LEN, &endpoint, 1, SENT_CHALLENGE);
}
