/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Brokers over TCP, each in its own protocol: one connection publishes, pipelined, without waiting
 * for an answer; one connection for each receiver has subscribed to its user's channel.
 */
#pragma once

#include "bench/peers/load.h"

#define TCP_OUT_MAX  (256 << 10)
#define TCP_REST_MAX 2048 /* longer than any message */

struct tcp_connection {
	int fd;
	unsigned receiver; /* the publisher's: UINT32_MAX */
	unsigned rest_len; /* of a message that is not complete yet */
	uint8_t rest[TCP_REST_MAX];
};

struct tcp_protocol {
	const char *name;
	/*
	 * Writes what a connection says first into out (4 KiB), returns its length; user: to
	 * subscribe to, or -1 for the publisher.
	 */
	size_t (*hello)(uint8_t *out, unsigned connection, int user);
	/* Whether the answers to hello are all in; a subscription is in force only then. */
	bool (*greeted)(const uint8_t *in, size_t len, int user);
	size_t (*publish)(uint8_t *out, unsigned user, const uint8_t *payload, size_t len);
	/*
	 * Looks at the start of what has come: the length of the message there, 0 where it is not
	 * complete, or -1 where it is none. A delivered event: *payload and *payload_len.
	 */
	int (*parse)(const uint8_t *in, size_t len, const uint8_t **payload, size_t *payload_len);
};

int tcp_open(struct load *load, const struct tcp_protocol *protocol);
bool tcp_publish(struct load *load, const struct load_mark *mark);
void tcp_flush(struct load *load);
void tcp_receive(struct load *load);
void tcp_close(struct load *load);
