/* SPDX-License-Identifier: BSD-3-Clause */
/* Subscriptions over a link: what fanwired grants, and the transport beneath client/receive.c. */
#include "client/bypass/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/subscription.h"

#define SPINS	512 /* looks at the link before it sleeps */
#define NAP_NS	UINT64_C(50000)
#define PACKETS RECEIVE_BATCH

/* Of one subscription; s->link. */
struct bypass {
	struct receiver *receiver;
	uint8_t engine[16];
	uint16_t engine_port;
	unsigned held_cnt; /* mbufs of the batch that is out */
	struct rte_mbuf *held[PACKETS];
};

static void ask(const struct fan_subscription *s, json_t *request)
{
	const struct bypass *b = s->link;
	const struct fan_bypass *link = b->receiver->link;
	bool v4 = link->family == 4;
	char text[INET6_ADDRSTRLEN];

	inet_ntop(v4 ? AF_INET : AF_INET6, link->address + (v4 ? 12 : 0), text, sizeof(text));
	json_object_set_new(request, "op", json_string("bypass"));
	json_object_del(request, "family");
	json_object_set_new(request, "address", json_string(text));
	json_object_set_new(request, "port", json_integer(b->receiver->port));
}

/* ---- what was granted ---- */

static bool take_key(const json_t *object, const char *name, uint8_t key[FAN_TAG_KEY_LEN])
{
	const char *text = json_string_value(json_object_get(object, name));

	return text && fan_unhex(key, FAN_TAG_KEY_LEN, text) == 0;
}

/* {"user_generation":…, "key_generation":…, "tag_key":"…", and the previous ones}. */
static bool take_scope(const json_t *object, struct bypass_scope *scope)
{
	uint64_t user_generation, key_generation, previous;

	if (!client_socket_number(object, "user_generation", UINT32_MAX, &user_generation) ||
	    !client_socket_number(object, "key_generation", UINT8_MAX, &key_generation) ||
	    !client_socket_number(object, "previous_key_generation", UINT8_MAX, &previous) ||
	    !take_key(object, "tag_key", scope->tag_key) ||
	    !take_key(object, "previous_tag_key", scope->previous_tag_key))
		return false;
	scope->user_generation = (uint32_t)user_generation;
	scope->key_generation = (uint8_t)key_generation;
	scope->previous_key_generation = (uint8_t)previous;
	return true;
}

static bool take_engine(struct bypass *b, const json_t *answer)
{
	const char *text = json_string_value(json_object_get(answer, "engine_address"));
	uint64_t port;

	memset(b->engine, 0, 10);
	b->engine[10] = b->engine[11] = 0xff;
	if (!text || !client_socket_number(answer, "engine_port", UINT16_MAX, &port) ||
	    (inet_pton(AF_INET, text, b->engine + 12) != 1 &&
	     inet_pton(AF_INET6, text, b->engine) != 1))
		return false;
	b->engine_port = (uint16_t)port;
	return true;
}

static int bypass_open(struct fan_subscription *s, const json_t *answer, uint32_t payload_limit)
{
	struct bypass *b = s->link;
	struct bypass_scope *scope = &b->receiver->scope;

	if (!take_scope(json_object_get(answer, "scope"), scope) || !take_engine(b, answer))
		return client_error(-EPROTO, "fanwired's answer lacks a scope or an engine; are "
					     "both of the same version?");
	memcpy(scope->handle, s->handle, FAN_HANDLE_LEN);
	b->receiver->subscription = s;
	b->receiver->scoped = true;
	return 0;
}

/* ---- receiving ---- */

static void release(struct bypass *b)
{
	if (b->held_cnt)
		rte_pktmbuf_free_bulk(b->held, b->held_cnt);
	b->held_cnt = 0;
}

static bool bypass_fill(struct fan_subscription *s)
{
	struct bypass *b = s->link;
	struct receiver *r = b->receiver;

	release(b);
	s->batch.cnt = s->batch.next = 0;
	if (s->ended) /* as a socket whose scope is gone */
		r->scoped = false;
	if (r->head == r->tail && !r->link->polled)
		link_poll(r->link);
	while (b->held_cnt < PACKETS && r->tail != r->head) {
		const struct receiver_datagram *datagram = &r->queue[r->tail++ % RECEIVER_QUEUE];

		/* in an mbuf that is ours: its seal may be opened in place */
		s->batch.packets[b->held_cnt] = (uint8_t *)datagram->packet;
		s->batch.lens[b->held_cnt] = datagram->len;
		b->held[b->held_cnt++] = datagram->mbuf;
	}
	s->batch.cnt = b->held_cnt;
	return s->batch.cnt > 0;
}

static void bypass_send(struct fan_subscription *s, const uint8_t *packet, size_t len)
{
	struct bypass *b = s->link;

	link_send(b->receiver->link, b->receiver->port, b->engine, b->engine_port, packet, len);
}

static void bypass_wait(struct fan_subscription *s, uint64_t deadline_ns)
{
	struct receiver *r = ((struct bypass *)s->link)->receiver;
	unsigned spins = 0;

	while (r->head == r->tail) {
		uint64_t now_ns;

		if (link_poll(r->link) || ++spins < SPINS)
			continue;
		now_ns = clock_now_ns();
		if (now_ns >= deadline_ns ||
		    clock_poll(s->epoll_fd, clock_earlier(deadline_ns, now_ns + NAP_NS)))
			return;
	}
}

static uint64_t bypass_now(const struct fan_subscription *s)
{
	const struct fan_bypass *link = ((const struct bypass *)s->link)->receiver->link;

	return link->polled ? link->now_ns : clock_now_ns();
}

static void bypass_close(struct fan_subscription *s)
{
	struct bypass *b = s->link;

	if (!b)
		return;
	release(b);
	link_receiver_del(b->receiver);
	sodium_memzero(b, sizeof(*b));
	free(b);
	s->link = NULL;
}

static const struct transport bypass_transport = {
	.ask = ask,
	.open = bypass_open,
	.fill = bypass_fill,
	.send = bypass_send,
	.wait = bypass_wait,
	.now = bypass_now,
	.polled = true,
	.attaches = false,
	.close = bypass_close,
};

int fan_bypass_subscribe(struct fan_subscription **subscription, struct fan_bypass *link,
			 const char *client_socket, const struct fan_subscribe_options *options)
{
	struct bypass *b;

	if (!options || !options->token)
		return client_error(-EINVAL, "a subscription needs a token");
	b = calloc(1, sizeof(*b));
	if (!b)
		return client_error(-ENOMEM, "out of memory for a subscription");
	b->receiver = link_receiver_add(link);
	if (!b->receiver) {
		free(b);
		return client_error(-EAGAIN, "every UDP port of the link is taken; close a "
					     "subscription first");
	}
	return subscription_open(subscription, client_socket, options, &bypass_transport, b);
}
