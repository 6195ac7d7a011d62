/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/link.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

#define S 1000 /* milliseconds */

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
	fixture_start(&f);
	dataplane_start(&f);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(registration, .init = setup, .fini = teardown);

static struct registration *find(uint64_t id)
{
	return registrations_find(f.engine.registrations, id);
}

static void tell(enum message_type type, uint64_t ref, uint64_t id)
{
	struct message message = {.type = type, .ref = ref, .id = id};

	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
}

Test(registration, from_token_to_table)
{
	uint64_t ref = ask(&f, "alice", 0), id;
	const struct message *grant = told(&f, MESSAGE_GRANT, ref, 0);
	struct registry_connection record;

	cr_assert_not_null(grant);
	cr_assert_str_eq(grant->u.grant.user, "alice");
	cr_assert_eq(grant->u.grant.scope.user_generation, 1);
	id = bind_grant(&f, ref);
	cr_assert(registry_connection(f.engine.registry, id, &record));
	cr_assert_eq(record.state, FAN_CONNECTION_PENDING);
	cr_assert_eq(record.generation, grant->u.grant.generation);
	cr_assert_eq(endpoints(&f, "alice"), -1, "in the table before it echoed");
	settle(&f, 20);
	registrations_on_echo(f.engine.registrations, id, find(id)->salt + 1, f.now);
	cr_assert_eq(endpoints(&f, "alice"), -1, "an echo of another salt counted");
	echo(&f, id);
	cr_assert_not_null(told(&f, MESSAGE_ACTIVE, ref, id));
	cr_assert_eq(endpoints(&f, "alice"), 1);
	cr_assert_eq(audited(&f, "register"), 1);
}

Test(registration, a_vouched_prefix_needs_no_challenge)
{
	uint64_t id;

	fan_address_parse(&f.config.vouched[0].address, "198.18.0.0");
	f.config.vouched[0].prefix_len = 30;
	f.config.vouched_cnt = 1;
	id = bind_grant(&f, ask(&f, "alice", 0));
	cr_assert_eq(find(id)->phase, REGISTRATION_ACTIVE);
	f.config.vouched[0].prefix_len = 31; /* 198.18.0.0 and .1: not .2 */
	id = bind_grant(&f, ask(&f, "bob", 0));
	cr_assert_eq(find(id)->phase, REGISTRATION_CHALLENGED);
}

Test(registration, who_does_not_echo_is_asked_three_times_and_then_gone)
{
	const struct fan_registry *root = registry_root(f.engine.registry);
	uint32_t before = root->request_head;
	uint64_t id = bind_grant(&f, ask(&f, "alice", 0));
	struct registry_connection record;

	for (unsigned i = 0; i < 60; i++)
		settle(&f, 100);
	cr_assert_eq(root->request_head - before, 3);
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_CHALLENGE);
	cr_assert_null(find(id));
	cr_assert_not(registry_connection(f.engine.registry, id, &record));
}

Test(registration, fifteen_at_once_at_a_limit_of_ten_are_ten)
{
	struct message message = {.type = MESSAGE_REGISTER};
	unsigned refused = 0;

	token_for(&f, "alice", 3600, message.u.client.token);
	for (unsigned i = 0; i < 15; i++) { /* all in one turn, none bound */
		message.ref = 1000 + i;
		link_to_engine(f.engine.link, &message);
	}
	settle(&f, 0);
	for (unsigned i = 0; i < 15; i++) {
		const struct message *no = told(&f, MESSAGE_REFUSE, 1000 + i, 0);

		if (no) {
			cr_assert_eq(no->error, MESSAGE_ERROR_LIMIT_USER);
			refused++;
		} else {
			echo(&f, bind_grant(&f, 1000 + i));
		}
	}
	cr_assert_eq(refused, 5);
	cr_assert_eq(endpoints(&f, "alice"), 10);
	cr_assert_not_null(told(&f, MESSAGE_GRANT, ask(&f, "bob", 0), 0), "bob pays for alice");
}

Test(registration, the_same_id_of_the_same_user_replaces)
{
	uint64_t first, second, id = subscribe(&f, "alice", 0x77, &first);

	cr_assert_eq(id, 0x77);
	second = ask(&f, "alice", 0x77);
	cr_assert_eq(told(&f, MESSAGE_ENDED, first, id)->end, MESSAGE_END_REPLACED);
	cr_assert_eq(endpoints(&f, "alice"), 0, "the old copy goes at once");
	bind_grant(&f, second);
	settle(&f, 20);
	settle(&f, 20);
	echo(&f, id);
	cr_assert_not_null(told(&f, MESSAGE_ACTIVE, second, id));
	cr_assert_eq(endpoints(&f, "alice"), 1);
}

Test(registration, a_late_end_of_the_replaced_one_does_not_touch_its_successor)
{
	uint64_t first, second, id = subscribe(&f, "alice", 0x77, &first);
	uint32_t old_generation = find(id)->generation;

	subscribe(&f, "alice", 0x77, &second);
	cr_assert_neq(find(id)->generation, old_generation);
	tell(MESSAGE_END, first, id);
	cr_assert_not_null(find(id));
	cr_assert_eq(endpoints(&f, "alice"), 1);
	cr_assert_eq(registry_connection_del(f.engine.registry, id, old_generation), -ESTALE);
	cr_assert_eq(endpoints(&f, "alice"), 1);
	tell(MESSAGE_END, second, id);
	cr_assert_null(find(id));
	cr_assert_eq(endpoints(&f, "alice"), 0);
}

Test(registration, another_users_id_is_refused_and_audited)
{
	uint64_t id = subscribe(&f, "alice", 0x77, NULL), ref = ask(&f, "mallory", 0x77);

	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_CONNECTION_FOREIGN);
	cr_assert_eq(endpoints(&f, "alice"), 1);
	cr_assert_eq(endpoints(&f, "mallory"), -1);
	cr_assert_str_eq(find(id)->user->name, "alice");
	cr_assert_eq(audited(&f, "connection_foreign"), 1);
	ref = ask(&f, "mallory", UINT64_C(1) << 62);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_BAD_REQUEST);
}

Test(registration, a_lease_runs_on_the_monotonic_clock)
{
	uint64_t id;

	f.config.lease_s = 24 * 3600 + 10; /* a day and ten seconds is not ten seconds */
	id = subscribe(&f, "alice", 0, NULL);
	find(id)->token_expiry_s += 1000000;
	tell(MESSAGE_RENEW, 9, id);
	settle(&f, 20 * S);
	cr_assert_not_null(find(id));
	settle(&f, (24 * 3600 - 15) * UINT64_C(1000));
	cr_assert_not_null(find(id));
	f.now.unix_s -= 7 * 24 * 3600; /* the wall clock may jump as it likes */
	settle(&f, 1 * S);
	cr_assert_not_null(find(id));
	settle(&f, 5 * S);
	cr_assert_null(find(id));
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_LEASE);
	cr_assert_eq(endpoints(&f, "alice"), 0);
}

Test(registration, renewals_keep_it_and_the_token_bounds_it)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);
	struct message fresh = {.type = MESSAGE_RENEW, .ref = 501, .id = id};

	for (unsigned i = 0; i < 59; i++) { /* 3,540 of the token's 3,600 seconds */
		settle(&f, 60 * S - 500);
		tell(MESSAGE_RENEW, 500, id);
		f.now.unix_s++; /* half seconds are rounded down */
		f.message_cnt = 0;
		cr_assert_not_null(find(id), "minute %u", i);
	}
	tell(MESSAGE_RENEW, 502, id);
	cr_assert_leq(told(&f, MESSAGE_RENEWED, 502, id)->u.grant.lease_s, 60);
	settle(&f, 61 * S);
	cr_assert_null(find(id));
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_TOKEN);
	token_for(&f, "alice", 3600, fresh.u.client.token);
	link_to_engine(f.engine.link, &fresh);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 501, 0)->error, MESSAGE_ERROR_CONNECTION_UNKNOWN);
}

Test(registration, a_renewal_with_another_users_token_is_refused)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);
	struct message renew = {.type = MESSAGE_RENEW, .ref = 501, .id = id};

	token_for(&f, "bob", 3600, renew.u.client.token);
	link_to_engine(f.engine.link, &renew);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 501, 0)->error, MESSAGE_ERROR_TOKEN_USER);
	cr_assert_not_null(find(id));
}

static void on_revoked(void *arg, struct user *user, int status)
{
	registrations_end_user(f.engine.registrations, user, MESSAGE_END_REVOKED, 0, "revoked");
}

static unsigned listed(const struct user *user)
{
	unsigned cnt = 0;

	for (const struct registration *r = user->registrations; r; r = r->of_user, cnt++)
		cr_expect_eq(r->user, user);
	return cnt;
}

/* It looks at the user's own registrations, whoever else there is. */
Test(registration, a_revocation_meets_each_of_the_users_and_no_other)
{
	uint64_t ids[8];
	struct user *alice, *bob;

	for (unsigned i = 0; i < 8; i++)
		ids[i] = subscribe(&f, i % 2 ? "bob" : "alice", 0, NULL);
	alice = find(ids[0])->user;
	bob = find(ids[1])->user;
	for (unsigned i = 0; i < 8; i += 3) /* the first, one in the middle, the last */
		registrations_end(f.engine.registrations, find(ids[i]), MESSAGE_END_CLOSED, 0,
				  "left");
	cr_expect_eq(listed(alice), alice->connections);
	cr_expect_eq(listed(bob), 3);
	cr_assert_eq(users_revoke(f.engine.users, alice, on_revoked, NULL), 0);
	settle(&f, 0);
	cr_expect_eq(alice->connections, 0);
	cr_expect_eq(listed(alice), 0);
	cr_expect_eq(listed(bob), 3);
}

Test(registration, a_revocation_ends_all_and_old_tokens_with_them)
{
	struct message again = {.type = MESSAGE_REGISTER, .ref = 900};
	uint64_t id = subscribe(&f, "alice", 0, NULL),
		 pending = bind_grant(&f, ask(&f, "alice", 0));
	uint64_t granted = ask(&f, "alice", 0), other = subscribe(&f, "bob", 0, NULL);
	struct user *user = find(id)->user;

	token_for(&f, "alice", 3600, again.u.client.token);
	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, NULL), 0);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_REVOKED);
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, pending)->end, MESSAGE_END_REVOKED);
	cr_assert_eq(told(&f, MESSAGE_ENDED, granted, 0)->end, MESSAGE_END_REVOKED);
	cr_assert_eq(user->connections, 0);
	cr_assert_not_null(find(other));
	link_to_engine(f.engine.link, &again);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 900, 0)->error, MESSAGE_ERROR_TOKEN_INVALID);
	settle(&f, 20);
	subscribe(&f, "alice", 0, NULL);
	cr_assert_eq(told(&f, MESSAGE_GRANT, 0, 0)->u.grant.scope.user_generation, 2);
}

Test(registration, nothing_is_granted_while_a_wall_has_failed)
{
	uint64_t ref;

	f.engine.walls.state[WALL_KERNEL] = WALL_FAILED;
	strcpy(f.engine.walls.why[WALL_KERNEL], "the guard is detached");
	ref = ask(&f, "alice", 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_WALL_FAILED);
	cr_assert_null(told(&f, MESSAGE_GRANT, 0, 0));
}

Test(registration, nothing_is_granted_without_a_dataplane)
{
	uint64_t ref;

	dataplane_stop(&f);
	settle(&f, 100);
	ref = ask(&f, "alice", 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_NO_DATAPLANE);
}

/* Its region's lock is held from its start to its end; it runs only in between. */
Test(registration, a_dataplane_runs_when_its_workers_do)
{
	struct fan_worker_state *worker = fixture_worker(&f);

	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_RUNNING);
	worker->quiescent++; /* before its loop, or after it */
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_STOPPED);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ask(&f, "alice", 0), 0)->error,
		     MESSAGE_ERROR_NO_DATAPLANE);
	worker->quiescent++;
	worker->heartbeat_ns = 0; /* the present run's first is still to come */
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_STOPPED);
	worker->heartbeat_ns = f.now.mono_ns - ENGINE_STALLED_NS - 1;
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_STALLED);
	worker->heartbeat_ns = f.now.mono_ns;
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_RUNNING);
}

/* Between taking the region over and clearing what is in it, the next one has the dead one's words.
 */
Test(registration, a_dead_dataplanes_words_are_not_its_successors)
{
	struct fan_worker_state killed = *fixture_worker(&f);

	dataplane_stop(&f);
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_STOPPED);
	dataplane_start(&f);
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_RUNNING);
	*fixture_worker(&f) = killed;
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_STOPPED);
	fixture_worker(&f)->heartbeat_ns = f.now.mono_ns + 1;
	cr_assert_eq(engine_dataplane_state(&f.engine, f.now), DATAPLANE_RUNNING);
}

Test(registration, bad_tokens_change_nothing)
{
	struct message message = {.type = MESSAGE_REGISTER, .ref = 700};

	token_for(&f, "alice", 1, message.u.client.token);
	settle(&f, 2 * S);
	link_to_engine(f.engine.link, &message);
	strcpy(message.u.client.token, "nonsense");
	message.ref = 701;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 700, 0)->error, MESSAGE_ERROR_TOKEN_EXPIRED);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 701, 0)->error, MESSAGE_ERROR_TOKEN_INVALID);
	cr_assert_eq(users_count(f.engine.users), 0);
	cr_assert_eq(registrations_count(f.engine.registrations), 0);
}

Test(registration, threads_and_single_are_joined_once_each)
{
	struct message message = {.type = MESSAGE_REGISTER, .ref = 800};
	uint64_t channels[8], id;

	token_for(&f, "alice", 3600, message.u.client.token);
	strcpy(message.u.client.threads[0], "room");
	strcpy(message.u.client.threads[1], "hall");
	strcpy(message.u.client.threads[2], "room");
	message.u.client.thread_cnt = 3;
	message.u.client.single = true;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
	id = bind_grant(&f, 800);
	settle(&f, 20);
	echo(&f, id);
	cr_assert_eq(registry_connection_channels(f.engine.registry, id, channels, 8), 4);
	message.ref = 801;
	message.u.client.thread_cnt = 5; /* the limit is 4 */
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 801, 0)->error, MESSAGE_ERROR_BAD_REQUEST);
}

Test(registration, a_full_table_refuses_and_serves_again_when_there_is_room)
{
	uint64_t ids[64], ref;
	char name[16];

	for (unsigned i = 0; i < f.config.max_connections; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		ids[i] = subscribe(&f, name, 0, NULL);
		f.message_cnt = 0;
	}
	ref = ask(&f, "late", 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_LIMIT_OVERALL);
	tell(MESSAGE_END, find(ids[3])->ref, ids[3]);
	settle(&f, 20);
	settle(&f, 20);
	cr_assert_neq(subscribe(&f, "late", 0, NULL), 0);
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* Place of the one REUSABLE of this BOUND among the messages; fails where there are more. */
static int reusable_at(uint64_t id, uint64_t ref)
{
	int at = -1;

	for (unsigned i = 0; i < f.message_cnt; i++) {
		const struct message *m = &f.messages[i];

		if (m->type != MESSAGE_REUSABLE || m->id != id || m->ref != ref)
			continue;
		cr_assert_eq(at, -1, "told twice");
		at = (int)i;
	}
	return at;
}

static int ended_at(uint64_t id, uint64_t ref)
{
	for (unsigned i = 0; i < f.message_cnt; i++)
		if (f.messages[i].type == MESSAGE_ENDED && f.messages[i].id == id &&
		    f.messages[i].ref == ref)
			return (int)i;
	return -1;
}

Test(registration, each_bound_port_is_freed_once_and_after_its_end)
{
	uint64_t ref, id = subscribe(&f, "alice", 0, &ref), challenged, late, later;

	tell(MESSAGE_END, ref, id);
	settle(&f, 20);
	cr_assert_gt(reusable_at(id, ref), ended_at(id, ref));
	cr_assert_gt(ended_at(id, ref), -1);

	challenged = ask(&f, "bob", 0);
	id = bind_grant(&f, challenged);
	settle(&f, 6 * S);
	settle(&f, 100);
	cr_assert_eq(told(&f, MESSAGE_ENDED, challenged, id)->end, MESSAGE_END_CHALLENGE);
	cr_assert_gt(reusable_at(id, challenged), ended_at(id, challenged));

	late = ask(&f, "carol", 0x55); /* ended before it is bound */
	later = ask(&f, "carol", 0x55);
	cr_assert_eq(reusable_at(0x55, late), -1);
	bind_grant(&f, late);
	cr_assert_gt(reusable_at(0x55, late), ended_at(0x55, late));
	bind_grant(&f, later);
	settle(&f, 20);
	echo(&f, 0x55);
	cr_assert_eq(reusable_at(0x55, later), -1, "the successor's port");
	cr_assert_eq(told_count(&f, MESSAGE_REUSABLE), 3);
}

Test(registration, a_replaced_ones_port_waits_for_its_own_record)
{
	uint64_t first, id = subscribe(&f, "alice", 0x77, &first), second;

	second = ask(&f, "alice", 0x77);
	bind_grant(&f, second);
	settle(&f, 20);
	settle(&f, 20);
	echo(&f, id);
	cr_assert_gt(reusable_at(id, first), ended_at(id, first));
	cr_assert_eq(reusable_at(id, second), -1);
}

Test(registration, a_full_table_is_waited_for_while_something_rests)
{
	uint64_t ref, refs[8], ids[8], id;
	char name[16];

	teardown();
	fixture_init(&f);
	f.config.max_groups = 8;
	f.config.max_connections = 4096;
	f.config.lease_s = 3600;
	f.config.linger_s = 1;
	fixture_start(&f);
	dataplane_start(&f);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		ids[i] = subscribe(&f, name, 0, &refs[i]);
	}
	ref = ask(&f, "too many", 0); /* nothing rests that could make room: no socket is made */
	cr_assert_null(told(&f, MESSAGE_GRANT, ref, 0));
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_LIMIT_OVERALL);
	cr_assert_not_null(strstr(told(&f, MESSAGE_REFUSE, ref, 0)->reason, "max_groups"));
	f.stalled = true;
	id = ids[3];
	ref = refs[3];
	for (unsigned i = 0; i < 2000; i++) { /* each rests when it ends, until none is left */
		tell(MESSAGE_END, ref, id);
		settle(&f, f.config.linger_s * S + 100);
		fixture_worker(&f)->heartbeat_ns = f.now.mono_ns; /* slow, not stuck */
		snprintf(name, sizeof(name), "late%u", i);
		ref = ask(&f, name, 0);
		id = bind_grant(&f, ref);
		settle(&f, 20);
		echo(&f, id);
		if (!told(&f, MESSAGE_ACTIVE, ref, id))
			break;
		f.message_cnt = 0;
	}
	settle(&f, 1 * S);
	cr_assert_not_null(find(id), "%s", told(&f, MESSAGE_ENDED, ref, id)->reason);
	cr_assert_null(told(&f, MESSAGE_ACTIVE, ref, id));
	f.stalled = false;
	settle(&f, 100);
	settle(&f, 100);
	cr_assert_not_null(told(&f, MESSAGE_ACTIVE, ref, id));
	cr_assert_eq(endpoints(&f, name), 1);
}

/* ---- leases over a pause --------------------------------------------------------------------- */

Test(registration, a_pause_takes_nobodys_lease)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), bounded = subscribe(&f, "bob", 0, NULL);
	struct registry_connection record;

	find(bounded)->token_expiry_s = f.now.unix_s + 30;
	tell(MESSAGE_RENEW, 9, bounded); /* 30 s of the lease's 60 */
	settle(&f, 20 * S);
	f.now.mono_ns += 100 * ENGINE_NS_PER_S; /* the renewals lie in the sockets */
	f.now.unix_s += 100;
	registrations_extend(f.engine.registrations, 100 * ENGINE_NS_PER_S, f.now);
	settle(&f, 0);
	cr_assert_not_null(find(id));
	cr_assert_not_null(find(bounded), "a fresh token may lie there too");
	cr_assert(registry_connection(f.engine.registry, id, &record));
	cr_assert_gt(record.lease_ns, f.now.mono_ns);
	settle(&f, 2 * S);
	cr_assert_null(find(bounded), "but its token bounds it");
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, bounded)->end, MESSAGE_END_TOKEN);
	settle(&f, 36 * S);
	cr_assert_not_null(find(id));
	settle(&f, 3 * S);
	cr_assert_null(find(id));
}

/* ---- restarts -------------------------------------------------------------------------------- */

static void restart(uint64_t down_ms)
{
	fixture_stop(&f);
	f.now.mono_ns += down_ms * 1000000;
	f.now.unix_s += down_ms / 1000;
	fixture_start(&f);
	settle(&f, 0);
}

static void attach(uint64_t ref, uint64_t id, const char *user, uint64_t cookie)
{
	struct message message = {.type = MESSAGE_ATTACH, .ref = ref, .id = id};

	token_for(&f, user, 3600, message.u.client.token);
	fan_handle(message.u.client.handle, user, strlen(user));
	message.u.client.cookie = cookie;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
}

Test(registration, a_restart_keeps_them_and_ends_who_stays_away)
{
	uint64_t back = subscribe(&f, "alice", 0, NULL), away = subscribe(&f, "bob", 0, NULL);
	uint64_t pending = bind_grant(&f, ask(&f, "carol", 0)), cookie = find(back)->cookie;

	restart(300 * S); /* longer than the lease: none ends while fanwired is down */
	cr_assert_eq(endpoints(&f, "alice"), 1);
	cr_assert_eq(endpoints(&f, "bob"), 1);
	cr_assert_not_null(told(&f, MESSAGE_HOLD, 0, back));
	cr_assert_eq(told(&f, MESSAGE_HOLD, 0, back)->end, MESSAGE_END_NONE);
	cr_assert_eq(told(&f, MESSAGE_HOLD, 0, back)->u.bound.cookie, cookie);
	for (unsigned i = f.message_cnt; f.messages[--i].type != MESSAGE_HELLO;)
		cr_assert_neq(f.messages[i].type, MESSAGE_HOLD, "told too late");
	cr_assert_null(find(pending), "a pending one is forgotten");
	settle(&f, 5 * S);
	attach(600, back, "alice", cookie);
	cr_assert_not_null(told(&f, MESSAGE_ATTACHED, 600, back));
	settle(&f, 4 * S);
	cr_assert_not_null(find(away));
	settle(&f, 2 * S);
	cr_assert_null(find(away));
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, away)->end, MESSAGE_END_ABSENT);
	cr_assert_not_null(find(back));
	settle(&f, 40 * S);
	tell(MESSAGE_RENEW, 601, back);
	cr_assert_not_null(told(&f, MESSAGE_RENEWED, 601, back));
	tell(MESSAGE_END, 600, back);
	cr_assert_null(find(back));
}

Test(registration, coming_back_needs_the_user_the_cookie_and_an_empty_place)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), cookie = find(id)->cookie;

	attach(600, id, "alice", cookie);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 600, 0)->error, MESSAGE_ERROR_BUSY);
	restart(0);
	attach(601, id, "mallory", cookie);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 601, 0)->error, MESSAGE_ERROR_CONNECTION_FOREIGN);
	cr_assert_eq(audited(&f, "connection_foreign"), 1);
	attach(602, id, "alice", cookie + 1);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 602, 0)->error, MESSAGE_ERROR_CONNECTION_UNKNOWN);
	attach(603, id + 1, "alice", cookie);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 603, 0)->error, MESSAGE_ERROR_CONNECTION_UNKNOWN);
	attach(604, id, "alice", cookie);
	cr_assert_not_null(told(&f, MESSAGE_ATTACHED, 604, id));
}

Test(registration, a_try_to_come_back_that_is_given_up_ends_nothing)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL), cookie = find(id)->cookie;

	restart(0);
	settle(&f, 8 * S);
	attach(600, id, "alice", cookie);
	tell(MESSAGE_DETACH, 601, id); /* of another one: late */
	cr_assert(find(id)->attached);
	tell(MESSAGE_DETACH, 600, id);
	cr_assert_eq(endpoints(&f, "alice"), 1);
	settle(&f, 9 * S); /* reattach again, though the restart was 17 s ago */
	cr_assert_not_null(find(id));
	attach(602, id, "alice", cookie);
	cr_assert_not_null(told(&f, MESSAGE_ATTACHED, 602, id));
	tell(MESSAGE_DETACH, 602, id);
	settle(&f, 11 * S);
	cr_assert_null(find(id));
	cr_assert_eq(told(&f, MESSAGE_ENDED, 0, id)->end, MESSAGE_END_ABSENT);
}

Test(registration, nobody_is_absent_while_others_still_come_back)
{
	uint64_t ids[8], cookies[8];
	char name[16];

	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		ids[i] = subscribe(&f, name, 0, NULL);
		cookies[i] = find(ids[i])->cookie;
	}
	restart(0);
	settle(&f, 8 * S);
	for (unsigned i = 0; i < 6; i++) { /* one each 1.5 s: a slow host */
		snprintf(name, sizeof(name), "u%u", i);
		settle(&f, 1500);
		attach(600 + i, ids[i], name, cookies[i]);
		cr_assert_not_null(told(&f, MESSAGE_ATTACHED, 600 + i, ids[i]), "%u", i);
	}
	cr_assert_not_null(find(ids[7]));
	for (unsigned i = 0; i < 4; i++) { /* who comes back again and again draws nothing out */
		tell(MESSAGE_DETACH, 605 + i, ids[5]);
		settle(&f, 1 * S);
		attach(606 + i, ids[5], "u5", cookies[5]);
	}
	cr_assert_null(find(ids[6]));
	cr_assert_null(find(ids[7]));
	cr_assert_not_null(find(ids[5]));
}

Test(registration, the_port_of_one_that_had_ended_before_the_restart_is_held_first)
{
	uint64_t ref, id = subscribe(&f, "alice", 0, &ref);
	struct message end = {.type = MESSAGE_END, .ref = ref, .id = id};

	registrations_on_message(f.engine.registrations, &end, f.now); /* and killed at once */
	restart(0);
	cr_assert_not_null(told(&f, MESSAGE_HOLD, 0, id), "its port would rest no more");
	cr_assert_neq(told(&f, MESSAGE_HOLD, 0, id)->end, MESSAGE_END_NONE);
	settle(&f, 20);
	cr_assert_gt(reusable_at(id, 0), -1);
	cr_assert_eq(f.messages[0].type, MESSAGE_HOLD);
}

static void on_lost(void *arg, struct user *user, int status)
{
}

Test(registration, a_revoked_users_record_is_held_as_ended)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);

	cr_assert_eq(users_revoke(f.engine.users, find(id)->user, on_lost, NULL), 0);
	store_flush(f.engine.store); /* and killed before the connections were ended */
	restart(0);
	cr_assert_neq(told(&f, MESSAGE_HOLD, 0, id)->end, MESSAGE_END_NONE);
	cr_assert_null(find(id));
	cr_assert_leq(endpoints(&f, "alice"), 0);
	settle(&f, 20);
	cr_assert_gt(reusable_at(id, 0), -1);
}
