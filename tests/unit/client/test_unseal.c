/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "client/seal.h"
#include "client/unseal.h"
#include "tests/unit/common/page.h"

static const uint8_t root[FAN_KEY_LEN] = {9, 8, 7};
static struct unseal unseal;
static struct unseal_key keys[2];
static uint8_t packet[FAN_DELIVERY_LEN + 64];

static void setup(void)
{
	struct fan_delivery d;

	memset(&unseal, 0, sizeof(unseal));
	fan_handle(d.handle, "alice", 5);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t generation_root[FAN_KEY_LEN];

		fan_seal_root(generation_root, root, (uint8_t)(i + 1), 77);
		keys[i].generation = (uint8_t)(i + 1);
		fan_user_key(keys[i].key, generation_root, 3, d.handle);
	}
	unseal_set_keys(&unseal, keys, 1);
}

static void teardown(void)
{
	unseal_fini(&unseal);
}

TestSuite(unseal, .init = setup, .fini = teardown);

/* A delivery as the engine seals it: whole, in packet. */
static struct fan_delivery seal_delivery(uint8_t generation, uint64_t channel, uint64_t epoch,
					 uint64_t sequence)
{
	struct fan_delivery d = {.type = FAN_TYPE_DELIVERY,
				 .flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
				 .key_generation = generation,
				 .payload_len = 11,
				 .channel = channel,
				 .epoch = epoch,
				 .sequence = sequence};
	uint8_t key[FAN_KEY_LEN], header[FAN_SEALED_HEADER_LEN], out[64];
	struct seal seal;

	fan_handle(d.handle, "alice", 5);
	fan_delivery_encode(packet, &d);
	fan_sealed_header(header, packet);
	fan_stream_key(key, keys[generation - 1].key, channel, epoch);
	cr_assert_eq(seal_init(&seal, key), 0);
	cr_assert_eq(seal_close(&seal, FAN_DIRECTION_DELIVER, sequence, header, sizeof(header),
				"hello world", 11, out),
		     0);
	seal_fini(&seal);
	memcpy(packet + FAN_DELIVERY_LEN, out, 11);
	memcpy(d.seal_tag, out + 11, FAN_TAG_LEN);
	fan_delivery_encode(packet, &d);
	return d;
}

/* As the subscriber does: from the bytes. */
static int open_packet(void)
{
	struct fan_delivery d;

	cr_assert_eq(fan_delivery_decode(packet, FAN_DELIVERY_LEN + 11, &d), FAN_WIRE_OK);
	return unseal_open(&unseal, &d, packet);
}

static void expect_opens(void)
{
	cr_assert_eq(open_packet(), 0);
	cr_assert_arr_eq(packet + FAN_DELIVERY_LEN, "hello world", 11);
}

Test(unseal, opens_what_the_engine_sealed)
{
	seal_delivery(1, 0, 5, 9);
	expect_opens();
}

Test(unseal, opens_the_vectors_of_the_page)
{
	static const char *const names[] = {"sealed-delivery", "replayed-delivery"};

	for (unsigned i = 0; i < 2; i++) {
		struct bytes sealed = vector_bytes(names[i], "packet");
		struct bytes plain = vector_bytes(names[i], "plaintext");
		struct unseal_key key = {.generation = 1};
		struct fan_delivery d;

		memcpy(key.key, vector_bytes(names[i], "user_key").at, FAN_KEY_LEN);
		unseal_set_keys(&unseal, &key, 1);
		cr_assert_eq(fan_delivery_decode(sealed.at, sealed.len, &d), FAN_WIRE_OK);
		cr_assert_eq(unseal_open(&unseal, &d, sealed.at), 0);
		cr_assert_eq(d.payload_len, plain.len);
		cr_assert_arr_eq(sealed.at + FAN_DELIVERY_LEN, plain.at, plain.len);
	}
}

Test(unseal, opens_a_replay_as_what_was_first_sent)
{
	seal_delivery(1, 0, 5, 9);
	packet[2] |= FAN_FLAG_REPLAY;
	expect_opens();
}

/* Every bit of what is covered, payload and tag; the filter's tag alone is not of the seal. */
Test(unseal, refuses_every_flipped_bit)
{
	for (unsigned bit = 0; bit < (FAN_DELIVERY_LEN + 11) * 8; bit++) {
		unsigned off = bit / 8;
		struct fan_delivery d;

		seal_delivery(1, 0, 5, 9);
		packet[off] ^= (uint8_t)(1 << bit % 8);
		if (fan_delivery_decode(packet, FAN_DELIVERY_LEN + 11, &d) != FAN_WIRE_OK)
			continue; /* its form is refused already */
		if ((off >= 92 && off < 100) || (off == 2 && 1 << bit % 8 == FAN_FLAG_REPLAY))
			cr_assert_eq(open_packet(), 0, "bit %u", bit);
		else
			cr_assert_neq(open_packet(), 0, "bit %u", bit);
	}
}

Test(unseal, refuses_what_is_not_sealed)
{
	struct fan_delivery d = seal_delivery(1, 0, 5, 9);

	memset(d.seal_tag, 0, sizeof(d.seal_tag));
	fan_delivery_encode(packet, &d);
	memcpy(packet + FAN_DELIVERY_LEN, "hello world", 11);
	cr_assert_eq(open_packet(), -EBADMSG);
}

Test(unseal, refuses_another_users_keys)
{
	struct unseal_key other = keys[0];

	other.key[0] ^= 1;
	unseal_set_keys(&unseal, &other, 1);
	seal_delivery(1, 0, 5, 9);
	cr_assert_eq(open_packet(), -EBADMSG);
}

Test(unseal, says_which_generation_it_does_not_know)
{
	uint8_t before[sizeof(packet)];

	seal_delivery(2, 0, 5, 9);
	memcpy(before, packet, sizeof(packet));
	cr_assert_not(unseal_knows(&unseal, 2));
	cr_assert_eq(open_packet(), -ENOKEY);
	cr_assert_arr_eq(packet, before, sizeof(packet));
}

Test(unseal, opens_both_generations_while_keys_rotate)
{
	unseal_set_keys(&unseal, keys, 2);
	for (uint64_t i = 1; i <= 20; i++) { /* what comes late is still of the old one */
		seal_delivery((uint8_t)(1 + i % 2), 0, 5, i);
		expect_opens();
	}
	unseal_set_keys(&unseal, &keys[1], 1);
	seal_delivery(2, 0, 5, 21);
	expect_opens();
	seal_delivery(1, 0, 5, 20);
	expect_opens(); /* it waited in the socket */
	unseal_drained(&unseal);
	seal_delivery(1, 0, 5, 20);
	cr_assert_eq(open_packet(), -ENOKEY, "a retired generation is still in use");
	seal_delivery(2, 0, 5, 22);
	expect_opens();
}

Test(unseal, keeps_no_more_retired_generations_than_it_has_room_for)
{
	for (unsigned i = 3; i <= 40; i++) {
		struct unseal_key next = {.generation = (uint8_t)i};

		unseal_set_keys(&unseal, &next, 1);
		cr_assert(unseal_knows(&unseal, (uint8_t)i));
		cr_assert(unseal_knows(&unseal, (uint8_t)(i == 3 ? 1 : i - 1)), "the last one");
	}
	cr_assert_not(unseal_knows(&unseal, 1));
	unseal_drained(&unseal);
	cr_assert(unseal_knows(&unseal, 40));
	cr_assert_not(unseal_knows(&unseal, 39));
}

/* A generation's number comes round again, with other keys: what was derived must go too. */
Test(unseal, forgets_what_it_derived_from_a_key_that_changed)
{
	struct unseal_key other = keys[0];

	seal_delivery(1, 0, 5, 9);
	expect_opens();
	other.key[31] ^= 1;
	unseal_set_keys(&unseal, &other, 1);
	seal_delivery(1, 0, 5, 9);
	cr_assert_eq(open_packet(), -EBADMSG);
	unseal_set_keys(&unseal, keys, 1);
	seal_delivery(1, 0, 5, 9);
	expect_opens();
}

Test(unseal, keeps_more_streams_apart_than_it_holds)
{
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 3 * UNSEAL_STREAMS; i++) {
			seal_delivery(1, FAN_CHANNEL_THREAD | i, 5 + i, 1);
			expect_opens();
		}
	}
	seal_delivery(1, FAN_CHANNEL_THREAD | 1, 6, 1);
	packet[24 + 7] ^= 3; /* the next channel's key is another */
	cr_assert_eq(open_packet(), -EBADMSG);
}
