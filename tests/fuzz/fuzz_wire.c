/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every decoder on any bytes: none reads outside, at most one accepts, and what one accepts encodes
 * to the same header again, its length accounted for to the byte.
 */
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* The seal covers each byte before itself, but for the replay mark. */
static void check_sealed_header(const uint8_t *data)
{
	uint8_t sealed[FAN_SEALED_HEADER_LEN], first[FAN_DELIVERY_LEN];

	memcpy(first, data, FAN_DELIVERY_LEN);
	first[2] &= (uint8_t)~FAN_FLAG_REPLAY;
	fan_sealed_header(sealed, data);
	require(memcmp(sealed, first, FAN_SEALED_HEADER_LEN) == 0);
}

static unsigned try_delivery(const uint8_t *data, size_t len)
{
	uint8_t again[FAN_DELIVERY_LEN];
	struct fan_delivery delivery;

	if (fan_delivery_decode(data, len, &delivery) != FAN_WIRE_OK)
		return 0;
	require(fan_delivery_encode(again, &delivery) == FAN_DELIVERY_LEN);
	require(memcmp(again, data, FAN_DELIVERY_LEN) == 0);
	require(len == (size_t)FAN_DELIVERY_LEN + delivery.payload_len);
	require(delivery.type == FAN_TYPE_DELIVERY || (len == FAN_DELIVERY_LEN && !delivery.flags));
	check_sealed_header(data);
	fan_filter_tag(again, delivery.handle);
	require(fan_filter_tag_ok(again, delivery.handle));
	return 1;
}

static unsigned try_publish(const uint8_t *data, size_t len)
{
	uint8_t again[FAN_PUBLISH_LEN];
	struct fan_publish publish;

	if (fan_publish_decode(data, len, &publish) != FAN_WIRE_OK)
		return 0;
	require(fan_publish_encode(again, &publish) == FAN_PUBLISH_LEN);
	require(memcmp(again, data, FAN_PUBLISH_LEN) == 0);
	require(len == (size_t)FAN_PUBLISH_LEN + publish.payload_len + FAN_TAG_LEN);
	(void)fan_channel_ok(publish.channel);
	return 1;
}

static unsigned try_ack(const uint8_t *data, size_t len)
{
	uint8_t again[FAN_ACK_RESULT_LEN];
	struct fan_result result;
	struct fan_ack ack;

	if (fan_ack_decode(data, len, &ack) != FAN_WIRE_OK)
		return 0;
	require(fan_ack_encode(again, &ack) == FAN_ACK_LEN);
	require(memcmp(again, data, FAN_ACK_LEN) == 0);
	require(len == (size_t)FAN_ACK_LEN + 8 + ack.count * FAN_ACK_RESULT_LEN + FAN_TAG_LEN);
	for (unsigned i = 0; i < ack.count; i++) { /* as if it had been opened */
		const uint8_t *at = data + FAN_ACK_LEN + 8 + i * FAN_ACK_RESULT_LEN;

		fan_result_decode(data + FAN_ACK_LEN, i, &result);
		require(fan_result_encode(again, &result) == FAN_ACK_RESULT_LEN);
		require(memcmp(again, at, 34) == 0); /* then six bytes that are ignored */
		require(fan_result_status_name(result.status) != NULL);
	}
	return 1;
}

static unsigned try_echo(const uint8_t *data, size_t len)
{
	uint8_t again[FAN_ECHO_LEN];
	struct fan_echo echo;

	if (fan_echo_decode(data, len, &echo) != FAN_WIRE_OK)
		return 0;
	require(len == FAN_ECHO_LEN);
	require(fan_echo_encode(again, &echo) == FAN_ECHO_LEN);
	require(memcmp(again, data, FAN_ECHO_LEN) == 0);
	return 1;
}

static unsigned try_replay(const uint8_t *data, size_t len)
{
	static const uint8_t key[16] = "of a connection";
	uint8_t again[FAN_REPLAY_LEN];
	struct fan_replay replay;

	if (fan_replay_decode(data, len, &replay) != FAN_WIRE_OK)
		return 0;
	require(len == FAN_REPLAY_LEN);
	require(replay.first >= 1 && replay.last >= replay.first);
	require(fan_replay_encode(again, &replay, key) == FAN_REPLAY_LEN);
	require(memcmp(again, data, FAN_REPLAY_LEN - 8) == 0);
	require(fan_replay_tag_ok(again, key));
	require(fan_replay_tag_ok(data, key) == (memcmp(again, data, FAN_REPLAY_LEN) == 0));
	return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum fan_wire_error error;
	uint8_t type = fan_wire_type(data, len, &error);
	unsigned accepted = try_delivery(data, len) + try_publish(data, len) + try_ack(data, len) +
			    try_echo(data, len) + try_replay(data, len);

	require(accepted <= 1);
	require(accepted == 0 || (error == FAN_WIRE_OK && type == data[1]));
	return 0;
}
