/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fanwire: every receiver is registered through client.sock, so its socket is scoped; events are
 * published sealed, by a session that a credential opened.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "bench/peers/flat_publisher.h"
#include "bench/peers/receivers.h"
#include "client/fanwire.h"
#include "common/wire/wire.h"

struct fanwire {
	struct receivers receivers;
	struct fan_subscription **subscriptions; /* of receiver i */
	struct flat_publisher *publisher;
	uint8_t (*handles)[FAN_HANDLE_LEN]; /* of users */
};

/* A line of the tokens' file is a user's name and his token. */
static int subscribe_user(struct load *load, struct fanwire *fw, unsigned user, char *line)
{
	char *name = strtok(line, " \n"), *token = strtok(NULL, " \n");
	struct fan_subscribe_options options = {.token = token, .family = 4, .timeout_ms = 20000};

	if (!name || !token || fan_handle(fw->handles[user], name, strlen(name)) < 0)
		return load_error(load, -EINVAL, "%s: line %u is no user and token",
				  load->options.tokens, user + 1);
	for (unsigned i = 0; i < load->options.fanout; i++) {
		unsigned idx = user * load->options.fanout + i;
		int err = fan_subscribe(&fw->subscriptions[idx], load->options.client_socket,
					&options);

		if (err)
			return load_error(load, err, "receiver %u of %u: %s", idx + 1,
					  load->receiver_cnt, fan_error());
		fw->receivers.fds[idx] = fan_subscription_socket(fw->subscriptions[idx]);
		/* it is read in turn, as plain sockets are: no epoll set is told of each datagram
		 */
		epoll_ctl(fan_subscription_fd(fw->subscriptions[idx]), EPOLL_CTL_DEL,
			  fw->receivers.fds[idx], NULL);
	}
	return 0;
}

static int subscribe_all(struct load *load, struct fanwire *fw)
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
			err = subscribe_user(load, fw, user, line);
	}
	fclose(file);
	return err;
}

static void fanwire_close(struct load *load)
{
	struct fanwire *fw = load->state;

	if (!fw)
		return;
	flat_publisher_close(fw->publisher);
	for (unsigned i = 0; fw->subscriptions && i < load->receiver_cnt; i++)
		if (fw->subscriptions[i])
			fan_subscription_close(fw->subscriptions[i]);
	receivers_fini(&fw->receivers);
	free(fw->subscriptions);
	free(fw->handles);
	free(fw);
}

static int fanwire_open(struct load *load)
{
	const struct load_options *o = &load->options;
	const struct fan_credential credential = {.name = o->publisher, .secret = o->secret};
	struct fanwire *fw = load->state = calloc(1, sizeof(*fw));
	int err;

	if (!fw)
		return load_error(load, -ENOMEM, "no memory");
	fw->handles = calloc(o->users, sizeof(*fw->handles));
	fw->subscriptions = calloc(load->receiver_cnt, sizeof(*fw->subscriptions));
	err = receivers_init(&fw->receivers, load->receiver_cnt, FAN_DELIVERY_LEN);
	if (err || !fw->handles || !fw->subscriptions)
		return load_error(load, -ENOMEM, "no memory for the receiving sockets");
	err = subscribe_all(load, fw);
	if (err)
		return err;
	err = flat_publisher_open(&fw->publisher, o->client_socket, &credential, o->payload);
	return err ? load_error(load, err, "the publisher's session: %s", fan_error()) : 0;
}

static bool fanwire_publish(struct load *load, const struct load_mark *mark)
{
	struct fanwire *fw = load->state;

	memcpy(load->payload, mark, sizeof(*mark));
	return flat_publish(fw->publisher, fw->handles[mark->user], load->payload);
}

static void fanwire_flush(struct load *load)
{
	struct fanwire *fw = load->state;
	int err = flat_publisher_flush(fw->publisher);

	if (err)
		load_error(load, err, "publishes could not be sent: %s", strerror(-err));
}

static void fanwire_receive(struct load *load)
{
	struct fanwire *fw = load->state;

	flat_publisher_step(fw->publisher, load->now_ns);
	receivers_poll(load, &fw->receivers);
}

const struct transport transport_fanwire = {
	.name = "fanwire",
	.open = fanwire_open,
	.publish = fanwire_publish,
	.flush = fanwire_flush,
	.receive = fanwire_receive,
	.close = fanwire_close,
};
