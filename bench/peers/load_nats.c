/* SPDX-License-Identifier: BSD-3-Clause */
/* NATS, its text protocol: CONNECT without confirmations, SUB, PUB, MSG. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/load_tcp.h"

#define CONNECT "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"fanwire-bench\"}\r\n"

static size_t nats_hello(uint8_t *out, unsigned connection, int user)
{
	(void)connection;
	if (user < 0)
		return (size_t)sprintf((char *)out, CONNECT "PING\r\n");
	return (size_t)sprintf((char *)out, CONNECT "SUB u%08d 1\r\nPING\r\n", user);
}

/* The server speaks first (INFO), and answers in order: after PONG, SUB is in force. */
static bool nats_greeted(const uint8_t *in, size_t len, int user)
{
	(void)user;
	return len >= 6 && memcmp(in + len - 6, "PONG\r\n", 6) == 0;
}

static size_t nats_publish(uint8_t *out, unsigned user, const uint8_t *payload, size_t len)
{
	int head = sprintf((char *)out, "PUB u%08u %zu\r\n", user, len);

	memcpy(out + head, payload, len);
	memcpy(out + head + len, "\r\n", 2);
	return (size_t)head + len + 2;
}

/* MSG u%08u SID LEN\r\n payload \r\n; now and then an INFO, or a PING, which one may leave
 * unanswered for minutes. */
static int nats_parse(const uint8_t *in, size_t len, const uint8_t **payload, size_t *payload_len)
{
	const uint8_t *line_end = memchr(in, '\n', len);
	const char *space;
	size_t line, total;

	if (!line_end)
		return len > 4096 ? -1 : 0;
	line = (size_t)(line_end - in) + 1;
	if (memcmp(in, "MSG ", 4) != 0)
		return in[0] == '-' ? -1 : (int)line;
	space = memrchr(in, ' ', line);
	*payload_len = strtoul(space + 1, NULL, 10);
	*payload = line_end + 1;
	total = line + *payload_len + 2;
	return total <= len ? (int)total : 0;
}

static const struct tcp_protocol nats = {
	.name = "NATS",
	.hello = nats_hello,
	.greeted = nats_greeted,
	.publish = nats_publish,
	.parse = nats_parse,
};

static int nats_open(struct load *load)
{
	return tcp_open(load, &nats);
}

const struct transport transport_nats = {
	.name = "nats",
	.open = nats_open,
	.publish = tcp_publish,
	.flush = tcp_flush,
	.receive = tcp_receive,
	.close = tcp_close,
};
