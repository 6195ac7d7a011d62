/* SPDX-License-Identifier: BSD-3-Clause */
/* MQTT 3.1.1 at QoS 0, as far as a broker's fan-out needs it. */
#include <stdio.h>
#include <string.h>

#include "bench/peers/load_tcp.h"

#define TOPIC_LEN 9

static size_t packet_head(uint8_t *out, uint8_t type, size_t rest)
{
	size_t len = 0;

	out[len++] = type;
	do {
		out[len++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
		rest >>= 7;
	} while (rest);
	return len;
}

static size_t text_put(uint8_t *out, const char *text)
{
	size_t len = strlen(text);

	out[0] = (uint8_t)(len >> 8);
	out[1] = (uint8_t)len;
	memcpy(out + 2, text, len);
	return 2 + len;
}

static size_t mqtt_hello(uint8_t *out, unsigned connection, int user)
{
	static const uint8_t variable[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2 /* clean */, 0, 0};
	char id[24], topic[16];
	size_t len;

	snprintf(id, sizeof(id), "fanwire-bench-%08x", connection);
	snprintf(topic, sizeof(topic), "u%08d", user);
	len = packet_head(out, 0x10, sizeof(variable) + 2 + strlen(id));
	memcpy(out + len, variable, sizeof(variable));
	len += sizeof(variable);
	len += text_put(out + len, id);
	if (user < 0)
		return len;
	len += packet_head(out + len, 0x82, 2 + 2 + TOPIC_LEN + 1);
	out[len++] = 0; /* packet 1 */
	out[len++] = 1;
	len += text_put(out + len, topic);
	out[len++] = 0; /* QoS 0 */
	return len;
}

/* CONNACK (4 bytes), then SUBACK (5). */
static bool mqtt_greeted(const uint8_t *in, size_t len, int user)
{
	return len >= (user < 0 ? 4u : 9u) && in[0] == 0x20 && in[3] == 0;
}

static size_t mqtt_publish(uint8_t *out, unsigned user, const uint8_t *payload, size_t len)
{
	size_t head = packet_head(out, 0x30, 2 + TOPIC_LEN + len);
	char topic[16];

	snprintf(topic, sizeof(topic), "u%08u", user);
	head += text_put(out + head, topic);
	memcpy(out + head, payload, len);
	return head + len;
}

static int mqtt_parse(const uint8_t *in, size_t len, const uint8_t **payload, size_t *payload_len)
{
	size_t rest = 0, head = 1;
	unsigned shift = 0;

	do {
		if (head >= len)
			return 0;
		rest |= (size_t)(in[head] & 0x7f) << shift;
		shift += 7;
	} while (in[head++] & 0x80 && shift < 28);
	if (head + rest > TCP_REST_MAX)
		return -1;
	if (head + rest > len)
		return 0;
	if ((in[0] & 0xf0) == 0x30 && rest >= 2 + TOPIC_LEN) {
		*payload = in + head + 2 + TOPIC_LEN;
		*payload_len = rest - 2 - TOPIC_LEN;
	}
	return (int)(head + rest);
}

static const struct tcp_protocol mqtt = {
	.name = "mosquitto",
	.hello = mqtt_hello,
	.greeted = mqtt_greeted,
	.publish = mqtt_publish,
	.parse = mqtt_parse,
};

static int mqtt_open(struct load *load)
{
	return tcp_open(load, &mqtt);
}

const struct transport transport_mqtt = {
	.name = "mqtt",
	.open = mqtt_open,
	.publish = tcp_publish,
	.flush = tcp_flush,
	.receive = tcp_receive,
	.close = tcp_close,
};
