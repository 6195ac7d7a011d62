/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <sodium.h>
#include <string.h>

#include "common/wire/wire.h"

static const uint8_t KEY[16] = "a test's tag key";

static void init(void)
{
	cr_assert_geq(sodium_init(), 0);
}
TestSuite(wire, .init = init);

static struct fan_delivery sample_delivery(void)
{
	struct fan_delivery d = {
		.type = FAN_TYPE_DELIVERY,
		.flags = FAN_FLAG_BEGIN | FAN_FLAG_END | FAN_FLAG_REPLAY,
		.key_generation = 0x81,
		.payload_len = 11,
		.kind = 0xfedc,
		.channel = FAN_CHANNEL_THREAD | 0x123456789abcdef,
		.epoch = 0xf1e2d3c4b5a69788,
		.sequence = 0x8000000000000001,
		.time_ns = 0x1122334455667788,
		.user_generation = 0xcafebabe,
		.session = 0x99aabbccddeeff01,
		.publisher_sequence = 0xff00ff00ff00ff00,
	};

	randombytes_buf(d.handle, sizeof(d.handle));
	randombytes_buf(d.seal_tag, sizeof(d.seal_tag));
	randombytes_buf(d.filter_tag, sizeof(d.filter_tag));
	return d;
}

/* Field by field: the structs have padding. */
static void expect_same_delivery(const struct fan_delivery *a, const struct fan_delivery *b)
{
	cr_expect_eq(a->type, b->type);
	cr_expect_eq(a->flags, b->flags);
	cr_expect_eq(a->key_generation, b->key_generation);
	cr_expect_eq(a->payload_len, b->payload_len);
	cr_expect_eq(a->kind, b->kind);
	cr_expect_arr_eq(a->handle, b->handle, sizeof(a->handle));
	cr_expect_eq(a->channel, b->channel);
	cr_expect_eq(a->epoch, b->epoch);
	cr_expect_eq(a->sequence, b->sequence);
	cr_expect_eq(a->time_ns, b->time_ns);
	cr_expect_eq(a->user_generation, b->user_generation);
	cr_expect_eq(a->session, b->session);
	cr_expect_eq(a->publisher_sequence, b->publisher_sequence);
	cr_expect_arr_eq(a->seal_tag, b->seal_tag, sizeof(a->seal_tag));
	cr_expect_arr_eq(a->filter_tag, b->filter_tag, sizeof(a->filter_tag));
}

Test(wire, delivery_comes_back)
{
	struct fan_delivery d = sample_delivery(), back;
	uint8_t packet[FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX] = {0};

	cr_assert_eq(fan_delivery_encode(packet, &d), FAN_DELIVERY_LEN);
	cr_assert_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN + 11, &back), FAN_WIRE_OK);
	expect_same_delivery(&d, &back);

	d.payload_len = FAN_PAYLOAD_MAX;
	fan_delivery_encode(packet, &d);
	cr_assert_eq(fan_delivery_decode(packet, sizeof(packet), &back), FAN_WIRE_OK);
	cr_expect_eq(back.payload_len, FAN_PAYLOAD_MAX);
}

Test(wire, challenge_and_status_have_neither_payload_nor_flags)
{
	static const uint8_t types[] = {FAN_TYPE_CHALLENGE, FAN_TYPE_STATUS};
	uint8_t packet[FAN_DELIVERY_LEN + 1] = {0};

	for (unsigned i = 0; i < sizeof(types); i++) {
		struct fan_delivery d = sample_delivery(), back;

		d.type = types[i];
		d.flags = 0;
		d.payload_len = 0;
		fan_delivery_encode(packet, &d);
		cr_assert_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN, &back), FAN_WIRE_OK);
		expect_same_delivery(&d, &back);

		packet[5] = 1;
		cr_expect_eq(fan_delivery_decode(packet, sizeof(packet), &back), FAN_WIRE_LENGTH);
		packet[5] = 0;
		packet[2] = FAN_FLAG_END;
		cr_expect_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN, &back),
			     FAN_WIRE_FLAGS_UNKNOWN);
	}
}

Test(wire, publish_comes_back)
{
	struct fan_publish p = {.flags = FAN_FLAG_END,
				.payload_len = 3,
				.kind = 0x8001,
				.session = 0xa1b2c3d4e5f60718,
				.publisher_sequence = 0x8877665544332211,
				.channel = FAN_CHANNEL_SINGLE | 5};
	uint8_t packet[FAN_PUBLISH_LEN + 3 + FAN_TAG_LEN] = {0};
	struct fan_publish back;

	randombytes_buf(p.handle, sizeof(p.handle));
	cr_assert_eq(fan_publish_encode(packet, &p), FAN_PUBLISH_LEN);
	cr_assert_eq(fan_publish_decode(packet, sizeof(packet), &back), FAN_WIRE_OK);
	cr_expect_eq(back.flags, p.flags);
	cr_expect_eq(back.payload_len, p.payload_len);
	cr_expect_eq(back.kind, p.kind);
	cr_expect_eq(back.session, p.session);
	cr_expect_eq(back.publisher_sequence, p.publisher_sequence);
	cr_expect_arr_eq(back.handle, p.handle, sizeof(p.handle));
	cr_expect_eq(back.channel, p.channel);
}

Test(wire, acknowledgement_and_results_come_back)
{
	struct fan_ack ack = {.count = 2,
			      .flags = FAN_ACK_OVER_BUDGET,
			      .wait_ms = 0x01020304,
			      .session = 0xa1b2c3d4e5f60718,
			      .counter = UINT64_MAX};
	struct fan_result results[2] = {
		{1, 2, 3, 4, 5, FAN_RESULT_UNATTENDED},
		{UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2, UINT32_MAX, UINT32_MAX - 1, 0xabcd},
	};
	uint8_t packet[FAN_ACK_LEN + 8 + 2 * FAN_ACK_RESULT_LEN + FAN_TAG_LEN] = {0};
	uint8_t *body = packet + FAN_ACK_LEN;
	struct fan_result got;
	struct fan_ack back;

	cr_assert_eq(fan_ack_encode(packet, &ack), FAN_ACK_LEN);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(fan_result_encode(body + 8 + i * FAN_ACK_RESULT_LEN, &results[i]),
			     FAN_ACK_RESULT_LEN);
	cr_assert_eq(fan_ack_decode(packet, sizeof(packet), &back), FAN_WIRE_OK);
	cr_expect_eq(back.count, ack.count);
	cr_expect_eq(back.flags, ack.flags);
	cr_expect_eq(back.wait_ms, ack.wait_ms);
	cr_expect_eq(back.session, ack.session);
	cr_expect_eq(back.counter, ack.counter);
	for (unsigned i = 0; i < 2; i++) {
		fan_result_decode(body, i, &got);
		cr_expect_eq(got.publisher_sequence, results[i].publisher_sequence);
		cr_expect_eq(got.epoch, results[i].epoch);
		cr_expect_eq(got.sequence, results[i].sequence);
		cr_expect_eq(got.attempted, results[i].attempted);
		cr_expect_eq(got.sent, results[i].sent);
		cr_expect_eq(got.status, results[i].status);
	}
}

Test(wire, echo_comes_back)
{
	struct fan_echo echo = {0x0123456789abcdef, 0xfedcba9876543210, 0x1020304050607080}, back;
	uint8_t packet[FAN_ECHO_LEN];

	cr_assert_eq(fan_echo_encode(packet, &echo), FAN_ECHO_LEN);
	cr_assert_eq(fan_echo_decode(packet, sizeof(packet), &back), FAN_WIRE_OK);
	cr_expect_eq(back.connection, echo.connection);
	cr_expect_eq(back.salt, echo.salt);
	cr_expect_eq(back.proof, echo.proof);
}

/* ---- what every decoder refuses ---- */

union decoded {
	struct fan_delivery delivery;
	struct fan_publish publish;
	struct fan_ack ack;
	struct fan_echo echo;
};

static enum fan_wire_error decode(uint8_t type, const uint8_t *packet, size_t len,
				  union decoded *out)
{
	switch (type) {
	case FAN_TYPE_PUBLISH:
		return fan_publish_decode(packet, len, &out->publish);
	case FAN_TYPE_ACK:
		return fan_ack_decode(packet, len, &out->ack);
	case FAN_TYPE_ECHO:
		return fan_echo_decode(packet, len, &out->echo);
	default:
		return fan_delivery_decode(packet, len, &out->delivery);
	}
}

static const uint8_t TYPES[] = {FAN_TYPE_PUBLISH,  FAN_TYPE_ACK,       FAN_TYPE_ECHO,
				FAN_TYPE_DELIVERY, FAN_TYPE_CHALLENGE, FAN_TYPE_STATUS};
#define TYPE_CNT (sizeof(TYPES) / sizeof(TYPES[0]))

/* A valid message of the type, with payload where it can have one. Returns its length. */
static size_t make(uint8_t type, uint8_t *packet)
{
	struct fan_delivery d = sample_delivery();
	struct fan_publish p = {.payload_len = 7, .session = 1, .publisher_sequence = 1};
	struct fan_ack ack = {.count = 3, .session = 1, .counter = 1};
	struct fan_echo echo = {1, 2, 3};

	switch (type) {
	case FAN_TYPE_PUBLISH:
		return fan_publish_encode(packet, &p) + 7 + FAN_TAG_LEN;
	case FAN_TYPE_ACK:
		return fan_ack_encode(packet, &ack) + 8 + 3 * FAN_ACK_RESULT_LEN + FAN_TAG_LEN;
	case FAN_TYPE_ECHO:
		return fan_echo_encode(packet, &echo);
	default:
		d.type = type;
		if (type != FAN_TYPE_DELIVERY)
			d.flags = 0, d.payload_len = 0;
		return fan_delivery_encode(packet, &d) + d.payload_len;
	}
}

Test(wire, every_truncation_and_any_trailing_byte_is_refused)
{
	for (unsigned t = 0; t < TYPE_CNT; t++) {
		uint8_t packet[512] = {0};
		size_t len = make(TYPES[t], packet);
		union decoded out, before;

		memset(&out, 0x5a, sizeof(out));
		before = out;
		for (size_t cut = 0; cut < len; cut++) {
			/* a block of its own, so that a sanitizer sees a read behind the end */
			uint8_t *exact = malloc(cut ? cut : 1);

			memcpy(exact, packet, cut);
			cr_expect_eq(decode(TYPES[t], exact, cut, &out), FAN_WIRE_SHORT,
				     "type %02x cut to %zu", TYPES[t], cut);
			free(exact);
		}
		cr_expect_eq(decode(TYPES[t], packet, len + 1, &out), FAN_WIRE_LONG);
		cr_expect_eq(decode(TYPES[t], packet, sizeof(packet), &out), FAN_WIRE_LONG);
		cr_expect_arr_eq(&out, &before, sizeof(out), "a refused message changed *out");
		cr_expect_eq(decode(TYPES[t], packet, len, &out), FAN_WIRE_OK);
	}
}

Test(wire, every_other_version_is_refused)
{
	union decoded out;

	for (unsigned t = 0; t < TYPE_CNT; t++) {
		uint8_t packet[512] = {0};
		size_t len = make(TYPES[t], packet);

		for (unsigned version = 0; version < 256; version++) {
			enum fan_wire_error error;

			packet[0] = (uint8_t)version;
			if (version == FAN_WIRE_VERSION)
				continue;
			cr_expect_eq(decode(TYPES[t], packet, len, &out), FAN_WIRE_VERSION_UNKNOWN);
			cr_expect_eq(fan_wire_type(packet, len, &error), 0);
			cr_expect_eq(error, FAN_WIRE_VERSION_UNKNOWN);
		}
	}
}

static bool is_subscribers(uint8_t type)
{
	return type >= FAN_TYPE_DELIVERY && type <= FAN_TYPE_LOST;
}

Test(wire, every_other_type_is_refused)
{
	union decoded out;

	for (unsigned t = 0; t < TYPE_CNT; t++) {
		uint8_t packet[512] = {0};
		size_t len = make(TYPES[t], packet);

		for (unsigned type = 0; type < 256; type++) {
			packet[1] = (uint8_t)type;
			if (type == TYPES[t] ||
			    (is_subscribers(TYPES[t]) && is_subscribers((uint8_t)type)))
				continue;
			cr_expect_eq(decode(TYPES[t], packet, len, &out), FAN_WIRE_TYPE_UNKNOWN,
				     "type %02x for %02x", type, TYPES[t]);
		}
	}
}

Test(wire, every_unknown_flag_and_reserved_bit_is_refused)
{
	/* bits of bytes 2.. that a message may have set; what is not listed must be zero */
	static const struct {
		uint8_t type, first, last, allowed;
	} rows[] = {
		{FAN_TYPE_PUBLISH, 2, 2, FAN_FLAG_BEGIN | FAN_FLAG_END},
		{FAN_TYPE_PUBLISH, 3, 3, 0},
		{FAN_TYPE_ACK, 3, 3, FAN_ACK_OVER_BUDGET},
		{FAN_TYPE_ACK, 4, 7, 0}, /* without that flag */
		{FAN_TYPE_ECHO, 2, 7, 0},
		{FAN_TYPE_ECHO, 32, 39, 0},
		{FAN_TYPE_DELIVERY, 2, 2, FAN_FLAG_BEGIN | FAN_FLAG_END | FAN_FLAG_REPLAY},
		{FAN_TYPE_CHALLENGE, 2, 2, 0},
		{FAN_TYPE_STATUS, 2, 2, 0},
	};
	union decoded out;

	for (unsigned r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (unsigned bit = 0; bit < 8u * (rows[r].last - rows[r].first + 1u); bit++) {
			uint8_t packet[512] = {0};
			size_t len = make(rows[r].type, packet);
			bool allowed = rows[r].allowed & (1u << (bit % 8));

			packet[rows[r].first + bit / 8] |= (uint8_t)(1u << (bit % 8));
			cr_expect_eq(decode(rows[r].type, packet, len, &out),
				     allowed ? FAN_WIRE_OK : FAN_WIRE_FLAGS_UNKNOWN,
				     "type %02x byte %u bit %u", rows[r].type,
				     rows[r].first + bit / 8, bit % 8);
		}
	}
}

Test(wire, lengths_over_their_limit_are_refused)
{
	static uint8_t packet[65536];
	union decoded out;
	size_t len;

	memset(packet, 0, sizeof(packet));
	make(FAN_TYPE_DELIVERY, packet);
	for (unsigned n = FAN_PAYLOAD_MAX + 1; n < 65536 - FAN_DELIVERY_LEN; n += 97) {
		packet[4] = (uint8_t)(n >> 8);
		packet[5] = (uint8_t)n;
		cr_expect_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN + n, &out.delivery),
			     FAN_WIRE_LENGTH);
	}
	make(FAN_TYPE_PUBLISH, packet);
	packet[4] = (FAN_PAYLOAD_MAX + 1) >> 8;
	packet[5] = (FAN_PAYLOAD_MAX + 1) & 0xff;
	len = FAN_PUBLISH_LEN + FAN_PAYLOAD_MAX + 1 + FAN_TAG_LEN;
	cr_expect_eq(fan_publish_decode(packet, len, &out.publish), FAN_WIRE_LENGTH);
	make(FAN_TYPE_ACK, packet);
	packet[2] = FAN_ACK_RESULT_MAX + 1;
	len = FAN_ACK_LEN + 8 + (FAN_ACK_RESULT_MAX + 1) * FAN_ACK_RESULT_LEN + FAN_TAG_LEN;
	cr_expect_eq(fan_ack_decode(packet, len, &out.ack), FAN_WIRE_LENGTH);
}

/* ---- the filter tag ---- */

Test(wire, every_bit_of_a_tagged_header_matters)
{
	struct fan_delivery d = sample_delivery(), out;
	uint8_t packet[FAN_DELIVERY_LEN + 16] = {0};
	size_t len;

	d.payload_len = 16;
	len = fan_delivery_encode(packet, &d) + 16;
	fan_filter_tag(packet, KEY);
	cr_assert(fan_filter_tag_ok(packet, KEY));
	cr_assert_eq(fan_delivery_decode(packet, len, &out), FAN_WIRE_OK);
	for (unsigned bit = 0; bit < 8 * FAN_DELIVERY_LEN; bit++) {
		bool decoded, tagged;

		packet[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		decoded = fan_delivery_decode(packet, len, &out) == FAN_WIRE_OK;
		tagged = fan_filter_tag_ok(packet, KEY);
		cr_expect_not(tagged, "bit %u flipped and the tag still fits", bit);
		cr_expect_not(decoded && tagged);
		packet[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
	cr_assert(fan_filter_tag_ok(packet, KEY));
}

Test(wire, every_bit_of_the_tag_key_matters)
{
	struct fan_delivery d = sample_delivery();
	uint8_t packet[FAN_DELIVERY_LEN], key[16];

	fan_delivery_encode(packet, &d);
	fan_filter_tag(packet, KEY);
	for (unsigned bit = 0; bit < 128; bit++) {
		memcpy(key, KEY, sizeof(key));
		key[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		cr_expect_not(fan_filter_tag_ok(packet, key));
	}
}

/* ---- the rest ---- */

Test(wire, channels)
{
	cr_expect(fan_channel_ok(FAN_CHANNEL_ALL));
	cr_expect_not(fan_channel_ok(1));
	cr_expect_not(fan_channel_ok(FAN_CONNECTION_ID_MASK));
	cr_expect(fan_channel_ok(FAN_CHANNEL_THREAD));
	cr_expect(fan_channel_ok(FAN_CHANNEL_THREAD | FAN_CONNECTION_ID_MASK));
	cr_expect(fan_channel_ok(FAN_CHANNEL_SINGLE | 1));
	cr_expect_not(fan_channel_ok(FAN_CHANNEL_SINGLE), "connection ids start at 1");
	cr_expect_not(fan_channel_ok(FAN_CHANNEL_KIND_MASK));
	cr_expect_not(fan_channel_ok(UINT64_MAX));
}

Test(wire, nonces)
{
	static const uint8_t wanted[FAN_NONCE_LEN] = {0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8};
	uint8_t nonce[FAN_NONCE_LEN];

	fan_nonce(nonce, FAN_DIRECTION_ACK, 0x0102030405060708);
	cr_expect_arr_eq(nonce, wanted, sizeof(wanted));
}

Test(wire, empty_datagram_has_no_type)
{
	const uint8_t packet[2] = {FAN_WIRE_VERSION, 0x77};
	enum fan_wire_error error;

	cr_expect_eq(fan_wire_type(packet, 0, &error), 0);
	cr_expect_eq(error, FAN_WIRE_SHORT);
	cr_expect_eq(fan_wire_type(packet, 1, &error), 0);
	cr_expect_eq(error, FAN_WIRE_SHORT);
	cr_expect_eq(fan_wire_type(packet, 2, &error), 0x77);
	cr_expect_eq(error, FAN_WIRE_OK);
}

Test(wire, names_are_distinct_and_never_null)
{
	for (unsigned i = 0; i <= FAN_WIRE_LENGTH; i++) {
		for (unsigned j = 0; j < i; j++)
			cr_expect_str_neq(fan_wire_error_name(i), fan_wire_error_name(j));
	}
	for (uint16_t i = 0; i <= FAN_RESULT_UNATTENDED; i++) {
		for (uint16_t j = 0; j < i; j++)
			cr_expect_str_neq(fan_result_status_name(i), fan_result_status_name(j));
	}
	cr_expect_str_eq(fan_wire_error_name((enum fan_wire_error)99), "unknown");
	cr_expect_str_eq(fan_result_status_name(999), "unknown");
}
