/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/wire/wire.h"

#include <sodium.h>
#include <string.h>

_Static_assert(FAN_TAG_LEN == crypto_aead_aes256gcm_ABYTES, "AES-GCM tag");
_Static_assert(crypto_shorthash_siphash24_BYTES == 8, "filter tag");

#define FILTER_TAG_OFF 92
#define REPLAY_TAG_OFF 72
#define FLAGS_PUBLISH  (FAN_FLAG_BEGIN | FAN_FLAG_END)
#define FLAGS_DELIVERY (FLAGS_PUBLISH | FAN_FLAG_REPLAY)

static void put16(uint8_t *p, uint16_t v)
{
	v = __builtin_bswap16(v);
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, sizeof(v));
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap16(v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap32(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap64(v);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the accessors above swap always");

uint8_t fan_wire_type(const uint8_t *packet, size_t len, enum fan_wire_error *error)
{
	*error = FAN_WIRE_OK;
	if (len < 1)
		*error = FAN_WIRE_SHORT;
	else if (packet[0] != FAN_WIRE_VERSION)
		*error = FAN_WIRE_VERSION_UNKNOWN;
	else if (len < 2)
		*error = FAN_WIRE_SHORT;
	return *error == FAN_WIRE_OK ? packet[1] : 0;
}

/* Version, type and the length of the fixed header: what every decoder asks first. */
static enum fan_wire_error check_start(const uint8_t *packet, size_t len, uint8_t type,
				       size_t header_len)
{
	enum fan_wire_error error;
	uint8_t got = fan_wire_type(packet, len, &error);

	if (error != FAN_WIRE_OK)
		return error;
	if (got != type)
		return FAN_WIRE_TYPE_UNKNOWN;
	return len < header_len ? FAN_WIRE_SHORT : FAN_WIRE_OK;
}

static enum fan_wire_error check_len(size_t len, size_t wanted)
{
	if (len < wanted)
		return FAN_WIRE_SHORT;
	return len > wanted ? FAN_WIRE_LONG : FAN_WIRE_OK;
}

size_t fan_delivery_encode(uint8_t *packet, const struct fan_delivery *delivery)
{
	packet[0] = FAN_WIRE_VERSION;
	packet[1] = delivery->type;
	packet[2] = delivery->flags;
	packet[3] = delivery->key_generation;
	put16(packet + 4, delivery->payload_len);
	put16(packet + 6, delivery->kind);
	memcpy(packet + 8, delivery->handle, FAN_HANDLE_LEN);
	put64(packet + 24, delivery->channel);
	put64(packet + 32, delivery->epoch);
	put64(packet + 40, delivery->sequence);
	put64(packet + 48, delivery->time_ns);
	put32(packet + 56, delivery->user_generation);
	put64(packet + 60, delivery->session);
	put64(packet + 68, delivery->publisher_sequence);
	memcpy(packet + 76, delivery->seal_tag, FAN_TAG_LEN);
	memcpy(packet + FILTER_TAG_OFF, delivery->filter_tag, sizeof(delivery->filter_tag));
	return FAN_DELIVERY_LEN;
}

size_t fan_publish_encode(uint8_t *packet, const struct fan_publish *publish)
{
	packet[0] = FAN_WIRE_VERSION;
	packet[1] = FAN_TYPE_PUBLISH;
	packet[2] = publish->flags;
	packet[3] = 0;
	put16(packet + 4, publish->payload_len);
	put16(packet + 6, publish->kind);
	put64(packet + 8, publish->session);
	put64(packet + 16, publish->publisher_sequence);
	memcpy(packet + 24, publish->handle, FAN_HANDLE_LEN);
	put64(packet + 40, publish->channel);
	return FAN_PUBLISH_LEN;
}

size_t fan_ack_encode(uint8_t *packet, const struct fan_ack *ack)
{
	packet[0] = FAN_WIRE_VERSION;
	packet[1] = FAN_TYPE_ACK;
	packet[2] = ack->count;
	packet[3] = ack->flags;
	put32(packet + 4, ack->wait_ms);
	put64(packet + 8, ack->session);
	put64(packet + 16, ack->counter);
	return FAN_ACK_LEN;
}

size_t fan_result_encode(uint8_t *body, const struct fan_result *result)
{
	put64(body, result->publisher_sequence);
	put64(body + 8, result->epoch);
	put64(body + 16, result->sequence);
	put32(body + 24, result->attempted);
	put32(body + 28, result->sent);
	put16(body + 32, result->status);
	memset(body + 34, 0, 6);
	return FAN_ACK_RESULT_LEN;
}

size_t fan_echo_encode(uint8_t *packet, const struct fan_echo *echo)
{
	packet[0] = FAN_WIRE_VERSION;
	packet[1] = FAN_TYPE_ECHO;
	put16(packet + 2, 0);
	put32(packet + 4, 0);
	put64(packet + 8, echo->connection);
	put64(packet + 16, echo->salt);
	put64(packet + 24, echo->proof);
	put64(packet + 32, 0);
	return FAN_ECHO_LEN;
}

size_t fan_replay_encode(uint8_t *packet, const struct fan_replay *replay, const uint8_t key[16])
{
	packet[0] = FAN_WIRE_VERSION;
	packet[1] = FAN_TYPE_REPLAY;
	put16(packet + 2, 0);
	put32(packet + 4, 0);
	memcpy(packet + 8, replay->handle, FAN_HANDLE_LEN);
	put64(packet + 24, replay->connection);
	put64(packet + 32, replay->channel);
	put64(packet + 40, replay->epoch);
	put64(packet + 48, replay->first);
	put64(packet + 56, replay->last);
	put64(packet + 64, replay->counter);
	crypto_shorthash_siphash24(packet + REPLAY_TAG_OFF, packet, REPLAY_TAG_OFF, key);
	return FAN_REPLAY_LEN;
}

static bool is_delivery_type(uint8_t type)
{
	return type >= FAN_TYPE_DELIVERY && type <= FAN_TYPE_LOST;
}

enum fan_wire_error fan_delivery_decode(const uint8_t *packet, size_t len, struct fan_delivery *out)
{
	enum fan_wire_error error;
	uint8_t type = fan_wire_type(packet, len, &error);
	bool event = type == FAN_TYPE_DELIVERY;

	if (error != FAN_WIRE_OK)
		return error;
	if (!is_delivery_type(type))
		return FAN_WIRE_TYPE_UNKNOWN;
	if (len < FAN_DELIVERY_LEN)
		return FAN_WIRE_SHORT;
	if (packet[2] & ~(event ? FLAGS_DELIVERY : 0))
		return FAN_WIRE_FLAGS_UNKNOWN;
	uint16_t payload_len = get16(packet + 4);
	if (payload_len > (event ? FAN_PAYLOAD_MAX : 0))
		return FAN_WIRE_LENGTH;
	error = check_len(len, (size_t)FAN_DELIVERY_LEN + payload_len);
	if (error != FAN_WIRE_OK)
		return error;

	out->type = type;
	out->flags = packet[2];
	out->key_generation = packet[3];
	out->payload_len = payload_len;
	out->kind = get16(packet + 6);
	memcpy(out->handle, packet + 8, FAN_HANDLE_LEN);
	out->channel = get64(packet + 24);
	out->epoch = get64(packet + 32);
	out->sequence = get64(packet + 40);
	out->time_ns = get64(packet + 48);
	out->user_generation = get32(packet + 56);
	out->session = get64(packet + 60);
	out->publisher_sequence = get64(packet + 68);
	memcpy(out->seal_tag, packet + 76, FAN_TAG_LEN);
	memcpy(out->filter_tag, packet + FILTER_TAG_OFF, sizeof(out->filter_tag));
	return FAN_WIRE_OK;
}

enum fan_wire_error fan_publish_decode(const uint8_t *packet, size_t len, struct fan_publish *out)
{
	enum fan_wire_error error = check_start(packet, len, FAN_TYPE_PUBLISH, FAN_PUBLISH_LEN);

	if (error != FAN_WIRE_OK)
		return error;
	if ((packet[2] & ~FLAGS_PUBLISH) || packet[3] != 0)
		return FAN_WIRE_FLAGS_UNKNOWN;
	uint16_t payload_len = get16(packet + 4);
	if (payload_len > FAN_PAYLOAD_MAX)
		return FAN_WIRE_LENGTH;
	error = check_len(len, (size_t)FAN_PUBLISH_LEN + payload_len + FAN_TAG_LEN);
	if (error != FAN_WIRE_OK)
		return error;

	out->flags = packet[2];
	out->payload_len = payload_len;
	out->kind = get16(packet + 6);
	out->session = get64(packet + 8);
	out->publisher_sequence = get64(packet + 16);
	memcpy(out->handle, packet + 24, FAN_HANDLE_LEN);
	out->channel = get64(packet + 40);
	return FAN_WIRE_OK;
}

enum fan_wire_error fan_ack_decode(const uint8_t *packet, size_t len, struct fan_ack *out)
{
	enum fan_wire_error error = check_start(packet, len, FAN_TYPE_ACK, FAN_ACK_LEN);

	if (error != FAN_WIRE_OK)
		return error;
	if ((packet[3] & ~FAN_ACK_OVER_BUDGET) || (!packet[3] && get32(packet + 4) != 0))
		return FAN_WIRE_FLAGS_UNKNOWN;
	if (packet[2] > FAN_ACK_RESULT_MAX)
		return FAN_WIRE_LENGTH;
	error = check_len(len,
			  (size_t)FAN_ACK_LEN + 8 + packet[2] * FAN_ACK_RESULT_LEN + FAN_TAG_LEN);
	if (error != FAN_WIRE_OK)
		return error;

	out->count = packet[2];
	out->flags = packet[3];
	out->wait_ms = get32(packet + 4);
	out->session = get64(packet + 8);
	out->counter = get64(packet + 16);
	return FAN_WIRE_OK;
}

enum fan_wire_error fan_echo_decode(const uint8_t *packet, size_t len, struct fan_echo *out)
{
	enum fan_wire_error error = check_start(packet, len, FAN_TYPE_ECHO, FAN_ECHO_LEN);

	if (error != FAN_WIRE_OK)
		return error;
	if (get16(packet + 2) != 0 || get32(packet + 4) != 0 || get64(packet + 32) != 0)
		return FAN_WIRE_FLAGS_UNKNOWN;
	error = check_len(len, FAN_ECHO_LEN);
	if (error != FAN_WIRE_OK)
		return error;

	out->connection = get64(packet + 8);
	out->salt = get64(packet + 16);
	out->proof = get64(packet + 24);
	return FAN_WIRE_OK;
}

enum fan_wire_error fan_replay_decode(const uint8_t *packet, size_t len, struct fan_replay *out)
{
	enum fan_wire_error error = check_start(packet, len, FAN_TYPE_REPLAY, FAN_REPLAY_LEN);

	if (error != FAN_WIRE_OK)
		return error;
	if (get16(packet + 2) != 0 || get32(packet + 4) != 0)
		return FAN_WIRE_FLAGS_UNKNOWN;
	error = check_len(len, FAN_REPLAY_LEN);
	if (error != FAN_WIRE_OK)
		return error;
	if (get64(packet + 48) == 0 || get64(packet + 48) > get64(packet + 56))
		return FAN_WIRE_LENGTH;

	memcpy(out->handle, packet + 8, FAN_HANDLE_LEN);
	out->connection = get64(packet + 24);
	out->channel = get64(packet + 32);
	out->epoch = get64(packet + 40);
	out->first = get64(packet + 48);
	out->last = get64(packet + 56);
	out->counter = get64(packet + 64);
	return FAN_WIRE_OK;
}

void fan_result_decode(const uint8_t *body, unsigned idx, struct fan_result *out)
{
	const uint8_t *p = body + 8 + (size_t)idx * FAN_ACK_RESULT_LEN;

	out->publisher_sequence = get64(p);
	out->epoch = get64(p + 8);
	out->sequence = get64(p + 16);
	out->attempted = get32(p + 24);
	out->sent = get32(p + 28);
	out->status = get16(p + 32);
}

void fan_nonce(uint8_t nonce[FAN_NONCE_LEN], uint32_t direction, uint64_t counter)
{
	put32(nonce, direction);
	put64(nonce + 4, counter);
}

void fan_filter_tag(uint8_t *packet, const uint8_t key[16])
{
	crypto_shorthash_siphash24(packet + FILTER_TAG_OFF, packet, FILTER_TAG_OFF, key);
}

/* Of all bytes before it. One comparison of one word tells nothing by its time. */
static bool tag_ok(const uint8_t *packet, size_t tag_off, const uint8_t key[16])
{
	uint64_t made, given;
	uint8_t tag[crypto_shorthash_siphash24_BYTES];

	crypto_shorthash_siphash24(tag, packet, tag_off, key);
	memcpy(&made, tag, sizeof(made));
	memcpy(&given, packet + tag_off, sizeof(given));
	return made == given;
}

bool fan_filter_tag_ok(const uint8_t *packet, const uint8_t key[16])
{
	return tag_ok(packet, FILTER_TAG_OFF, key);
}

bool fan_replay_tag_ok(const uint8_t *packet, const uint8_t key[16])
{
	return tag_ok(packet, REPLAY_TAG_OFF, key);
}

void fan_sealed_header(uint8_t header[FAN_SEALED_HEADER_LEN], const uint8_t *packet)
{
	memcpy(header, packet, FAN_SEALED_HEADER_LEN);
	header[2] &= (uint8_t)~FAN_FLAG_REPLAY;
}

bool fan_channel_ok(uint64_t channel)
{
	switch (channel & FAN_CHANNEL_KIND_MASK) {
	case FAN_CHANNEL_ALL:
		return channel == FAN_CHANNEL_ALL;
	case FAN_CHANNEL_THREAD:
		return true;
	case FAN_CHANNEL_SINGLE:
		return (channel & FAN_CONNECTION_ID_MASK) != 0; /* ids start at 1 */
	default:
		return false;
	}
}

const char *fan_wire_error_name(enum fan_wire_error error)
{
	switch (error) {
	case FAN_WIRE_OK:
		return "ok";
	case FAN_WIRE_SHORT:
		return "short";
	case FAN_WIRE_LONG:
		return "long";
	case FAN_WIRE_VERSION_UNKNOWN:
		return "version";
	case FAN_WIRE_TYPE_UNKNOWN:
		return "type";
	case FAN_WIRE_FLAGS_UNKNOWN:
		return "flags";
	case FAN_WIRE_LENGTH:
		return "length";
	}
	return "unknown";
}

const char *fan_result_status_name(uint16_t status)
{
	switch ((enum fan_result_status)status) {
	case FAN_RESULT_OK:
		return "ok";
	case FAN_RESULT_NO_GROUP:
		return "no_group";
	case FAN_RESULT_SCOPE:
		return "scope";
	case FAN_RESULT_TOO_LARGE:
		return "too_large";
	case FAN_RESULT_INTERRUPTED:
		return "interrupted";
	case FAN_RESULT_EXPIRED:
		return "expired";
	case FAN_RESULT_CHANNEL:
		return "channel";
	case FAN_RESULT_UNATTENDED:
		return "unattended";
	}
	return "unknown";
}
