/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealed deliveries. Keys are derived here by libsodium from what docs/wire-format.md says, and
 * deliveries opened by OpenSSL: nothing is checked with the code under test.
 */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#include "common/wire/handle.h"
#include "dataplane/fanout.h"
#include "dataplane/seal.h"
#include "dataplane/tag.h"
#include "tests/unit/dataplane/pipeline.h"

#define PORT	   20000
#define THREAD	   (FAN_CHANNEL_THREAD | 5)
#define HEADER_LEN 100
#define TAG_OFF	   76

static struct pipeline p;

/* ---- an independent subscriber ---- */

static void put_be(uint8_t *at, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		at[i] = (uint8_t)(value >> 8 * (len - 1 - i));
}

static uint64_t get_be(const uint8_t *at, unsigned len)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < len; i++)
		value = value << 8 | at[i];
	return value;
}

/* BLAKE2b under `above` of label, a number of a_len bytes, and then b. */
static void derive(uint8_t *key, size_t key_len, const uint8_t above[32], const char *label,
		   uint64_t a, unsigned a_len, const uint8_t *b, size_t b_len)
{
	uint8_t text[128];
	size_t len = strlen(label);

	memcpy(text, label, len);
	put_be(text + len, a, a_len);
	memcpy(text + len + a_len, b, b_len);
	crypto_generichash(key, key_len, text, len + a_len + b_len, above, 32);
}

/* What a subscriber would be told, then what he computes from a header: root -> user -> stream. */
static void stream_key(uint8_t key[32], const uint8_t *header)
{
	uint8_t root[32], user[32], epoch[8];

	memset(root, 0x80 + header[3], sizeof(root));
	derive(user, 32, root, "fanwire seal 1", get_be(header + 56, 4), 4, header + 8, 16);
	memcpy(epoch, header + 32, sizeof(epoch));
	derive(key, 32, user, "fanwire stream 1", get_be(header + 24, 8), 8, epoch, 8);
}

static bool opens_with(const uint8_t key[32], const uint8_t *wire, uint16_t len, uint8_t *text)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t nonce[12] = {0, 0, 0, 3}, header[TAG_OFF], tag[16];
	int done, ok = 1;

	memcpy(header, wire, sizeof(header));
	header[2] &= (uint8_t)~4;
	memcpy(nonce + 4, wire + 40, 8);
	memcpy(tag, wire + TAG_OFF, sizeof(tag));
	ok &= EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce);
	ok &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, 16, tag);
	ok &= EVP_DecryptUpdate(context, NULL, &done, header, TAG_OFF);
	ok &= EVP_DecryptUpdate(context, text, &done, wire + HEADER_LEN, len - HEADER_LEN);
	ok &= EVP_DecryptFinal_ex(context, text + done, &done);
	EVP_CIPHER_CTX_free(context);
	return ok == 1;
}

/* Opened by what its header says alone. */
static bool opens(const uint8_t *wire, uint16_t len, uint8_t *text)
{
	uint8_t key[32];

	stream_key(key, wire);
	return opens_with(key, wire, len, text);
}

/* ---- set-up ---- */

static void open_sealing(unsigned workers)
{
	pipeline_open(&p, workers);
	p.regions.root->seal = 1;
	pipeline_restart_anew(&p); /* whether deliveries are sealed is read at the start */
}

static void close_all(void)
{
	pipeline_close(&p);
}

static uint64_t sequence;

/* Publishes to a user and takes the one copy. */
static void send_to(const char *user, const char *text, uint16_t len, struct frame *copy)
{
	struct publish_spec spec = {
		.sequence = ++sequence, .user = user, .payload = text, .payload_len = len};
	struct frame frame;
	bool found = false;

	publish(&p, &spec);
	while (take(&p, &frame))
		if (frame.wire[1] == FAN_TYPE_DELIVERY) {
			*copy = frame;
			copy->wire = copy->bytes + (frame.wire - frame.bytes);
			found = true;
		}
	cr_assert(found, "no delivery");
}

static void expect_opens(const struct frame *f, const char *text, uint16_t len)
{
	uint8_t opened[2048] = {0};

	cr_expect_eq(f->wire_len, HEADER_LEN + len);
	cr_expect(opens(f->wire, f->wire_len, opened), "does not open");
	cr_expect_arr_eq(opened, text, len);
}

/* So many schedules are kept from now on. */
static void use_schedules(unsigned cnt)
{
	seal_worker_fini(p.plane.workers[0]);
	p.plane.config.seal_schedules = cnt;
	cr_assert_eq(seal_worker_init(p.plane.workers[0]), 0);
}

/* What a test does once with room for all, and once with one schedule for all streams. */
static void with_many_schedules_and_one(void (*test)(void))
{
	test();
	use_schedules(1);
	test();
}

/* ---- sealing ---- */

static void every_length(void)
{
	char text[FAN_PAYLOAD_DEFAULT];
	struct frame f;

	for (uint16_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	for (uint16_t len = 0; len <= sizeof(text); len += len < 300 || len > 1100 ? 1 : 9) {
		send_to("alice", text, len, &f);
		expect_opens(&f, text, len);
	}
}

Test(seal, every_length_opens, .fini = close_all)
{
	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	with_many_schedules_and_one(every_length);
}

/* Under a fixed key, whatever the header says: the additional data alone have to notice. */
static void every_bit(void)
{
	uint8_t wire[2048], opened[2048], key[32];
	struct frame f;

	send_to("alice", "no bit of this", 14, &f);
	stream_key(key, f.wire);
	memcpy(wire, f.wire, f.wire_len);
	for (unsigned bit = 0; bit < 8u * f.wire_len; bit++) {
		bool filter_tag = bit / 8 >= 92 && bit / 8 < HEADER_LEN;
		bool replay_mark = bit == 8 * 2 + 2;

		wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
		cr_expect_eq(opens_with(key, wire, f.wire_len, opened), filter_tag || replay_mark,
			     "bit %u of byte %u", bit % 8, bit / 8);
		wire[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	cr_expect(opens_with(key, wire, f.wire_len, opened));
}

Test(seal, every_bit_of_header_and_payload_is_sealed, .fini = close_all)
{
	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	with_many_schedules_and_one(every_bit);
}

Test(seal, off_leaves_payload_and_tag_as_they_are, .fini = close_all)
{
	static const uint8_t none[16];
	struct frame f;

	pipeline_open(&p, 1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	send_to("alice", "in the clear", 12, &f);
	cr_expect_arr_eq(f.wire + TAG_OFF, none, sizeof(none));
	cr_expect_arr_eq(f.wire + HEADER_LEN, "in the clear", 12);
}

/* ---- sealed once ---- */

Test(seal, retransmission_is_answered_and_not_sealed_again, .fini = close_all)
{
	struct publish_spec spec = {.sequence = 1, .payload = "once", .payload_len = 4};
	struct fan_result first[FAN_ACK_RESULT_MAX], again[FAN_ACK_RESULT_MAX];
	uint64_t cumulative;
	struct frame f;

	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	publish(&p, &spec);
	cr_assert(take(&p, &f));
	expect_opens(&f, "once", 4);
	cr_assert(take(&p, &f));
	cr_assert_eq(ack_open(&f, 0, &cumulative, first), 1);
	publish(&p, &spec);
	cr_assert(take(&p, &f));
	cr_assert_eq(ack_open(&f, 0, &cumulative, again), 1);
	cr_expect_eq(again[0].sequence, first[0].sequence);
	cr_expect_eq(again[0].epoch, first[0].epoch);
	cr_expect(!take(&p, &f), "nothing but the answer");
}

/* More copies than a burst's share, and two events that wait for each other. */
Test(seal, copies_of_a_flow_are_the_same_bytes, .fini = close_all)
{
	struct publish_spec specs[2] = {
		{.sequence = 1, .payload = "first", .payload_len = 5},
		{.sequence = 2, .payload = "other", .payload_len = 5},
	};
	struct frame f, first[2];
	unsigned cnt[2] = {0};

	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 2 * FLOW_SHARE, 4, 0, PORT);
	publish_many(&p, specs, 2);
	while (take(&p, &f)) {
		unsigned idx = (unsigned)get_be(f.wire + 40, 8) - 1;

		if (f.wire[1] != FAN_TYPE_DELIVERY)
			continue;
		cr_assert_lt(idx, 2);
		expect_opens(&f, specs[idx].payload, 5);
		if (cnt[idx]++ == 0)
			first[idx] = f;
		cr_assert_arr_eq(f.wire, first[idx].bytes + (f.wire - f.bytes), f.wire_len);
	}
	cr_expect_eq(cnt[0], 2 * FLOW_SHARE);
	cr_expect_eq(cnt[1], 2 * FLOW_SHARE);
}

/* ---- a nonce never repeats under a key ---- */

static struct use {
	uint8_t key[32], nonce[8];
} uses[64];
static unsigned use_cnt;

static void use_once(const char *text)
{
	struct use use;
	struct frame f;

	send_to("alice", text, (uint16_t)strlen(text), &f);
	expect_opens(&f, text, (uint16_t)strlen(text));
	stream_key(use.key, f.wire);
	memcpy(use.nonce, f.wire + 40, sizeof(use.nonce));
	for (unsigned i = 0; i < use_cnt; i++)
		cr_assert_neq(memcmp(&uses[i], &use, sizeof(use)), 0,
			      "the nonce of use %u again, under its key", i);
	cr_assert_lt(use_cnt, RTE_DIM(uses));
	uses[use_cnt++] = use;
}

/* Dies when the event has its place: whether it was sealed, and seen, nobody knows. */
static void die_between_sequence_and_seal(void)
{
	struct publish_spec spec = {.sequence = ++sequence, .payload = "lost", .payload_len = 4};
	struct worker *w = p.plane.workers[0];
	uint8_t frame[2048];
	uint16_t len = publish_make(frame, &spec);
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p.plane.pool);
	struct use use;

	memcpy(rte_pktmbuf_append(mbuf, len), frame, len);
	parse_burst(w, &mbuf, 1);
	lookup_burst(w);
	session_open_burst(w);
	sequence_burst(w);
	cr_assert_eq(w->event_cnt, 1);
	header_burst(w);
	stream_key(use.key, fanout_image(packet_of(mbuf)));
	memcpy(use.nonce, fanout_image(packet_of(mbuf)) + 40, sizeof(use.nonce));
	uses[use_cnt++] = use;
	w->event_cnt = 0;
	rte_pktmbuf_free(mbuf);
	pipeline_restart(&p);
}

static void lose_state(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", p.dir, FAN_STATE_FILE);
	cr_assert_eq(unlink(path), 0);
	pipeline_restart_anew(&p);
	sequence = 0;
}

static void rotate(unsigned slot, uint8_t generation)
{
	region_set_roots(&p.regions, slot, generation);
	__atomic_store_n(&p.regions.root->key_generation, generation, __ATOMIC_RELEASE);
}

Test(seal, nonce_never_repeats, .fini = close_all)
{
	struct fan_group *group;

	open_sealing(1);
	group = region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	use_once("one");
	use_once("two");
	pipeline_restart(&p);
	use_once("after a restart");
	die_between_sequence_and_seal();
	use_once("after a death in between");
	lose_state();
	use_once("with a state region of its own again");
	rotate(1, 2);
	use_once("of another key generation");
	rotate(0, 3);
	use_once("and of another one");
	group->incarnation = 99;
	use_once("of another incarnation");
	group->incarnation = 100;
	group->user_generation++;
	use_once("of another user generation");
	cr_expect_eq(use_cnt, 10);
}

/* Streams of a registry that is made anew may have the places of those before. */
Test(seal, lost_registry_takes_all_keys_with_it)
{
	uint8_t master[32] = "the key of keys", before[32], after[32];

	fan_seal_root(before, master, 1, 0x1111);
	fan_seal_root(after, master, 1, 0x1112);
	cr_expect_arr_neq(before, after, sizeof(before));
}

/* ---- never another stream's key ---- */

#define USERS 20

static char *user_name(unsigned i)
{
	static char name[16];

	snprintf(name, sizeof(name), "user-%u", i);
	return name;
}

static void each_user_opens(const char *why)
{
	struct frame f;

	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < USERS; i++) {
			uint8_t opened[64] = {0};

			send_to(user_name(i), "mine", 4, &f);
			cr_assert(opens(f.wire, f.wire_len, opened), "%s: user %u", why, i);
			cr_assert_arr_eq(opened, "mine", 4);
		}
}

static void key_is_never_anothers(void)
{
	static uint8_t generation = TEST_KEY_GENERATION;

	each_user_opens("one after the other");
	for (unsigned i = 0; i < USERS; i++)
		p.regions.groups[i].incarnation += 1000;
	each_user_opens("another incarnation at the same place");
	for (unsigned i = 0; i < USERS; i++)
		p.plane.group_states[i].epoch++;
	each_user_opens("another epoch of the same incarnation");
	generation++;
	rotate(generation % 2, generation); /* where the one before the last was */
	each_user_opens("another key generation");
}

Test(seal, key_is_never_another_streams, .fini = close_all)
{
	open_sealing(1);
	for (unsigned i = 0; i < USERS; i++)
		region_add_group(&p.regions, user_name(i), 0, 1, 4, 0, PORT);
	with_many_schedules_and_one(key_is_never_anothers);
}

Test(seal, keys_are_derived_once_a_stream, .fini = close_all)
{
	open_sealing(1);
	for (unsigned i = 0; i < USERS; i++)
		region_add_group(&p.regions, user_name(i), 0, 1, 4, 0, PORT);
	each_user_opens("first");
	each_user_opens("again");
	cr_expect_eq(counter(&p, FAN_COUNTER_seal_keys_derived), USERS);
	cr_expect_eq(counter(&p, FAN_COUNTER_seal_schedules_made), USERS);
}

Test(seal, threads_of_a_user_have_keys_of_their_own, .fini = close_all)
{
	struct publish_spec spec = {
		.sequence = 1, .channel = THREAD, .payload = "t", .payload_len = 1};
	uint8_t all[32], thread[32];
	struct frame f;

	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	region_add_group(&p.regions, "alice", THREAD, 1, 4, 0, PORT);
	publish(&p, &spec);
	cr_assert(take(&p, &f));
	expect_opens(&f, "t", 1);
	stream_key(thread, f.wire);
	take_all(&p);
	sequence = 1;
	send_to("alice", "a", 1, &f);
	expect_opens(&f, "a", 1);
	stream_key(all, f.wire);
	cr_expect_arr_neq(all, thread, sizeof(all));
}

/* ---- rotation ---- */

static void tag_key_of(uint8_t key[16], const uint8_t *header)
{
	uint8_t root[32];

	memset(root, 0x40 + header[3], sizeof(root));
	derive(key, 16, root, "fanwire tag 2", get_be(header + 56, 4), 4, header + 8, 16);
}

static bool filter_takes(const uint8_t *header, const uint8_t key[16])
{
	uint8_t tag[8];

	crypto_shorthash_siphash24(tag, header, 92, key);
	return memcmp(tag, header + 92, sizeof(tag)) == 0;
}

Test(seal, tags_follow_the_switch_and_not_the_group, .fini = close_all)
{
	struct fan_group *group;
	uint8_t key[16], own[16];
	struct frame f;

	open_sealing(1);
	group = region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	memcpy(own, group->tag_key, sizeof(own)); /* the fixture's, which no root gives */
	send_to("alice", "1", 1, &f);
	cr_expect(filter_takes(f.wire, own));
	rotate(1, 2);
	send_to("alice", "2", 1, &f);
	cr_expect_eq(f.wire[3], 2);
	tag_key_of(key, f.wire);
	cr_expect(filter_takes(f.wire, key), "derived, since the group has the old one");
	memset(own, 0x22, sizeof(own));
	fan_group_tag_key_set(group, 2, own);
	send_to("alice", "3", 1, &f);
	cr_expect(filter_takes(f.wire, own), "the group's, now that it has this one");
	group->key_generation = 0;
	send_to("alice", "4", 1, &f);
	cr_expect(filter_takes(f.wire, key), "derived while it is rewritten");
	expect_opens(&f, "4", 1);
}

Test(seal, generation_without_roots_is_not_taken_up, .fini = close_all)
{
	struct frame f;

	open_sealing(1);
	region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	p.regions.root->key_generation = 9;
	send_to("alice", "as before", 9, &f);
	cr_expect_eq(f.wire[3], TEST_KEY_GENERATION);
	expect_opens(&f, "as before", 9);
}

Test(seal, what_is_sent_again_is_tagged_by_its_own_generation, .fini = close_all)
{
	struct fan_group *group;
	uint8_t image[HEADER_LEN], key[16];
	struct frame f;

	open_sealing(1);
	group = region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	group->key_generation = 0;
	send_to("alice", "", 0, &f);
	rotate(1, 2);
	send_to("alice", "", 0, &f); /* the worker knows of it */
	memcpy(image, f.wire, sizeof(image));
	image[3] = 1;
	cr_assert(tag_image(p.plane.workers[0], image, group));
	tag_key_of(key, image);
	cr_expect(filter_takes(image, key));
	rotate(0, 3); /* 1 has no roots any more */
	cr_expect_not(tag_image(p.plane.workers[0], image, group));
}

/* Through all generations, round after round; what is tagged meanwhile is always right. */
static bool rewriting;
static unsigned tagged; /* __atomic */

static void *rewrite(void *arg)
{
	struct fan_group *group = arg;
	uint8_t header[HEADER_LEN] = {0}, key[16];

	memcpy(header + 8, group->handle, 16);
	put_be(header + 56, group->user_generation, 4);
	for (unsigned i = 0; __atomic_load_n(&rewriting, __ATOMIC_RELAXED); i++) {
		unsigned before = __atomic_load_n(&tagged, __ATOMIC_RELAXED);

		header[3] = (uint8_t)(1 + i % 255);
		tag_key_of(key, header);
		fan_group_tag_key_set(group, header[3], key);
		/* as fanwired: none comes round while somebody still reads it */
		while (header[3] == 255 && __atomic_load_n(&rewriting, __ATOMIC_RELAXED) &&
		       __atomic_load_n(&tagged, __ATOMIC_RELAXED) < before + 2)
			sched_yield();
	}
	return NULL;
}

Test(seal, key_that_is_being_rewritten_is_never_used, .fini = close_all)
{
	struct fan_group *group;
	pthread_t thread;
	uint8_t key[16];
	struct frame f;

	open_sealing(1);
	group = region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	group->key_generation = 0; /* the fixture's key is none that roots give */
	region_set_roots(&p.regions, 1, 2);
	rewriting = true;
	cr_assert_eq(pthread_create(&thread, NULL, rewrite, group), 0);
	for (unsigned i = 0; i < 20000; i++) {
		p.regions.root->key_generation = 1 + i / 16 % 2;
		send_to("alice", "x", 1, &f);
		__atomic_fetch_add(&tagged, 1, __ATOMIC_RELAXED);
		tag_key_of(key, f.wire);
		cr_assert(filter_takes(f.wire, key), "event %u, generation %u", i, f.wire[3]);
	}
	__atomic_store_n(&rewriting, false, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}
