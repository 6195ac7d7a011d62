/* SPDX-License-Identifier: BSD-3-Clause */
/* Whatever is full says so, changes nothing, and is well again when there is room. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/registry/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(full, .init = setup, .fini = teardown);

Test(full, connections)
{
	uint64_t id = 0, extra;

	fixture_open(&f);
	for (unsigned i = 0; i < f.config.max_connections; i++)
		id = connect_user(&f, i, NULL, 0, NULL);
	cr_assert_eq(try_connect(&f, 999, NULL, 0, &extra), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "max_connections"));
	cr_assert_eq(counts_of(&f).users, f.config.max_connections);
	table_check(&f);
	disconnect(&f, id);
	cr_assert_eq(try_connect(&f, 999, NULL, 0, &extra), 0);
	drain_and_check(&f);
}

/* Every connection in ALL and in all of the threads that it may join: the sizes promise that. */
Test(full, all_connections_in_all_threads_fit)
{
	uint64_t channels[4];

	f.config.max_groups = f.config.max_connections * 5;
	fixture_open(&f);
	thread_channels(channels, 4);
	for (unsigned i = 0; i < f.config.max_connections; i++)
		connect_user(&f, i, channels, 4, NULL);
	cr_assert_eq(counts_of(&f).groups, f.config.max_groups);
	cr_assert_eq(counts_of(&f).endpoints_used, f.config.max_connections * 5);
	table_check(&f);
	drain_and_check(&f);
}

Test(full, groups)
{
	uint64_t channels[4], id = 0, extra;
	struct registry_counts before, after;
	unsigned n;

	f.config.max_groups = 52;
	fixture_open(&f);
	thread_channels(channels, 4);
	for (n = 0; n < 10; n++)
		id = connect_user(&f, n, channels, 4, NULL);
	before = counts_of(&f);
	cr_assert_eq(before.groups, 50);
	cr_assert_eq(try_connect(&f, n, channels, 4, &extra), -ENOSPC,
		     "5 do not fit: none is made");
	cr_assert_not_null(strstr(registry_why(f.r), "max_groups"));
	keep(&f, 1);
	after = counts_of(&f);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	table_check(&f);
	cr_assert_eq(try_connect(&f, n, channels, 1, &extra), 0);
	disconnect(&f, id);
	keep(&f, f.config.linger_s * SECOND_NS + 1);
	cr_assert_eq(try_connect(&f, n + 1, channels, 4, &extra), 0);
	drain_and_check(&f);
}

/* Each joins ALL and four threads of a name that nobody used before, and leaves. */
static void come_and_go(unsigned user, unsigned times)
{
	static uint64_t name = 1;
	uint64_t channels[4];

	for (unsigned n = 0; n < times; n++) {
		for (unsigned i = 0; i < 4; i++)
			channels[i] = FAN_CHANNEL_THREAD | name++;
		disconnect(&f, connect_user(&f, user, channels, 4, NULL));
		keep(&f, 1);
	}
}

/* Nobody is connected any more: what lingers makes way, the longest lingering first. */
Test(full, lingering_groups_make_way)
{
	uint64_t channels[4];

	f.config.max_groups = 64;
	fixture_open(&f);
	thread_channels(channels, 4);
	disconnect(&f, connect_user(&f, 0, channels, 4, NULL));
	for (unsigned user = 1; user < 12; user++) { /* 60 groups */
		keep(&f, 1);
		disconnect(&f, connect_user(&f, user, channels, 4, NULL));
	}
	cr_assert_eq(counts_of(&f).groups_lingering, 60);
	connect_user(&f, 12, channels, 4, NULL);
	cr_assert_eq(counts_of(&f).groups, 64);
	cr_assert_eq(counts_of(&f).groups_lingering, 59, "no more than needed");
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 0, "not the longest lingering");
	table_check(&f);
	connect_user(&f, 13, channels, 4, NULL);
	cr_assert_eq(counts_of(&f).groups_lingering, 54);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(endpoint_cnt(&f, 0, channels[i]), -1);
	cr_assert_eq(endpoint_cnt(&f, 11, FAN_CHANNEL_ALL), 0);
	/* Whose groups linger himself keeps them, were they the longest lingering of all. */
	connect_user(&f, 2, channels, 4, NULL);
	cr_assert_eq(counts_of(&f).groups_lingering, 49);
	cr_assert_eq(counts_of(&f).groups, 64);
	table_check(&f);
	drain_and_check(&f);
}

/* A full table, of which the comer's own groups linger: none of them is taken for another. */
Test(full, groups_taken_up_do_not_make_way)
{
	uint64_t channels[4], extra;

	f.config.max_groups = 64;
	fixture_open(&f);
	thread_channels(channels, 4);
	disconnect(&f, connect_user(&f, 0, channels, 4, NULL));
	for (unsigned user = 1; user < 12; user++)
		connect_user(&f, user, channels, 4, NULL);
	connect_user(&f, 12, channels, 3, NULL); /* 64, of which 5 linger */
	channels[0] ^= 1;
	cr_assert_eq(try_connect(&f, 0, channels, 4, &extra), 0, "one of five makes way");
	cr_assert_eq(counts_of(&f).groups, 64);
	cr_assert_eq(counts_of(&f).groups_lingering, 0);
	channels[0] ^= 3;
	cr_assert_eq(try_connect(&f, 0, channels, 4, &extra), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "max_groups"));
	table_check(&f);
	drain_and_check(&f);
}

/* One user who comes and goes under new names all the time has his share, and no more. */
Test(full, one_users_lingering_groups_are_bounded)
{
	uint64_t channels[4];
	uint32_t share;

	f.config.max_groups = 200;
	f.config.max_connections_per_user = 4;
	share = 4 * (2 + f.config.max_threads_per_connection);
	fixture_open(&f);
	thread_channels(channels, 4);
	disconnect(&f, connect_user(&f, 1, channels, 4, NULL));
	come_and_go(0, 200);
	cr_assert_eq(counts_of(&f).groups, share + 5);
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(endpoint_cnt(&f, 1, channels[i]), 0, "another's made way");
	table_check(&f);
	fixture_close(&f); /* the sweep knows the shares again */
	fixture_open(&f);
	come_and_go(0, 3);
	cr_assert_eq(counts_of(&f).groups, share + 5);
	table_check(&f);
	drain_and_check(&f);
}

/* Asked before a socket is made. */
Test(full, room_for_groups_is_told_beforehand)
{
	uint64_t channels[4], id = 0;
	uint8_t handle[16];
	unsigned n;

	f.config.max_groups = 52;
	fixture_open(&f);
	thread_channels(channels, 4);
	for (n = 0; n < 10; n++)
		id = connect_user(&f, n, channels, 4, NULL);
	user_handle(handle, n);
	cr_assert_eq(registry_groups_check(f.r, handle, channels, 1), 0);
	cr_assert_eq(registry_groups_check(f.r, handle, channels, 4), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "max_groups"));
	user_handle(handle, 0);
	cr_assert_eq(registry_groups_check(f.r, handle, channels, 4), 0, "they are there");
	disconnect(&f, id);
	user_handle(handle, n);
	cr_assert_eq(registry_groups_check(f.r, handle, channels, 4), 0, "what lingers makes way");
	user_handle(handle, n - 1);
	cr_assert_eq(registry_groups_check(f.r, handle, channels, 4), 0);
	drain_and_check(&f);
}

/* Endpoints run out when connections join more threads than the limits say. */
Test(full, endpoints)
{
	uint64_t channels[CHANNELS_MAX], ids[64], extra;
	struct registry_counts before, after;
	unsigned n = 0;

	f.config.max_groups = 4096;
	fixture_open(&f);
	thread_channels(channels, CHANNELS_MAX);
	while (try_connect(&f, n, channels, CHANNELS_MAX, &ids[n]) == 0)
		cr_assert_lt(++n, 64);
	cr_assert_not_null(
		strstr(registry_why(f.r), "endpoints full: raise limits.max_connections"));
	keep(&f, 1);
	before = counts_of(&f);
	cr_assert_eq(try_connect(&f, 999, channels, CHANNELS_MAX, &extra), -ENOSPC);
	keep(&f, 1);
	after = counts_of(&f);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	table_check(&f);
	drain_and_check(&f);
}

/* Deletions have a reserve: in a table that is full to the brim, anyone can leave. */
Test(full, a_full_table_can_be_emptied)
{
	uint64_t channels[CHANNELS_MAX], ids[8], filler, channel_cnt = CHANNELS_MAX;
	unsigned user = 1;

	f.config.max_groups = 4096;
	fixture_open(&f);
	thread_channels(channels, CHANNELS_MAX);
	for (unsigned i = 0; i < 8; i++)
		ids[i] = connect_user(&f, 0, channels, 4, NULL);
	while (channel_cnt > 0) { /* users with more threads than is allowed fill what is left */
		if (try_connect(&f, user++, channels, (unsigned)channel_cnt, &filler) < 0)
			channel_cnt /= 2;
	}
	for (unsigned i = 0; i < 8; i++) { /* from the middle of the blocks first */
		disconnect(&f, ids[(i + 4) % 8]);
		cr_assert_eq(f.r->leaving.cnt, 0, "the reserve did not do");
		keep(&f, 1);
		table_check(&f);
	}
	drain_and_check(&f);
}

/*
 * Users of 1 to `largest` connections come and go, at 95 % of what the limit allows and with a
 * large site's reserve, while a worker holds what was unlinked for a while: nobody is refused,
 * whatever holes the others have left.
 */
#define CHURN_LIMIT   60000u
#define CHURN_USERS   30000u
#define CHURN_LARGEST 64u

static void come_or_go(unsigned user, uint64_t *ids, unsigned size)
{
	uint32_t live = counts_of(&f).connections_active;
	unsigned i = (unsigned)random() % size;
	bool full = live >= CHURN_LIMIT * 95 / 100;

	if (ids[i] && (full || random() % 4 == 0)) {
		disconnect(&f, ids[i]);
		ids[i] = 0;
	} else if (!ids[i] && !full) {
		ids[i] = connect_user(&f, user, NULL, 0, NULL);
	}
}

static void churn_open(unsigned largest, uint32_t *hog, uint32_t *hogged)
{
	f.config.max_connections = CHURN_LIMIT;
	f.config.max_groups = CHURN_USERS;
	f.config.max_connections_per_user = largest;
	f.config.max_threads_per_connection = 0;
	fixture_open(&f);
	dataplane_start(&f);
	worker_enter(&f, 0);
	keep(&f, SECOND_NS);
	*hogged = f.r->blocks.free_cnt - CHURN_LIMIT - CHURN_LIMIT / 32 - 64 - 2 * largest;
	*hog = block_alloc(&f.r->blocks, *hogged);
}

static void churn(unsigned users, unsigned largest)
{
	static uint64_t ids[CHURN_USERS][CHURN_LARGEST];
	uint32_t hog, hogged, most = 0;

	srandom(11);
	churn_open(largest, &hog, &hogged);
	for (unsigned n = 0; n < 600000; n++) {
		unsigned user = (unsigned)random() % users;

		come_or_go(user, ids[user], 1 + user % largest);
		if (n % 8 == 0) {
			worker_pass(&f, 0);
			keep(&f, 1);
		}
		if (counts_of(&f).connections_active > most)
			most = counts_of(&f).connections_active;
	}
	table_check(&f);
	for (unsigned user = 0; user < users;
	     user++) { /* as slowly: what is left needs no memory */
		for (unsigned i = 0; i < largest; i++) {
			if (ids[user][i])
				disconnect(&f, ids[user][i]);
		}
		worker_pass(&f, 0);
		keep(&f, 1);
	}
	cr_assert_eq(most, CHURN_LIMIT * 95 / 100, "it was never that full");
	block_free(&f.r->blocks, hog, hogged);
	drain_and_check(&f);
}

Test(full, churn_of_small_groups_is_never_refused, .timeout = 60)
{
	churn(CHURN_USERS, 6);
}

Test(full, churn_of_groups_of_all_sizes_is_never_refused, .timeout = 60)
{
	churn(2400, CHURN_LARGEST);
}

/* 38 groups in one bucket of ten slots: three overflow buckets, and none when they are gone. */
Test(full, overflow_buckets_come_and_go)
{
	uint64_t channels[38], id;
	uint32_t before;

	fixture_open(&f);
	before = f.r->free_overflow.cnt;
	crowded_channels(&f, 1, channels, 38);
	id = connect_user(&f, 1, channels, 38, NULL);
	cr_assert_eq(f.r->free_overflow.cnt, before - 3);
	table_check(&f);
	fixture_close(&f);
	fixture_open(&f);
	cr_assert_eq(f.r->free_overflow.cnt, before - 3);
	table_check(&f);
	disconnect(&f, id);
	drain_and_check(&f);
}

/* Buckets go from the front, the middle and the back of their chain. */
Test(full, overflow_buckets_leave_in_any_order)
{
	uint64_t channels[40], ids[4];

	fixture_open(&f);
	crowded_channels(&f, 1, channels, 40);
	for (unsigned leaver = 0; leaver < 4; leaver++) {
		for (unsigned i = 0; i < 4; i++)
			ids[i] = connect_user(&f, 1, channels + 10 * i, 10, NULL);
		disconnect(&f, ids[leaver]);
		keep(&f, f.config.linger_s * SECOND_NS + 1);
		table_check(&f);
		for (unsigned i = 0; i < 40; i++)
			cr_assert_eq(endpoint_cnt(&f, 1, channels[i]), i / 10 == leaver ? -1 : 1);
		drain_and_check(&f);
	}
}

Test(full, overflow_buckets_all_gone)
{
	uint64_t channels[38], id;
	uint32_t cnt;

	fixture_open(&f);
	crowded_channels(&f, 1, channels, 38);
	cnt = f.r->free_overflow.cnt;
	f.r->free_overflow.cnt = 2; /* as if the rest were in use */
	cr_assert_eq(try_connect(&f, 1, channels, 38, &id), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "overflow"));
	cr_assert_eq(counts_of(&f).groups, 0);
	cr_assert_eq(try_connect(&f, 1, channels, 28, &id), 0);
	f.r->free_overflow.cnt = cnt - (2 - f.r->free_overflow.cnt);
	table_check(&f);
	fixture_close(&f); /* which bucket is whose is for the sweep to say again */
	fixture_open(&f);
	drain_and_check(&f);
}

Test(full, sessions)
{
	struct fan_session spec = {.family = 4};
	uint64_t id = 0, extra;

	fixture_open(&f);
	dataplane_start(&f);
	for (unsigned i = 0; i < f.config.max_sessions; i++)
		cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
	cr_assert_eq(registry_session_open(f.r, &spec, &extra), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "max_sessions"));
	cr_assert_eq(registry_session_close(f.r, id), 0);
	cr_assert_eq(registry_session_open(f.r, &spec, &extra), 0);
	cr_assert_neq(extra, id);
}

Test(full, a_session_slot_rests)
{
	struct fan_session spec = {.family = 4};
	uint64_t id = 0, extra;

	fixture_open(&f);
	dataplane_start(&f);
	worker_enter(&f, 0);
	for (unsigned i = 0; i < f.config.max_sessions; i++)
		cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
	cr_assert_eq(registry_session_close(f.r, id), 0);
	cr_assert_eq(registry_session_open(f.r, &spec, &extra), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "worker 0"));
	worker_pass(&f, 0);
	cr_assert_eq(registry_session_open(f.r, &spec, &extra), 0);
}

Test(full, next_hops)
{
	uint8_t address[16] = {0};
	uint32_t idx;
	int rc = 0;

	fixture_open(&f);
	for (uint32_t i = 0; rc == 0 && i <= FAN_NEXTHOPS_MAX; i++) {
		memcpy(address, &i, sizeof(i));
		rc = registry_nexthop_get(f.r, 4, address, 9, address, 1500, &idx);
	}
	cr_assert_eq(rc, -ENOSPC);
	cr_assert_eq(counts_of(&f).nexthops, FAN_NEXTHOPS_MAX);
}
