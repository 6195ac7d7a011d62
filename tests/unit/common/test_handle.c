/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "common/wire/handle.h"

static void init(void)
{
	cr_assert_geq(sodium_init(), 0);
}
TestSuite(handle, .init = init);

/* BLAKE2b-128 as `b2sum -l 128` and RFC 7693's Python appendix give it. */
Test(handle, known_answers)
{
	static const struct {
		const char *name, *hex;
	} rows[] = {
		{"abc", "cf4ab791c62b8d2b2109c90275287816"},
		{"alice", "69b5957599f918e276a3d2428acdc997"},
		{"The quick brown fox jumps over the lazy dog", "249df9a49f517ddcd37f5c897620ec73"},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t handle[FAN_HANDLE_LEN];
		char hex[2 * FAN_HANDLE_LEN + 1];

		cr_assert_eq(fan_handle(handle, rows[i].name, strlen(rows[i].name)), 0);
		fan_hex(hex, handle, sizeof(handle));
		cr_expect_str_eq(hex, rows[i].hex, "%s", rows[i].name);
	}
}

Test(handle, names_are_1_to_255_bytes)
{
	uint8_t handle[FAN_HANDLE_LEN], before[FAN_HANDLE_LEN];
	char name[FAN_NAME_MAX + 1];
	uint64_t channel = 7;

	memset(name, 'n', sizeof(name));
	memset(handle, 0xee, sizeof(handle));
	memcpy(before, handle, sizeof(handle));
	cr_expect_eq(fan_handle(handle, name, 0), -EINVAL);
	cr_expect_eq(fan_handle(handle, NULL, 1), -EINVAL);
	cr_expect_eq(fan_handle(handle, name, 256), -EINVAL);
	cr_expect_arr_eq(handle, before, sizeof(handle), "a refused name changed the handle");
	cr_expect_eq(fan_handle(handle, name, 1), 0);
	cr_expect_eq(fan_handle(handle, name, 255), 0);
	cr_expect_eq(fan_thread_channel(&channel, name, 0), -EINVAL);
	cr_expect_eq(fan_thread_channel(&channel, name, 256), -EINVAL);
	cr_expect_eq(channel, 7);
	cr_expect_eq(fan_thread_channel(&channel, name, 255), 0);
}

Test(handle, names_are_bytes)
{
	uint8_t a[FAN_HANDLE_LEN], b[FAN_HANDLE_LEN];

	cr_assert_eq(fan_handle(a, "a\0b", 3), 0);
	cr_assert_eq(fan_handle(b, "a\0c", 3), 0);
	cr_expect_arr_neq(a, b, sizeof(a), "what follows a NUL counts");
	cr_assert_eq(fan_handle(b, "a", 1), 0);
	cr_expect_arr_neq(a, b, sizeof(a));
}

Test(handle, threads_are_of_their_kind_and_not_a_users_handle)
{
	uint64_t channel, other;
	uint8_t handle[FAN_HANDLE_LEN];

	cr_assert_eq(fan_thread_channel(&channel, "room", 4), 0);
	cr_expect_eq(channel & FAN_CHANNEL_KIND_MASK, FAN_CHANNEL_THREAD);
	cr_expect(fan_channel_ok(channel));
	cr_assert_eq(fan_thread_channel(&other, "room2", 5), 0);
	cr_expect_neq(channel, other);
	cr_assert_eq(fan_handle(handle, "room", 4), 0);
	for (unsigned i = 0; i < 8; i++)
		other = other << 8 | handle[i];
	cr_expect_neq(channel & FAN_CONNECTION_ID_MASK, other >> 2);
}

/* Whatever goes into a tag key changes it. */
Test(handle, tag_keys_differ)
{
	uint8_t master[FAN_KEY_LEN] = {1}, handle[FAN_HANDLE_LEN] = {2}, root[FAN_KEY_LEN];
	uint8_t keys[6][FAN_TAG_KEY_LEN];

	fan_tag_root(root, master, 1, 7);
	fan_tag_key(keys[0], root, 1, handle);
	fan_tag_key(keys[2], root, 0x01000000, handle);
	handle[15] = 1;
	fan_tag_key(keys[3], root, 1, handle);
	handle[15] = 0;
	fan_tag_root(root, master, 2, 7);
	fan_tag_key(keys[1], root, 1, handle);
	fan_tag_root(root, master, 1, 8); /* of another registry */
	fan_tag_key(keys[5], root, 1, handle);
	master[31] = 1;
	fan_tag_root(root, master, 1, 7);
	fan_tag_key(keys[4], root, 1, handle);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned j = 0; j < i; j++)
			cr_expect_arr_neq(keys[i], keys[j], FAN_TAG_KEY_LEN, "%u and %u", i, j);
	}
}

Test(handle, proofs_bind_connection_salt_address_and_port)
{
	uint8_t key[16] = {1}, address[16] = {2};
	uint64_t proof = fan_challenge_proof(key, 1, 2, address, 3);

	cr_expect_eq(fan_challenge_proof(key, 1, 2, address, 3), proof);
	cr_expect_neq(fan_challenge_proof(key, 2, 2, address, 3), proof);
	cr_expect_neq(fan_challenge_proof(key, 1, 3, address, 3), proof);
	cr_expect_neq(fan_challenge_proof(key, 1, 2, address, 4), proof);
	address[15] = 1;
	cr_expect_neq(fan_challenge_proof(key, 1, 2, address, 3), proof);
	address[15] = 0;
	key[15] = 1;
	cr_expect_neq(fan_challenge_proof(key, 1, 2, address, 3), proof);
}

Test(handle, ids_as_text)
{
	static const char *const bad[] = {"",
					  "0123456789abcde",
					  "0123456789abcdef0",
					  "0123456789ABCDEF",
					  "0123456789abcdeg",
					  " 123456789abcdef",
					  "0x23456789abcdef"};
	char text[17];
	uint64_t id = 9;

	fan_id_format(text, 0x0123456789abcdef);
	cr_expect_str_eq(text, "0123456789abcdef");
	cr_expect_eq(fan_id_parse(&id, text), 0);
	cr_expect_eq(id, 0x0123456789abcdef);
	fan_id_format(text, 1);
	cr_expect_str_eq(text, "0000000000000001");
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(fan_id_parse(&id, bad[i]), -EINVAL, "%s", bad[i]);
	cr_expect_eq(fan_id_parse(&id, NULL), -EINVAL);
	cr_expect_eq(id, 0x0123456789abcdef, "a refused text changed the id");
}

Test(handle, hex)
{
	uint8_t bytes[3] = {0x00, 0x9f, 0xff}, back[3];
	char text[7];

	fan_hex(text, bytes, 3);
	cr_expect_str_eq(text, "009fff");
	cr_expect_eq(fan_unhex(back, 3, text), 0);
	cr_expect_arr_eq(back, bytes, 3);
	cr_expect_eq(fan_unhex(back, 2, text), -EINVAL);
	cr_expect_eq(fan_unhex(back, 4, text), -EINVAL);
}
