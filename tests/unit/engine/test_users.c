/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/engine/publishers.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
	fixture_start(&f);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(users, .init = setup, .fini = teardown);

static struct user *get(const char *name)
{
	struct user *user = NULL;

	cr_assert_eq(users_get(f.engine.users, name, strlen(name), &user), 0);
	return user;
}

static void restart(void)
{
	fixture_stop(&f);
	fixture_start(&f);
}

Test(users, are_durable_only_after_the_commit_and_then_for_good)
{
	struct user *user = get("alice");

	cr_assert_not(user->durable);
	store_flush(f.engine.store);
	cr_assert(user->durable);
	cr_assert_eq(get("alice"), user);
	restart();
	user = get("alice");
	cr_assert(user->durable);
	cr_assert_eq(user->generation, 1);
}

static void on_revoked(void *arg, struct user *user, int status)
{
	cr_assert_eq(status, 0);
	*(uint32_t *)arg = user->generation;
}

Test(users, a_revocation_is_durable_before_it_counts)
{
	uint32_t first = 0, second = 0;
	struct user *user = get("alice");

	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, &first), 0);
	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, &second), 0);
	cr_assert_eq(user->generation, 1);
	store_flush(f.engine.store);
	cr_assert_eq(first, 2);
	cr_assert_eq(second, 3);
	restart();
	cr_assert_eq(get("alice")->generation, 3);
}

Test(users, two_names_with_one_handle_are_refused)
{
	struct user *user = get("alice"), *other;

	memcpy(user->name, "alicf", 5); /* as if this name had the handle of "alice" */
	cr_assert_eq(users_get(f.engine.users, "alice", 5, &other), -EEXIST);
}

Test(users, idle_ones_make_room_and_revoked_or_connected_ones_stay)
{
	char name[16];
	struct user *user;
	uint32_t generation;

	get("connected")->connections = 1;
	cr_assert_eq(users_revoke(f.engine.users, get("revoked"), on_revoked, &generation), 0);
	for (unsigned i = 0; i < 10 * f.config.max_users; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		get(name);
		store_flush(f.engine.store);
		cr_assert_leq(users_count(f.engine.users), f.config.max_users + 1);
	}
	cr_assert(get("connected")->durable);
	cr_assert_eq(get("revoked")->generation, 2);
	get("connected")->connections = 0;

	for (unsigned i = 0; i < 2 * f.config.max_users; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		if (users_get(f.engine.users, name, strlen(name), &user) == -EDQUOT)
			return;
		user->connections = 1;
		store_flush(f.engine.store);
	}
	cr_assert_fail("more connected users than max_users");
}

Test(users, one_whose_deletion_was_rolled_back_comes_back)
{
	struct sqlite3_stmt *failing =
		store_prepare(f.engine.store, "SELECT abs(-9223372036854775808)");
	uint8_t handle[FAN_HANDLE_LEN];
	char name[16];

	for (unsigned i = 0; i < f.config.max_users; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		get(name);
	}
	store_flush(f.engine.store);
	get("one more");
	cr_assert_eq(users_count(f.engine.users), f.config.max_users - f.config.max_users / 16);
	cr_assert_neq(store_write(f.engine.store, failing), 0); /* undoes all of this turn */
	store_flush(f.engine.store);
	cr_assert_eq(users_count(f.engine.users), f.config.max_users);
	for (unsigned i = 0; i < f.config.max_users; i++) {
		snprintf(name, sizeof(name), "u%u", i);
		fan_handle(handle, name, strlen(name));
		cr_assert_not_null(users_find(f.engine.users, handle));
		cr_assert(get(name)->durable);
	}
	fan_handle(handle, "one more", 8);
	cr_assert_not(users_find(f.engine.users, handle)->durable);
}

Test(users, are_looked_up_when_they_are_asked_for)
{
	uint8_t handle[FAN_HANDLE_LEN], nobody[FAN_HANDLE_LEN];
	uint32_t generation;

	get("alice");
	cr_assert_eq(users_revoke(f.engine.users, get("bob"), on_revoked, &generation), 0);
	restart();
	cr_assert_eq(users_count(f.engine.users), 2);
	fan_handle(handle, "alice", 5);
	fan_handle(nobody, "nobody", 6);
	cr_assert_str_eq(users_find(f.engine.users, handle)->name, "alice");
	cr_assert_null(users_find(f.engine.users, nobody));
	cr_assert_eq(users_generation(f.engine.users, nobody), 1);
	fan_handle(handle, "bob", 3);
	cr_assert_eq(users_generation(f.engine.users, handle), 2);
}

static void write_sql(const char *sql)
{
	cr_assert_eq(store_write(f.engine.store, store_prepare(f.engine.store, sql)), 0);
	store_flush(f.engine.store);
}

Test(users, a_row_that_is_not_as_it_was_written_is_refused)
{
	struct user *user = NULL;
	struct users *again = NULL;
	uint32_t generation;
	char why[1024];

	get("alice");
	cr_assert_eq(users_revoke(f.engine.users, get("bob"), on_revoked, &generation), 0);
	store_flush(f.engine.store);
	restart(); /* of alice there is a row alone */
	write_sql("UPDATE users SET name = 'mallory' WHERE name = 'alice'");
	cr_assert_lt(users_get(f.engine.users, "alice", 5, &user), 0);
	cr_assert_null(user);
	cr_assert_eq(users_open(&again, f.engine.store, 64, why), -EPROTO);
	cr_assert_not_null(strstr(why, "mallory"), "%s", why);
	write_sql("UPDATE users SET name = 'alice' WHERE name = 'mallory'");
	write_sql("UPDATE users SET generation = 1 WHERE name = 'bob'");
	cr_assert_eq(users_open(&again, f.engine.store, 64, why), -EPROTO);
	cr_assert_not_null(strstr(why, "bob"), "who was revoked would be let in: %s", why);
	write_sql("UPDATE users SET generation = 2 WHERE name = 'bob'");
	cr_assert_eq(users_open(&again, f.engine.store, 64, why), 0, "%s", why);
	users_close(again);
}

/* ---- publishers ---- */

Test(users, a_publisher_is_known_by_its_secret_alone)
{
	char secret[PUBLISHER_SECRET_LEN + 1], wrong[PUBLISHER_SECRET_LEN + 1];
	struct publishers *all = f.engine.publishers;

	cr_assert_eq(publishers_add(all, "orders", "alice", 1, secret), 0);
	cr_assert_null(publishers_check(all, "orders", secret), "counts before it is durable");
	store_flush(f.engine.store);
	cr_assert_not_null(publishers_check(all, "orders", secret));
	strcpy(wrong, secret);
	wrong[0] = wrong[0] == '0' ? '1' : '0';
	cr_assert_null(publishers_check(all, "orders", wrong));
	cr_assert_null(publishers_check(all, "orders", ""));
	cr_assert_null(publishers_check(all, "nobody", secret));
	cr_assert_eq(publishers_add(all, "orders", NULL, 1, wrong), -EEXIST);
	restart();
	cr_assert_not_null(publishers_check(f.engine.publishers, "orders", secret));
	cr_assert_str_eq(publishers_find(f.engine.publishers, "orders")->user, "alice");
}

Test(users, a_publisher_that_is_not_as_it_was_written_is_refused_and_may_be_added_again)
{
	char secret[PUBLISHER_SECRET_LEN + 1], other[PUBLISHER_SECRET_LEN + 1];

	cr_assert_eq(publishers_add(f.engine.publishers, "orders", "alice", 1, secret), 0);
	cr_assert_eq(publishers_add(f.engine.publishers, "news", "bob", 1, other), 0);
	store_flush(f.engine.store);
	write_sql("UPDATE publishers SET user = NULL WHERE name = 'orders'");
	restart();
	cr_assert_null(publishers_check(f.engine.publishers, "orders", secret),
		       "publishes to any user");
	cr_assert_not_null(publishers_check(f.engine.publishers, "news", other));
	cr_assert_eq(publishers_add(f.engine.publishers, "orders", "alice", 1, secret), 0);
	restart();
	cr_assert_not_null(publishers_check(f.engine.publishers, "orders", secret));
}

static void on_removed(void *arg, const struct publisher *publisher, int status)
{
	cr_assert_eq(status, 0);
	*(uint64_t *)arg = publisher->id;
}

Test(users, a_removed_publisher_is_gone_and_its_number_never_comes_back)
{
	char secret[PUBLISHER_SECRET_LEN + 1];
	struct publishers *all = f.engine.publishers;
	uint64_t removed = 0;

	cr_assert_eq(publishers_add(all, "orders", NULL, 1, secret), 0);
	store_flush(f.engine.store);
	cr_assert_eq(publishers_remove(all, "orders", on_removed, &removed), 0);
	cr_assert_null(publishers_check(all, "orders", secret));
	cr_assert_eq(publishers_remove(all, "orders", on_removed, &removed), -ENOENT);
	store_flush(f.engine.store);
	cr_assert_neq(removed, 0);
	cr_assert_null(publishers_find(all, "orders"));
	restart();
	cr_assert_eq(publishers_add(f.engine.publishers, "orders", NULL, 1, secret), 0);
	cr_assert_gt(publishers_find(f.engine.publishers, "orders")->id, removed);
}

Test(users, the_limit_of_publishers_holds)
{
	char secret[PUBLISHER_SECRET_LEN + 1], name[16];

	for (unsigned i = 0; i < f.config.max_publishers; i++) {
		snprintf(name, sizeof(name), "p%u", i);
		cr_assert_eq(publishers_add(f.engine.publishers, name, NULL, 1, secret), 0);
	}
	cr_assert_eq(publishers_add(f.engine.publishers, "more", NULL, 1, secret), -EDQUOT);
}
