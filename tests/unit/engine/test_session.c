/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "control/engine/publishers.h"
#include "control/engine/sessions.h"
#include "control/engine/store.h"
#include "control/engine/token.h"
#include "control/engine/users.h"
#include "control/link.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;
static char secret[PUBLISHER_SECRET_LEN + 1];

static void setup(void)
{
	fixture_init(&f);
	fixture_start(&f);
	dataplane_start(&f);
	cr_assert_eq(publishers_add(f.engine.publishers, "orders", NULL, 1, secret), 0);
	store_flush(f.engine.store);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(session, .init = setup, .fini = teardown);

static void request(enum message_type type, uint64_t ref, uint64_t id, const char *name,
		    const char *with, const char *grant)
{
	struct message message = {.type = type, .ref = ref, .id = id};
	struct fan_address address;

	snprintf(message.u.session_open.name, sizeof(message.u.session_open.name), "%s", name);
	snprintf(message.u.session_open.secret, sizeof(message.u.session_open.secret), "%s", with);
	snprintf(message.u.session_open.token, sizeof(message.u.session_open.token), "%s", grant);
	fan_address_parse(&address, "198.18.0.2");
	memcpy(message.u.session_open.address.bytes, address.bytes, 16);
	message.u.session_open.address.family = 4;
	message.u.session_open.address.port = 40000;
	link_to_engine(f.engine.link, &message);
	settle(&f, 0);
}

static uint64_t open_session(uint64_t ref)
{
	const struct message *granted;

	request(MESSAGE_SESSION_OPEN, ref, 0, "orders", secret, "");
	granted = told(&f, MESSAGE_SESSION_GRANT, ref, 0);
	cr_assert_not_null(granted);
	return granted->id;
}

static const struct fan_session *record(uint64_t id)
{
	return fan_table_session(registry_table(f.engine.registry), id);
}

Test(session, a_credential_buys_a_session_bound_to_its_address)
{
	uint64_t id = open_session(1);
	const struct fan_session *s = record(id);

	cr_assert_not_null(s);
	cr_assert_eq(s->port, 40000);
	cr_assert_eq(s->scope, FAN_SCOPE_ANY);
	cr_assert_eq(memcmp(s->key, told(&f, MESSAGE_SESSION_GRANT, 1, 0)->u.session.key, 32), 0);
	cr_assert_neq(open_session(2), id);
	cr_assert_neq(memcmp(s->key, told(&f, MESSAGE_SESSION_GRANT, 2, 0)->u.session.key, 32), 0);
	cr_assert_eq(sessions_count(f.engine.sessions, 0), 2);
}

Test(session, a_wrong_secret_buys_nothing)
{
	request(MESSAGE_SESSION_OPEN, 1, 0, "orders", "wrong", "");
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 1, 0)->error, MESSAGE_ERROR_CREDENTIAL);
	request(MESSAGE_SESSION_OPEN, 2, 0, "nobody", secret, "");
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 2, 0)->error, MESSAGE_ERROR_CREDENTIAL);
	cr_assert_eq(sessions_count(f.engine.sessions, 0), 0);
}

static void make_grant(char text[MESSAGE_TOKEN_MAX], const char *user, uint64_t ttl_s)
{
	struct token_claims claims = {.expires_s = f.now.unix_s + ttl_s,
				      .user_len = strlen(user),
				      .number = 42 + strlen(user)};

	strcpy(claims.user, user);
	cr_assert_eq(token_make(text, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, &claims, f.now.unix_s,
				f.engine.keys.token),
		     0);
}

Test(session, a_grant_for_one_user_makes_a_session_for_that_user)
{
	uint8_t handle[FAN_HANDLE_LEN];
	const struct message *granted;
	char grant[MESSAGE_TOKEN_MAX];

	make_grant(grant, "alice", 60);
	request(MESSAGE_SESSION_OPEN, 1, 0, "", "", grant);
	granted = told(&f, MESSAGE_SESSION_GRANT, 1, 0);
	cr_assert_not_null(granted);
	cr_assert(granted->u.session.one_user);
	cr_assert_str_eq(granted->u.session.user, "alice");
	fan_handle(handle, "alice", 5);
	cr_assert_eq(record(granted->id)->scope, FAN_SCOPE_ONE);
	cr_assert_eq(memcmp(record(granted->id)->user, handle, FAN_HANDLE_LEN), 0);
}

Test(session, an_expired_grant_and_a_subscribers_token_open_nothing)
{
	char text[MESSAGE_TOKEN_MAX];

	make_grant(text, "", 1);
	settle(&f, 2000);
	request(MESSAGE_SESSION_OPEN, 1, 0, "", "", text);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 1, 0)->error, MESSAGE_ERROR_TOKEN_EXPIRED);
	token_for(&f, "alice", 60, text);
	request(MESSAGE_SESSION_OPEN, 2, 0, "", "", text);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 2, 0)->error, MESSAGE_ERROR_TOKEN_AUDIENCE);
}

Test(session, ends_with_its_connection_and_with_its_publisher)
{
	uint64_t first = open_session(1), second = open_session(2);
	struct message end = {.type = MESSAGE_SESSION_END, .ref = 9, .id = first};

	link_to_engine(f.engine.link, &end); /* of another holder: late */
	settle(&f, 0);
	cr_assert_not_null(record(first));
	end.ref = 1;
	link_to_engine(f.engine.link, &end);
	settle(&f, 0);
	cr_assert_null(record(first));
	cr_assert_eq(sessions_end_publisher(f.engine.sessions,
					    publishers_find(f.engine.publishers, "orders")->id),
		     1);
	settle(&f, 0);
	cr_assert_null(record(second));
	cr_assert_not_null(told(&f, MESSAGE_SESSION_ENDED, 2, second));
}

Test(session, ends_when_the_dataplane_begins_anew)
{
	uint64_t id = open_session(1);

	dataplane_stop(&f);
	settle(&f, 100);
	cr_assert_not_null(record(id), "a restart on the same region keeps it");
	dataplane_start(&f);
	settle(&f, 100);
	cr_assert_null(record(id));
	cr_assert_eq(told(&f, MESSAGE_SESSION_ENDED, 1, id)->end, MESSAGE_END_ENGINE);
}

Test(session, survives_a_restart_where_its_publisher_comes_back)
{
	uint64_t back = open_session(1), away = open_session(2);

	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 0);
	request(MESSAGE_SESSION_ATTACH, 3, back, "orders", "wrong", "");
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 3, 0)->error, MESSAGE_ERROR_CREDENTIAL);
	request(MESSAGE_SESSION_ATTACH, 4, back, "orders", secret, "");
	cr_assert_not_null(told(&f, MESSAGE_SESSION_ATTACHED, 4, back));
	request(MESSAGE_SESSION_ATTACH, 5, back, "orders", secret, "");
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 5, 0)->error, MESSAGE_ERROR_BUSY);
	settle(&f, 11000);
	cr_assert_not_null(record(back));
	cr_assert_null(record(away));
}

Test(session, a_try_to_come_back_that_is_given_up_ends_nothing)
{
	struct message detach = {.type = MESSAGE_SESSION_DETACH, .ref = 4};
	uint64_t id = open_session(1);

	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 8000);
	request(MESSAGE_SESSION_ATTACH, 4, id, "orders", secret, "");
	detach.id = id;
	link_to_engine(f.engine.link, &detach);
	settle(&f, 9000);
	cr_assert_not_null(record(id));
	request(MESSAGE_SESSION_ATTACH, 5, id, "orders", secret, "");
	cr_assert_not_null(told(&f, MESSAGE_SESSION_ATTACHED, 5, id));
	link_to_engine(f.engine.link, &detach); /* of the former claimant: late */
	settle(&f, 20000);
	cr_assert_not_null(record(id));
}

/* Opens until it is refused for the limit, from refs of its own; returns how many it got. */
static unsigned open_all(uint64_t ref, const char *grant)
{
	unsigned cnt = 0;

	while (cnt < 20) {
		request(MESSAGE_SESSION_OPEN, ref, 0, grant ? "" : "orders", grant ? "" : secret,
			grant ? grant : "");
		if (!told(&f, MESSAGE_SESSION_GRANT, ref, 0))
			break;
		cnt++;
		ref++;
	}
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_LIMIT_USER);
	return cnt;
}

Test(session, a_publisher_has_its_share_and_no_more)
{
	char one[MESSAGE_TOKEN_MAX], other[MESSAGE_TOKEN_MAX];

	make_grant(one, "alice", 60);
	make_grant(other, "", 60);
	cr_assert_eq(open_all(100, NULL), f.config.max_sessions_per_publisher);
	cr_assert_eq(open_all(200, one), f.config.max_sessions_per_publisher);
	request(MESSAGE_SESSION_OPEN, 300, 0, "", "", other);
	cr_assert_not_null(told(&f, MESSAGE_SESSION_GRANT, 300, 0), "of another grant");
}

static void make_numbered(char text[MESSAGE_TOKEN_MAX], uint64_t number)
{
	struct token_claims claims = {.expires_s = f.now.unix_s + 60,
				      .user = "alice",
				      .user_len = 5,
				      .generation = 1,
				      .number = number};

	cr_assert_eq(token_make(text, TOKEN_PUBLISH, TOKEN_AUDIENCE_PUBLISH, &claims, f.now.unix_s,
				f.engine.keys.token),
		     0);
}

Test(session, one_user_grants_of_a_user_share_across_a_restart)
{
	char first[MESSAGE_TOKEN_MAX], second[MESSAGE_TOKEN_MAX];

	make_numbered(first, 1);
	make_numbered(second, 2);
	cr_assert_eq(open_all(100, first), 3);
	request(MESSAGE_SESSION_OPEN, 200, 0, "", "", second);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 200, 0)->error, MESSAGE_ERROR_LIMIT_USER);
	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 0);
	request(MESSAGE_SESSION_OPEN, 300, 0, "", "", second);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 300, 0)->error, MESSAGE_ERROR_LIMIT_USER);
}

Test(session, all_of_a_publisher_are_charged_to_one_meter_over_restarts_too)
{
	uint64_t first = open_session(1), second = open_session(2), meter = record(first)->meter;
	char grant[MESSAGE_TOKEN_MAX];
	const struct fan_session *s;

	make_grant(grant, "alice", 60);
	request(MESSAGE_SESSION_OPEN, 3, 0, "", "", grant);
	s = record(told(&f, MESSAGE_SESSION_GRANT, 3, 0)->id);
	cr_expect_neq(meter, 0);
	cr_expect_eq(record(second)->meter, meter);
	cr_expect_neq(s->meter, meter);
	cr_expect_eq(s->budget, f.config.publisher_bytes_per_second);
	fixture_stop(&f);
	f.config.publisher_bytes_per_second = 4711;
	fixture_start(&f);
	settle(&f, 0);
	cr_expect_eq(record(first)->meter, meter);
	cr_expect_eq(record(first)->budget, 4711, "another limit holds for those that are open");
	cr_expect_eq(record(open_session(4))->meter, meter);
	cr_expect_eq(record(second)->meter, meter);
}

static void on_revoked(void *arg, struct user *user, int status)
{
	cr_assert_eq(status, 0);
	*(unsigned *)arg = sessions_end_user(f.engine.sessions, user->handle);
}

Test(session, a_revocation_ends_the_users_grants_and_their_sessions)
{
	uint64_t others = open_session(1), mine;
	char grant[MESSAGE_TOKEN_MAX];
	struct user *user;
	unsigned ended = 0;

	make_grant(grant, "alice", 60);
	request(MESSAGE_SESSION_OPEN, 2, 0, "", "", grant);
	mine = told(&f, MESSAGE_SESSION_GRANT, 2, 0)->id;
	cr_assert_eq(users_get(f.engine.users, "alice", 5, &user), 0);
	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, &ended), 0);
	settle(&f, 0);
	cr_assert_eq(ended, 1);
	cr_assert_null(record(mine));
	cr_assert_eq(told(&f, MESSAGE_SESSION_ENDED, 2, mine)->end, MESSAGE_END_REVOKED);
	cr_assert_not_null(record(others));
	request(MESSAGE_SESSION_OPEN, 3, 0, "", "", grant);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, 3, 0)->error, MESSAGE_ERROR_TOKEN_INVALID);
}
