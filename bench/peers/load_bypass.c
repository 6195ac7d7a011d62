/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fanwire without the kernel: every receiver is a subscription of libfanwire-bypass, read by
 * fan_receive(), registered through client.sock; publishes enter by the same memif link.
 * --address: the memif's socket; --receive-address: where the receivers are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/link_publisher.h"
#include "bench/peers/load.h"

#define READY_MAX 256
#define RING_SIZE 8192 /* the window and what else is on its way; more leaves the caches */

struct bypass_load {
	struct fan_bypass *link;
	struct fan_subscription **subscriptions; /* of receiver i; its id is i + 1 */
	struct link_publisher *publisher;
	uint8_t (*handles)[FAN_HANDLE_LEN]; /* of users */
};

/* A line of the tokens' file is a user's name and his token. */
static int subscribe_user(struct load *load, struct bypass_load *b, unsigned user, char *line)
{
	char *name = strtok(line, " \n"), *token = strtok(NULL, " \n");

	if (!name || !token || fan_handle(b->handles[user], name, strlen(name)) < 0)
		return load_error(load, -EINVAL, "%s: line %u is no user and token",
				  load->options.tokens, user + 1);
	for (unsigned i = 0; i < load->options.fanout; i++) {
		unsigned idx = user * load->options.fanout + i;
		struct fan_subscribe_options options = {
			.token = token, .connection = idx + 1, .timeout_ms = 20000};
		int err = fan_bypass_subscribe(&b->subscriptions[idx], b->link,
					       load->options.client_socket, &options);

		if (err)
			return load_error(load, err, "receiver %u of %u: %s", idx + 1,
					  load->receiver_cnt, fan_error());
	}
	return 0;
}

static int subscribe_all(struct load *load, struct bypass_load *b)
{
	FILE *file = fopen(load->options.tokens, "r");
	char line[4600];
	int err = 0;

	if (!file)
		return load_error(load, -errno, "%s: %s", load->options.tokens, strerror(errno));
	for (unsigned user = 0; !err && user < load->options.users; user++) {
		if (!fgets(line, sizeof(line), file))
			err = load_error(load, -ENODATA, "%s has tokens of %u users, %u are needed",
					 load->options.tokens, user, load->options.users);
		else
			err = subscribe_user(load, b, user, line);
	}
	fclose(file);
	return err;
}

static void bypass_close(struct load *load)
{
	struct bypass_load *b = load->state;

	if (!b)
		return;
	link_publisher_close(b->publisher);
	for (unsigned i = 0; b->subscriptions && i < load->receiver_cnt; i++)
		fan_subscription_close(b->subscriptions[i]);
	fan_bypass_close(b->link);
	free(b->subscriptions);
	free(b->handles);
	free(b);
}

static int bypass_open(struct load *load)
{
	const struct load_options *o = &load->options;
	struct fan_credential credential = {.name = o->publisher, .secret = o->secret};
	const struct fan_bypass_options options = {.socket = o->address,
						   .address = o->receive_address,
						   .ring_size = RING_SIZE,
						   .memory_mb = 192,
						   .huge_pages = 1};
	struct bypass_load *b = calloc(1, sizeof(*b));
	int err;

	if (!b || !o->address || !o->receive_address || !o->tokens || !o->publisher)
		return load_error(load, -EINVAL,
				  "--address, --receive-address, --tokens, --publisher, --secret "
				  "and --client-socket are needed");
	load->state = b;
	b->subscriptions = calloc(load->receiver_cnt, sizeof(struct fan_subscription *));
	b->handles = calloc(o->users, sizeof(*b->handles));
	if (!b->subscriptions || !b->handles)
		return load_error(load, -ENOMEM, "no memory for the receivers");
	err = fan_bypass_open(&b->link, &options);
	if (err)
		return load_error(load, err, "the link: %s", fan_error());
	err = subscribe_all(load, b);
	if (err)
		return err;
	err = link_publisher_open(&b->publisher, b->link, o->client_socket, &credential,
				  o->payload);
	return err ? load_error(load, err, "the publisher's session: %s", fan_error()) : 0;
}

static bool bypass_publish(struct load *load, const struct load_mark *mark)
{
	struct bypass_load *b = load->state;

	memcpy(load->payload, mark, sizeof(*mark));
	return link_publish(b->publisher, b->handles[mark->user], load->payload);
}

static void bypass_flush(struct load *load)
{
	link_publisher_flush(((struct bypass_load *)load->state)->publisher);
}

static void take(struct load *load, struct fan_subscription *subscription)
{
	unsigned receiver = (unsigned)fan_subscription_id(subscription) - 1;
	struct fan_event event;

	while (fan_receive(subscription, &event, 0) == 1) {
		if (event.type == FAN_EVENT_DATA)
			load_take(load, receiver, event.payload, event.payload_len);
		else if (event.type == FAN_EVENT_ENDED)
			load_error(load, -EPIPE, "receiver %u: %.*s", receiver + 1,
				   (int)event.payload_len, (const char *)event.payload);
	}
}

static void bypass_receive(struct load *load)
{
	struct bypass_load *b = load->state;
	struct fan_subscription *ready[READY_MAX];
	unsigned cnt = fan_bypass_poll(b->link, ready, READY_MAX);

	for (unsigned i = 0; i < cnt; i++)
		take(load, ready[i]);
	link_publisher_step(b->publisher, load->now_ns);
}

static const struct transport transport_bypass = {
	.name = "bypass",
	.open = bypass_open,
	.publish = bypass_publish,
	.flush = bypass_flush,
	.receive = bypass_receive,
	.close = bypass_close,
};
const struct transport *const load_transports[] = {&transport_bypass, NULL};
