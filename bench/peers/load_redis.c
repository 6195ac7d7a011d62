/* SPDX-License-Identifier: BSD-3-Clause */
/* Redis pub/sub (RESP2). The publisher has answers switched off, which is the fastest for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/peers/load_tcp.h"

static size_t redis_hello(uint8_t *out, unsigned connection, int user)
{
	(void)connection;
	if (user < 0)
		return (size_t)sprintf((char *)out, "PING\r\nCLIENT REPLY OFF\r\n");
	return (size_t)sprintf((char *)out, "SUBSCRIBE u%08d\r\n", user);
}

static bool redis_greeted(const uint8_t *in, size_t len, int user)
{
	if (user < 0)
		return len == 7 && memcmp(in, "+PONG\r\n", 7) == 0;
	return len > 6 && in[0] == '*' && memcmp(in + len - 4, ":1\r\n", 4) == 0;
}

static size_t redis_publish(uint8_t *out, unsigned user, const uint8_t *payload, size_t len)
{
	int head =
		sprintf((char *)out, "*3\r\n$7\r\nPUBLISH\r\n$9\r\nu%08u\r\n$%zu\r\n", user, len);

	memcpy(out + head, payload, len);
	memcpy(out + head + len, "\r\n", 2);
	return (size_t)head + len + 2;
}

/* *3 $7 message $9 u%08u $LEN payload: all but the payload has a fixed length up to LEN. */
static int redis_parse(const uint8_t *in, size_t len, const uint8_t **payload, size_t *payload_len)
{
	static const char head[] = "*3\r\n$7\r\nmessage\r\n$9\r\nu";
	const size_t fixed = sizeof(head) - 1 + 8 + 2; /* up to the '$' of the payload */
	char *end;
	size_t total;

	if (len < fixed + 8)
		return 0;
	if (memcmp(in, head, sizeof(head) - 1) != 0 || in[fixed] != '$')
		return -1;
	*payload_len = strtoul((const char *)in + fixed + 1, &end, 10);
	*payload = (const uint8_t *)end + 2;
	total = (size_t)(*payload - in) + *payload_len + 2;
	return total <= len ? (int)total : 0;
}

static const struct tcp_protocol redis = {
	.name = "Redis",
	.hello = redis_hello,
	.greeted = redis_greeted,
	.publish = redis_publish,
	.parse = redis_parse,
};

static int redis_open(struct load *load)
{
	return tcp_open(load, &redis);
}

const struct transport transport_redis = {
	.name = "redis",
	.open = redis_open,
	.publish = tcp_publish,
	.flush = tcp_flush,
	.receive = tcp_receive,
	.close = tcp_close,
};
