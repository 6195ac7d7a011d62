/* SPDX-License-Identifier: BSD-3-Clause */
/* What the registry's functions promise, one by one. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/registry/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
	fixture_open(&f);
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(registry, .init = setup, .fini = teardown);

Test(registry, a_new_region_is_empty_and_says_so)
{
	struct registry_counts counts = counts_of(&f);
	const struct fan_registry *root = registry_root(f.r);

	cr_assert_eq(counts.connections_active, 0);
	cr_assert_eq(counts.endpoints_free, root->endpoint_cnt);
	cr_assert_eq(root->max_unattended_ns, 3600 * SECOND_NS);
	cr_assert_neq(root->heartbeat_ns, 0);
	cr_assert_eq(endpoint_cnt(&f, 0, FAN_CHANNEL_ALL), -1);
	table_check(&f);
	drain_and_check(&f);
}

Test(registry, a_second_writer_is_refused)
{
	struct registry *other;
	char why[1024];

	cr_assert_eq(registry_open(&other, &f.config, why), -EBUSY);
	cr_assert(strlen(why) > 0);
}

Test(registry, a_connection_is_pending_until_it_is_activated)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;
	uint64_t ids[4];

	spec.lease_ns = 77;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(c.state, FAN_CONNECTION_PENDING);
	cr_assert(c.id != 0 && !(c.id & ~FAN_CONNECTION_ID_MASK));
	cr_assert_neq(c.generation, 0);
	cr_assert_eq(c.lease_ns, 100000000, "a tenth of a second, rounded up");
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), -1);
	cr_assert_eq(registry_user_connections(f.r, spec.handle, ids, 4), 1);
	cr_assert_eq(ids[0], c.id);
	table_check(&f);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), 0);
	cr_assert_eq(connection_of(&f, c.id).state, FAN_CONNECTION_ACTIVE);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 1);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), -EALREADY);
	table_check(&f);
	drain_and_check(&f);
}

Test(registry, a_group_carries_the_users_key)
{
	const struct fan_table *t = registry_table(f.r);
	struct registry_user_keys keys = user_keys(9);
	const struct fan_group *group;
	uint8_t handle[16];

	connect_user(&f, 9, NULL, 0, NULL);
	user_handle(handle, 9);
	group = fan_table_lookup(t, handle, FAN_CHANNEL_ALL,
				 fan_table_hash(t->seed, handle, FAN_CHANNEL_ALL));
	cr_assert_not_null(group);
	cr_assert_eq(memcmp(group->tag_key, keys.tag_key, 16), 0);
	cr_assert_eq(group->user_generation, 1);
	cr_assert_eq(group->key_generation, 1);
	cr_assert_eq(group->incarnation, 1);
}

Test(registry, an_id_in_use_is_refused_also_while_it_ends)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_connection c;

	spec.id = 4711;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(c.id, 4711);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), -EEXIST);
	disconnect(&f, 4711);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), -EEXIST);
	keep(&f, 1);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
}

Test(registry, a_senseless_connection_is_refused)
{
	struct registry_connection good = connection_spec(&f, 1), spec;
	struct registry_connection c;

	spec = good;
	spec.id = UINT64_C(1) << 62;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), -EINVAL);
	spec = good;
	spec.family = 5;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), -EINVAL);
	spec = good;
	spec.nexthop = f.nexthop + 1;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), -EINVAL);
	cr_assert_eq(counts_of(&f).connections_pending, 0);
}

Test(registry, threads_and_single_are_joined_with_all)
{
	struct registry_connection spec = connection_spec(&f, 3);
	struct registry_user_keys keys = user_keys(3);
	struct registry_connection c;
	uint64_t channels[5], told[8];

	spec.id = 99;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	thread_channels(channels, 2);
	channels[2] = FAN_CHANNEL_SINGLE | 99;
	channels[3] = channels[0]; /* twice: joined once */
	channels[4] = FAN_CHANNEL_ALL;
	cr_assert_eq(registry_connection_activate(f.r, 99, &keys, channels, 5), 0);
	cr_assert_eq(endpoint_cnt(&f, 3, FAN_CHANNEL_ALL), 1);
	cr_assert_eq(endpoint_cnt(&f, 3, channels[0]), 1);
	cr_assert_eq(endpoint_cnt(&f, 3, channels[1]), 1);
	cr_assert_eq(endpoint_cnt(&f, 3, channels[2]), 1);
	cr_assert_eq(registry_connection_channels(f.r, 99, told, 8), 4);
	cr_assert_eq(counts_of(&f).groups, 4);
	table_check(&f);
	drain_and_check(&f);
}

Test(registry, channels_of_others_and_of_no_kind_are_refused)
{
	struct registry_connection spec = connection_spec(&f, 3);
	struct registry_user_keys keys = user_keys(3);
	uint64_t foreign = FAN_CHANNEL_SINGLE | 5, unknown = UINT64_C(3) << 62;
	uint64_t many[CHANNELS_MAX + 1];
	struct registry_connection c;

	thread_channels(many, CHANNELS_MAX + 1);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, &foreign, 1), -EINVAL);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, &unknown, 1), -EINVAL);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, many, CHANNELS_MAX + 1),
		     -E2BIG);
	cr_assert_eq(registry_connection_activate(f.r, c.id + 1, &keys, NULL, 0), -ENOENT);
	cr_assert_eq(c.state, FAN_CONNECTION_PENDING);
	cr_assert_eq(counts_of(&f).groups, 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, many, CHANNELS_MAX), 0);
	table_check(&f);
	drain_and_check(&f);
}

Test(registry, deletion_compares_the_generation)
{
	uint32_t generation;
	uint64_t id = connect_user(&f, 1, NULL, 0, &generation);

	cr_assert_eq(registry_connection_del(f.r, id, generation + 1), -ESTALE);
	cr_assert_eq(connection_of(&f, id).state, FAN_CONNECTION_ACTIVE);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 1);
	table_check(&f);
	cr_assert_eq(registry_connection_del(f.r, id, generation), 0);
	cr_assert_eq(registry_connection_del(f.r, id, generation), -EALREADY);
	cr_assert_eq(registry_connection_del(f.r, id + 1, generation), -ENOENT);
}

/* The same id again is another generation: what was meant for the first does not touch it. */
Test(registry, a_stale_deletion_leaves_the_successor_alone)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;
	uint32_t first;

	spec.id = 5;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	first = c.generation;
	cr_assert_eq(registry_connection_del(f.r, 5, first), 0);
	keep(&f, 1);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, 5, &keys, NULL, 0), 0);
	cr_assert_neq(c.generation, first);
	cr_assert_eq(registry_connection_del(f.r, 5, first), -ESTALE);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 1);
}

/* First, middle and last of a block take different ways out. */
Test(registry, any_member_of_a_group_can_leave)
{
	for (unsigned leaver = 0; leaver < 5; leaver++) {
		uint64_t ids[5];

		for (unsigned i = 0; i < 5; i++)
			ids[i] = connect_user(&f, 1, NULL, 0, NULL);
		disconnect(&f, ids[leaver]);
		cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 4);
		table_check(&f);
		drain_and_check(&f);
	}
}

Test(registry, a_group_lingers_and_goes_on_when_somebody_comes_back)
{
	const struct fan_table *t = registry_table(f.r);
	uint64_t id = connect_user(&f, 1, NULL, 0, NULL);
	uint64_t incarnation = t->groups[0].incarnation;

	disconnect(&f, id);
	keep(&f, SECOND_NS);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 0);
	cr_assert_eq(counts_of(&f).groups_lingering, 1);
	cr_assert_eq(counts_of(&f).users, 0, "a user has a connection");
	id = connect_user(&f, 1, NULL, 0, NULL);
	cr_assert_eq(counts_of(&f).groups_lingering, 0);
	cr_assert_eq(t->groups[0].incarnation, incarnation, "the stream goes on");
	keep(&f, 5 * SECOND_NS);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 1);
	disconnect(&f, id);
	keep(&f, 2 * SECOND_NS - 1);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 0);
	keep(&f, 2);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), -1);
	connect_user(&f, 1, NULL, 0, NULL);
	cr_assert_eq(registry_root(f.r)->next_incarnation, incarnation + 2, "another stream");
	drain_and_check(&f);
}

/* Another user generation is another group, in one store; those who were in it stay. */
Test(registry, another_user_generation_makes_another_group_with_the_same_members)
{
	const struct fan_table *t = registry_table(f.r);
	uint64_t a = connect_user(&f, 1, NULL, 0, NULL);
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;
	const struct fan_group *group;

	keys.user_generation = 2;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), 0);
	group = fan_table_lookup(t, spec.handle, FAN_CHANNEL_ALL,
				 fan_table_hash(t->seed, spec.handle, FAN_CHANNEL_ALL));
	cr_assert_eq(group->user_generation, 2);
	cr_assert_eq(group->incarnation, 2);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 2);
	cr_assert_eq(counts_of(&f).groups, 1);
	table_check(&f);
	disconnect(&f, a);
	table_check(&f);
	drain_and_check(&f);
}

/* Streams go on: their keys are written in place, and who joins meanwhile joins the same group. */
Test(registry, a_rotation_changes_keys_and_begins_no_stream_anew)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;
	uint64_t incarnation;

	roots_give(&f, 1);
	connect_user(&f, 1, NULL, 0, NULL);
	incarnation = registry_root(f.r)->next_incarnation;
	cr_assert_eq(registry_other_generation(f.r), 0);
	cr_assert_eq(registry_generation_switch(f.r, 2), -ENOENT);
	roots_give(&f, 2);
	cr_assert_eq(registry_other_generation(f.r), 2);
	cr_assert_eq(registry_root(f.r)->key_generation, 1, "until the switch");
	cr_assert_eq(registry_generation_switch(f.r, 2), 0);
	cr_assert_eq(registry_other_generation(f.r), 1);
	cr_assert_not(registry_keys_rewritten(f.r));
	keys.key_generation = 2;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), 0);
	cr_assert_eq(registry_root(f.r)->next_incarnation, incarnation, "the same stream");
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 2);
	keep(&f, 1);
	cr_assert(registry_keys_rewritten(f.r));
	tag_keys_check(&f);
	registry_roots_retire(f.r);
	cr_assert_eq(registry_other_generation(f.r), 0);
	cr_assert_null(fan_root_of(registry_root(f.r), 1));
	for (unsigned i = 0; i < 2; i++)
		for (unsigned j = 0; j < 32 && !registry_root(f.r)->key_roots[i].generation; j++)
			cr_assert_eq(registry_root(f.r)->key_roots[i].seal_root[j], 0, "wiped");
	drain_and_check(&f);
}

Test(registry, roots_in_force_are_never_replaced)
{
	uint8_t other[FAN_KEY_LEN] = {7};

	roots_give(&f, 1);
	roots_give(&f, 1);
	cr_assert_eq(registry_roots_set(f.r, 1, other, other), -ESTALE);
	cr_assert_neq(strstr(registry_why(f.r), "another master key"), NULL);
	roots_give(&f, 2);
	roots_give(&f, 3);
	cr_assert_not_null(fan_root_of(registry_root(f.r), 1));
	cr_assert_null(fan_root_of(registry_root(f.r), 2), "a third one takes its place");
}

Test(registry, revocation_ends_everything_of_one_user)
{
	uint64_t channels[3], ids[4];
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_connection c;

	thread_channels(channels, 3);
	ids[0] = connect_user(&f, 1, channels, 3, NULL);
	ids[1] = connect_user(&f, 1, channels, 1, NULL);
	ids[2] = connect_user(&f, 2, channels, 3, NULL);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	ids[3] = c.id;
	cr_assert_eq(registry_user_revoke(f.r, spec.handle), 0);
	table_check(&f);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), -1);
	cr_assert_eq(endpoint_cnt(&f, 1, channels[2]), -1);
	cr_assert_eq(endpoint_cnt(&f, 2, channels[2]), 1);
	cr_assert_eq(connection_of(&f, ids[0]).state, FAN_CONNECTION_ENDING);
	cr_assert_eq(connection_of(&f, ids[3]).state, FAN_CONNECTION_ENDING);
	cr_assert_eq(registry_user_connections(f.r, spec.handle, NULL, 0), 0);
	cr_assert_eq(counts_of(&f).users, 1);
	cr_assert_eq(registry_user_revoke(f.r, spec.handle), 0, "again: nothing to do");
	drain_and_check(&f);
}

Test(registry, revocation_takes_lingering_groups_too)
{
	uint8_t handle[16];

	disconnect(&f, connect_user(&f, 1, NULL, 0, NULL));
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 0);
	user_handle(handle, 1);
	cr_assert_eq(registry_user_revoke(f.r, handle), 0);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), -1);
	drain_and_check(&f);
}

static void count_freed(void *arg, uint64_t id)
{
	uint64_t *freed = arg;

	freed[0]++;
	freed[1] = id;
}

Test(registry, the_end_of_a_connection_is_told_once)
{
	uint64_t freed[2] = {0}, id;

	registry_set_on_connection_free(f.r, count_freed, freed);
	id = connect_user(&f, 1, NULL, 0, NULL);
	disconnect(&f, id);
	cr_assert_eq(freed[0], 0, "not before housekeeping");
	keep(&f, 1);
	cr_assert_eq(freed[0], 1);
	cr_assert_eq(freed[1], id);
	cr_assert_not(connection_there(&f, id));
	keep(&f, 1);
	cr_assert_eq(freed[0], 1);
}

Test(registry, a_lease_is_renewed_until_the_end)
{
	uint64_t id = connect_user(&f, 1, NULL, 0, NULL);

	cr_assert_eq(registry_connection_renew(f.r, id, 5 * SECOND_NS + 1, 6), 0);
	cr_assert_eq(connection_of(&f, id).lease_ns, 5 * SECOND_NS + 100000000, "rounded up");
	cr_assert_eq(connection_of(&f, id).token_expiry_s, 6);
	disconnect(&f, id);
	cr_assert_eq(registry_connection_renew(f.r, id, 7, 8), -ESTALE);
	cr_assert_eq(registry_connection_renew(f.r, id + 1, 7, 8), -ENOENT);
}

/* ---- vouched connections: no socket, no lease, no challenge ---- */

static struct registry_connection vouched_spec(unsigned user)
{
	struct registry_connection spec = connection_spec(&f, user);

	spec.cookie = 0;
	spec.since_s = 77;
	return spec;
}

Test(registry, a_vouched_connection_is_active_at_once)
{
	struct registry_connection spec = vouched_spec(1), c;
	struct registry_user_keys keys = user_keys(1);
	uint64_t channels[2];

	thread_channels(channels, 2);
	cr_assert_eq(registry_connection_vouch(f.r, &spec, &keys, channels, 2, &c), 0);
	cr_assert_eq(c.state, FAN_CONNECTION_ACTIVE);
	cr_assert(c.vouched && c.cookie == 0 && c.lease_ns == 0 && c.since_s == 77);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 1);
	cr_assert_eq(endpoint_cnt(&f, 1, channels[1]), 1);
	cr_assert_eq(registry_connection_renew(f.r, c.id, SECOND_NS, 1), -EINVAL);
	fixture_close(&f);
	fixture_open(&f);
	cr_assert(connection_of(&f, c.id).vouched);
	cr_assert_eq(memcmp(connection_of(&f, c.id).handle, spec.handle, 16), 0);
	table_check(&f);
	drain_and_check(&f);
}

Test(registry, a_connection_with_a_socket_or_a_lease_is_not_vouched)
{
	struct registry_connection spec = vouched_spec(1), c;
	struct registry_user_keys keys = user_keys(1);

	spec.cookie = 5;
	cr_assert_eq(registry_connection_vouch(f.r, &spec, &keys, NULL, 0, &c), -EINVAL);
	spec.cookie = 0;
	spec.lease_ns = 1;
	cr_assert_eq(registry_connection_vouch(f.r, &spec, &keys, NULL, 0, &c), -EINVAL);
	cr_assert_eq(counts_of(&f).connections_pending, 0);
}

/* No record, no user, no group: as if it had not been asked for. */
Test(registry, a_vouched_connection_that_finds_no_room_leaves_nothing)
{
	struct registry_connection spec = vouched_spec(1), c;
	struct registry_user_keys keys = user_keys(1);
	uint64_t channels[CHANNELS_MAX];
	struct registry_counts before, after;

	thread_channels(channels, CHANNELS_MAX);
	f.r->groups_max = CHANNELS_MAX;
	before = counts_of(&f);
	cr_assert_eq(registry_connection_vouch(f.r, &spec, &keys, channels, CHANNELS_MAX, &c),
		     -ENOSPC);
	after = counts_of(&f);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	cr_assert_not(connection_there(&f, c.id));
	table_check(&f);
	drain_and_check(&f);
}

/* Whose an ending connection is, is known while it rests, but for those of before a takeover. */
Test(registry, an_ending_connection_is_of_its_user)
{
	struct registry_connection spec = connection_spec(&f, 1);
	uint64_t id = connect_user(&f, 1, NULL, 0, NULL), ids[2];

	disconnect(&f, id);
	cr_assert_eq(memcmp(connection_of(&f, id).handle, spec.handle, 16), 0);
	cr_assert_eq(registry_user_connections(f.r, spec.handle, ids, 2), 0);
	cr_assert_eq(registry_user_ending(f.r, spec.handle, ids, 2), 1);
	cr_assert_eq(ids[0], id);
	fixture_close(&f);
	fixture_open(&f);
	memset(spec.handle, 0, sizeof(spec.handle));
	cr_assert_eq(memcmp(connection_of(&f, id).handle, spec.handle, 16), 0);
	drain_and_check(&f);
}

Test(registry, a_user_sees_as_many_ids_as_it_asks_for)
{
	uint64_t ids[2] = {0};
	uint8_t handle[16];

	for (unsigned i = 0; i < 3; i++)
		connect_user(&f, 1, NULL, 0, NULL);
	user_handle(handle, 1);
	cr_assert_eq(registry_user_connections(f.r, handle, ids, 2), 3);
	cr_assert(ids[0] && ids[1] && ids[0] != ids[1]);
	user_handle(handle, 2);
	cr_assert_eq(registry_user_connections(f.r, handle, ids, 2), 0);
}

Test(registry, a_next_hop_is_made_once_and_its_mac_is_one_word)
{
	const uint8_t a[16] = {1}, source[16] = {2}, mac[6] = {1, 2, 3, 4, 5, 6};
	const struct fan_table *t = registry_table(f.r);
	uint32_t first, second, other;

	cr_assert_eq(registry_nexthop_get(f.r, 4, a, 3, source, 1500, &first), 0);
	cr_assert_eq(registry_nexthop_get(f.r, 4, a, 3, source, 9000, &second), 0);
	cr_assert_eq(registry_nexthop_get(f.r, 4, a, 4, source, 1500, &other), 0);
	cr_assert_eq(first, second);
	cr_assert_neq(first, other);
	cr_assert_eq(t->nexthops[first].mtu, 9000);
	registry_nexthop_set_mac(f.r, first, mac);
	cr_assert_eq(t->nexthops[first].mac, FAN_NEXTHOP_RESOLVED | UINT64_C(0x060504030201));
	registry_nexthop_set_mac(f.r, first, NULL);
	cr_assert_eq(t->nexthops[first].mac, 0);
	cr_assert_eq(registry_nexthop_get(f.r, 7, a, 3, source, 1500, &other), -EINVAL);
}

Test(registry, a_session_needs_a_dataplane)
{
	struct fan_session spec = {.family = 4, .port = 1, .scope = FAN_SCOPE_ANY};
	uint64_t id = 0;

	cr_assert_eq(registry_session_open(f.r, &spec, &id), -ENOTCONN);
	dataplane_start(&f);
	cr_assert_eq(registry_session_open(f.r, &spec, &id), 0, "%s", registry_why(f.r));
	cr_assert_eq(registry_state(f.r)->header.creation_epoch,
		     ((struct fan_state *)f.state.base)->header.creation_epoch);
}

Test(registry, a_session_is_found_by_its_id_until_it_is_closed)
{
	const struct fan_table *t = registry_table(f.r);
	struct fan_session spec = {.family = 4, .port = 7, .scope = FAN_SCOPE_ONE};
	const struct fan_session *session;
	uint32_t cursor = 0;
	uint64_t id;

	memset(spec.key, 0x5a, sizeof(spec.key));
	dataplane_start(&f);
	keep(&f, SECOND_NS);
	cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
	session = fan_table_session(t, id);
	cr_assert_not_null(session);
	cr_assert_eq(session->key[31], 0x5a);
	cr_assert_eq(session->state_epoch, registry_state(f.r)->header.creation_epoch);
	cr_assert_eq(registry_session_next(f.r, &cursor), session);
	cr_assert_null(registry_session_next(f.r, &cursor));
	cr_assert_null(fan_table_session(t, id ^ UINT64_C(1) << 40));
	cr_assert_eq(registry_session_close(f.r, id ^ UINT64_C(1) << 40), -ENOENT);
	cr_assert_eq(registry_session_close(f.r, id), 0);
	cr_assert_null(fan_table_session(t, id));
	cr_assert_eq(registry_session_close(f.r, id), -ENOENT);
	keep(&f, 1);
	cr_assert_eq(session->key[31], 0, "its key goes when its rest is over");
}

Test(registry, sessions_outlive_a_restart_and_the_death_of_their_state_region)
{
	struct fan_session spec = {.family = 4};
	const struct fan_session *session;
	uint32_t cursor = 0;
	uint64_t id, second;

	dataplane_start(&f);
	cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
	fixture_close(&f);
	fixture_open(&f);
	cr_assert_eq(counts_of(&f).sessions, 1);
	dataplane_kill(&f);
	dataplane_remove_file(&f);
	dataplane_start(&f);
	keep(&f, SECOND_NS);
	session = registry_session_next(f.r, &cursor);
	cr_assert_eq(session->id, id);
	cr_assert_neq(session->state_epoch, registry_state(f.r)->header.creation_epoch);
	cr_assert_eq(registry_session_open(f.r, &spec, &second), 0);
	cr_assert_eq(fan_table_session(registry_table(f.r), second)->state_epoch,
		     registry_state(f.r)->header.creation_epoch);
	cr_assert_eq(registry_session_close(f.r, id), 0);
}

Test(registry, requests_reach_the_dataplane_in_order_until_the_ring_is_full)
{
	const struct fan_registry *root = registry_root(f.r);
	struct fan_request request = {.type = FAN_REQUEST_CHALLENGE}, got;
	struct fan_state *state;

	cr_assert_not(registry_request(f.r, &request), "there is no dataplane");
	dataplane_start(&f);
	keep(&f, SECOND_NS);
	state = f.state.base;
	for (request.salt = 0; request.salt < FAN_REQUEST_CNT; request.salt++)
		cr_assert(registry_request(f.r, &request));
	cr_assert_not(registry_request(f.r, &request), "the ring is full");
	for (uint64_t i = 0; i < FAN_REQUEST_CNT; i++) {
		cr_assert(fan_ring_try_pop((const char *)root + root->requests_off,
					   root->request_cnt, sizeof(got), &root->request_head,
					   &state->request_tail, &got));
		cr_assert_eq(got.salt, i);
	}
	cr_assert(registry_request(f.r, &request));
	state->request_tail = root->request_head + 5; /* impossible */
	cr_assert_not(registry_request(f.r, &request));
}

static void report_push(unsigned idx, uint64_t connection)
{
	struct fan_report report = {.type = FAN_REPORT_ECHO, .connection = connection};
	struct fan_worker_state *w = worker(&f, idx);

	cr_assert(fan_ring_try_push(w->reports, FAN_REPORT_CNT, sizeof(report), &w->report_head,
				    &registry_root(f.r)->report_tail[idx], &report));
}

Test(registry, reports_of_every_worker_arrive_and_outlive_a_restart)
{
	struct fan_report report;
	uint64_t seen = 0;

	cr_assert_not(registry_report(f.r, &report));
	dataplane_start(&f);
	keep(&f, SECOND_NS);
	report_push(0, 1);
	report_push(0, 2);
	report_push(15, 4);
	cr_assert(registry_report(f.r, &report));
	seen += report.connection;
	fixture_close(&f);
	fixture_open(&f);
	while (registry_report(f.r, &report))
		seen += report.connection;
	cr_assert_eq(seen, 7);
	worker(&f, 0)->report_head += 2 * FAN_REPORT_CNT; /* impossible */
	cr_assert_not(registry_report(f.r, &report));
}

Test(registry, the_heartbeat_is_published)
{
	keep(&f, SECOND_NS);
	cr_assert_eq(registry_root(f.r)->heartbeat_ns, f.now_ns);
}

/* ---- restarts ---- */

Test(registry, everything_is_there_after_a_restart)
{
	uint64_t channels[2], id, other;
	uint32_t generation;

	thread_channels(channels, 2);
	id = connect_user(&f, 1, channels, 2, &generation);
	other = connect_user(&f, 1, NULL, 0, NULL);
	disconnect(&f, connect_user(&f, 2, NULL, 0, NULL));
	registry_connection_renew(f.r, id, 12 * SECOND_NS, 456);
	fixture_close(&f);
	fixture_open(&f);
	table_check(&f);
	cr_assert_eq(connection_of(&f, id).generation, generation);
	cr_assert_eq(connection_of(&f, id).lease_ns, 12 * SECOND_NS);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 2);
	cr_assert_eq(endpoint_cnt(&f, 1, channels[1]), 1);
	cr_assert_eq(endpoint_cnt(&f, 2, FAN_CHANNEL_ALL), 0, "it lingers on");
	cr_assert_eq(counts_of(&f).users, 1);
	disconnect(&f, other);
	drain_and_check(&f);
}

/* Freed and told, not dropped: a challenge to the pending one's port may be under way. */
Test(registry, a_restart_ends_the_pending_and_completes_the_ending)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_connection c;
	uint64_t freed[2] = {0}, pending, ending, ids[2];

	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	pending = c.id;
	ending = connect_user(&f, 2, NULL, 0, NULL);
	disconnect(&f, ending);
	fixture_close(&f);
	fixture_open(&f);
	registry_set_on_connection_free(f.r, count_freed, freed);
	cr_assert_eq(connection_of(&f, pending).state, FAN_CONNECTION_ENDING);
	cr_assert_eq(registry_user_connections(f.r, spec.handle, ids, 2), 0);
	cr_assert_eq(connection_of(&f, ending).state, FAN_CONNECTION_ENDING);
	keep(&f, 1);
	cr_assert_eq(freed[0], 2);
	cr_assert_not(connection_there(&f, pending));
	cr_assert_not(connection_there(&f, ending));
	drain_and_check(&f);
}

Test(registry, other_limits_are_refused_by_name)
{
	struct fan_config good = f.config;

	fixture_close(&f);
	f.config.max_groups *= 2;
	cr_assert_eq(registry_open(&f.r, &f.config, f.why), -EPROTO);
	cr_assert_not_null(strstr(f.why, "max_groups"));
	f.config = good;
	f.config.max_connections++;
	cr_assert_eq(registry_open(&f.r, &f.config, f.why), -EPROTO);
	cr_assert_not_null(strstr(f.why, "max_connections"));
	f.config = good;
	f.config.max_sessions *= 2;
	cr_assert_eq(registry_open(&f.r, &f.config, f.why), -EPROTO);
	cr_assert_not_null(strstr(f.why, "max_sessions"));
	f.config = good;
	f.config.max_threads_per_connection++;
	cr_assert_eq(registry_open(&f.r, &f.config, f.why), -EPROTO);
	cr_assert_not_null(strstr(f.why, "max_threads"));
	f.config = good;
	f.r = NULL;
	fixture_open(&f);
}

Test(registry, a_leftover_of_a_killed_creator_is_no_obstacle)
{
	char path[2 * FAN_PATH_MAX], why[256];
	struct fan_region unfinished;

	fixture_close(&f);
	snprintf(path, sizeof(path), "%s/registry", f.config.region_dir);
	remove(path);
	strcat(path, ".new");
	cr_assert_eq(fan_region_create(&unfinished, path, FAN_REGION_MAGIC_REGISTRY,
				       sizeof(struct fan_registry), 1 << 16, why),
		     0);
	cr_assert_eq(registry_open(&f.r, &f.config, f.why), -EBUSY, "its creator lives");
	fan_region_close(&unfinished);
	fixture_open(&f);
}

/* 100 connect/disconnect cycles of 20 leave everything where it was. */
Test(registry, churn_leaves_nothing_behind)
{
	uint64_t channels[2], ids[20];
	struct registry_counts before, after;

	thread_channels(channels, 2);
	connect_user(&f, 50, channels, 2, NULL);
	before = counts_of(&f);
	for (unsigned cycle = 0; cycle < 100; cycle++) {
		for (unsigned i = 0; i < 20; i++)
			ids[i] = connect_user(&f, i / 3, channels, i % 3, NULL);
		for (unsigned i = 0; i < 20; i++)
			disconnect(&f, ids[(i * 7) % 20]);
		keep(&f, 1000000);
	}
	keep(&f, f.config.linger_s * SECOND_NS + 1);
	keep(&f, 1);
	after = counts_of(&f);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	drain_and_check(&f);
}

/* Asking ahead changes nothing, whatever it is asked for: what is there, what was, what never was.
 */
Test(registry, asking_ahead_changes_nothing)
{
	uint64_t ids[REGISTRY_AHEAD_MAX + 1], channels[] = {FAN_CHANNEL_THREAD | 1};
	uint8_t handle[16], nobody[16] = {0xff};
	const uint8_t *handles[REGISTRY_AHEAD_MAX];

	for (unsigned i = 0; i < REGISTRY_AHEAD_MAX; i++) {
		handles[i] = i % 2 ? handle : nobody;
		ids[i] = i % 3 ? connect_user(&f, i % 3, channels, i % 2, NULL) : i;
	}
	ids[REGISTRY_AHEAD_MAX] = UINT64_MAX;
	user_handle(handle, 1);
	for (unsigned round = 0; round < 2; round++) {
		registry_ahead_add(f.r, ids, handles, REGISTRY_AHEAD_MAX);
		registry_ahead_del(f.r, ids, REGISTRY_AHEAD_MAX + 1);
		table_check(&f);
		for (unsigned i = 0; i < REGISTRY_AHEAD_MAX; i += 3 - round)
			if (i % 3 && registry_connection_channels(f.r, ids[i], NULL, 0))
				disconnect(&f, ids[i]);
	}
	drain_and_check(&f);
}
