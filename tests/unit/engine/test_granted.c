/* SPDX-License-Identifier: BSD-3-Clause */
/* What a registration is given: keys, and where its streams stand. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/shm/table.h"
#include "control/link.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
	f.config.seal = true;
	fixture_start(&f);
	dataplane_start(&f);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(granted, .init = setup, .fini = teardown);

/* The dataplane's record of a user's stream, which may be written here. */
static struct fan_group_state *stream(const char *user, uint64_t channel, uint64_t *incarnation)
{
	const struct fan_table *table = registry_table(f.engine.registry);
	const struct fan_group *group;
	uint8_t handle[FAN_HANDLE_LEN];
	uint32_t idx;

	fan_handle(handle, user, strlen(user));
	group = fan_table_lookup(table, handle, channel,
				 fan_table_hash(table->seed, handle, channel));
	cr_assert_not_null(group);
	*incarnation = group->incarnation;
	idx = fan_group_idx(table, group);
	return (struct fan_group_state *)((char *)f.state.base +
					  ((struct fan_state *)f.state.base)->groups_off) +
	       idx;
}

static void has_events(const char *user, uint64_t epoch, uint64_t sequence)
{
	uint64_t incarnation;
	struct fan_group_state *state = stream(user, FAN_CHANNEL_ALL, &incarnation);

	*state = (struct fan_group_state){
		.incarnation = incarnation, .epoch = epoch, .sequence = sequence};
}

Test(granted, the_keys_are_those_of_the_user_in_the_generation_in_force)
{
	const struct fan_registry *root = registry_root(f.engine.registry);
	const struct message *grant = told(&f, MESSAGE_GRANT, ask(&f, "alice", 0), 0);
	const struct message_keys *keys = &grant->u.grant.keys;
	uint8_t seal_root[FAN_KEY_LEN], replay_root[FAN_KEY_LEN];
	uint8_t user_key[FAN_KEY_LEN], replay_key[FAN_TAG_KEY_LEN];

	fan_seal_root(seal_root, f.engine.keys.master, 1, root->header.creation_epoch);
	fan_user_key(user_key, seal_root, 1, grant->u.grant.scope.handle);
	fan_replay_root(replay_root, f.engine.keys.master, root->header.creation_epoch);
	fan_replay_key(replay_key, replay_root, grant->id, root->next_generation - 1, 1,
		       grant->u.grant.scope.handle);
	cr_assert(keys->seal);
	cr_assert_eq(keys->cnt, 1);
	cr_assert_eq(keys->key[0].generation, 1);
	cr_assert_eq(memcmp(keys->key[0].key, user_key, sizeof(user_key)), 0);
	cr_assert_eq(memcmp(keys->replay_key, replay_key, sizeof(replay_key)), 0);
}

Test(granted, streams_that_have_no_event_stand_at_zero)
{
	struct message message = {.type = MESSAGE_REGISTER, .ref = 7};
	const struct message_tails *tails;
	uint64_t id;

	token_for(&f, "alice", 3600, message.u.client.token);
	strcpy(message.u.client.threads[0], "room");
	message.u.client.thread_cnt = 1;
	message.u.client.single = true;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
	id = bind_grant(&f, 7);
	settle(&f, 20);
	echo(&f, id);
	tails = &told(&f, MESSAGE_ACTIVE, 7, id)->u.active.tails;
	cr_assert_eq(tails->cnt, 3);
	cr_assert_eq(tails->tail[0].channel, FAN_CHANNEL_ALL);
	cr_assert_eq(tails->tail[1].channel & FAN_CHANNEL_KIND_MASK, FAN_CHANNEL_THREAD);
	cr_assert_eq(tails->tail[2].channel, FAN_CHANNEL_SINGLE | id);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(tails->tail[i].epoch, 0);
		cr_assert_eq(tails->tail[i].sequence, 0);
	}
}

static void event_comes(void *arg, const char *step)
{
	has_events("alice", 77, 6);
}

/* An event that comes while the connection is put into the table is its own: it comes after. */
Test(granted, tails_are_those_from_before_the_table)
{
	const struct message_tails *tails;
	uint64_t ref, id;

	subscribe(&f, "alice", 0, NULL);
	has_events("alice", 77, 5);
	ref = ask(&f, "alice", 0);
	id = bind_grant(&f, ref);
	settle(&f, 20);
	registry_set_step(f.engine.registry, event_comes, NULL);
	echo(&f, id);
	registry_set_step(f.engine.registry, NULL, NULL);
	tails = &told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails;
	cr_assert_eq(tails->cnt, 1);
	cr_assert_eq(tails->tail[0].epoch, 77);
	cr_assert_eq(tails->tail[0].sequence, 5);
}

Test(granted, a_record_of_another_incarnation_says_nothing)
{
	struct fan_group_state *state;
	uint64_t incarnation, ref, id;

	subscribe(&f, "alice", 0, NULL);
	state = stream("alice", FAN_CHANNEL_ALL, &incarnation);
	*state = (struct fan_group_state){
		.incarnation = incarnation + 1, .epoch = 77, .sequence = 5};
	id = subscribe(&f, "alice", 0, &ref);
	cr_assert_eq(told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails.tail[0].epoch, 0);
	cr_assert_eq(told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails.tail[0].sequence, 0);
}

static const struct message *answered(enum message_type asked, enum message_type type, uint64_t id)
{
	struct message message = {.type = asked, .ref = 900, .id = id};
	const struct registration *r = registrations_find(f.engine.registrations, id);

	token_for(&f, "alice", 3600, message.u.client.token);
	message.u.client.cookie = r->cookie;
	memcpy(message.u.client.handle, r->user->handle, FAN_HANDLE_LEN);
	if (asked == MESSAGE_RENEW)
		message.u.client.token[0] = 0;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
	return told(&f, type, 900, id);
}

Test(granted, a_renewal_tells_the_tails_and_no_key)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);
	const struct message *renewed;

	has_events("alice", 77, 9);
	renewed = answered(MESSAGE_RENEW, MESSAGE_RENEWED, id);
	cr_assert_not_null(renewed);
	cr_assert_eq(renewed->u.grant.tails.cnt, 1);
	cr_assert_eq(renewed->u.grant.tails.tail[0].channel, FAN_CHANNEL_ALL);
	cr_assert_eq(renewed->u.grant.tails.tail[0].epoch, 77);
	cr_assert_eq(renewed->u.grant.tails.tail[0].sequence, 9);
	cr_assert_eq(renewed->u.grant.keys.cnt, 0);
}

Test(granted, who_comes_back_is_told_keys_and_tails)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);
	const struct message *attached;

	has_events("alice", 77, 9);
	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 100);
	attached = answered(MESSAGE_ATTACH, MESSAGE_ATTACHED, id);
	cr_assert_not_null(attached);
	cr_assert_eq(attached->u.grant.tails.cnt, 1);
	cr_assert_eq(attached->u.grant.tails.tail[0].sequence, 9);
	cr_assert_eq(attached->u.grant.keys.cnt, 1);
	cr_assert(attached->u.grant.keys.seal);
}

/* ---- lingering: resume needs the same stream --------------------------------------------------
 */

static uint64_t incarnation_of(const char *user)
{
	uint64_t incarnation;

	stream(user, FAN_CHANNEL_ALL, &incarnation);
	return incarnation;
}

static void comes_back_to_the_same_stream(uint64_t before)
{
	uint64_t ref, id;

	cr_assert_eq(endpoints(&f, "alice"), 0, "the group lingers");
	id = subscribe(&f, "alice", 0, &ref);
	cr_assert_eq(incarnation_of("alice"), before);
	cr_assert_eq(told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails.tail[0].epoch, 77);
	cr_assert_eq(told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails.tail[0].sequence, 3);
}

Test(granted, the_next_connection_meets_the_same_stream_while_the_group_lingers)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), before = incarnation_of("alice");

	has_events("alice", 77, 3);
	registrations_end(f.engine.registrations, registrations_find(f.engine.registrations, id),
			  MESSAGE_END_CLOSED, 0, "closed");
	settle(&f, 1000);
	comes_back_to_the_same_stream(before);
}

Test(granted, also_where_the_last_connection_ended_by_its_lease)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), before = incarnation_of("alice");

	has_events("alice", 77, 3);
	settle(&f, f.config.lease_s * 1000 + 500);
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_LEASE);
	comes_back_to_the_same_stream(before);
}

Test(granted, after_the_linger_time_it_is_another_stream)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), before = incarnation_of("alice"), ref;

	has_events("alice", 77, 3);
	registrations_end(f.engine.registrations, registrations_find(f.engine.registrations, id),
			  MESSAGE_END_CLOSED, 0, "closed");
	settle(&f, f.config.linger_s * 1000 + 100);
	cr_assert_eq(endpoints(&f, "alice"), -1);
	id = subscribe(&f, "alice", 0, &ref);
	cr_assert_neq(incarnation_of("alice"), before);
	cr_assert_eq(told(&f, MESSAGE_ACTIVE, ref, id)->u.active.tails.tail[0].sequence, 0);
}
