/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/engine/registrations.h"
#include "control/engine/store.h"
#include "control/engine/users.h"
#include "control/engine/vouched_private.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;
static struct vouched_answer last;
static unsigned answers;

static void setup(void)
{
	fixture_init(&f);
	fan_address_parse(&f.config.vouched[0].address, "198.18.0.0");
	f.config.vouched[0].prefix_len = 16;
	f.config.vouched_cnt = 1;
	fan_address_parse(&f.config.receiver_address[0], "198.18.0.2");
	f.config.receiver_address_cnt = 1;
	f.config.port_first = 20000;
	f.config.port_last = 21000;
	fixture_start(&f);
	dataplane_start(&f);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(vouched, .init = setup, .fini = teardown);

static void on_done(void *arg, const struct vouched_answer *answer)
{
	last = *answer;
	answers++;
	free(arg);
}

/* Lines of "USER ADDRESS PORT [ID];..." as a body; the answer is in `last` where there is one. */
static void import(const char *lines)
{
	char *copy = strdup(lines), *body = calloc(1, 64 * 1024), *rest = copy, *line;
	size_t len = 0;

	while ((line = strsep(&rest, ";"))) {
		char user[64], address[64];
		uint64_t id = 0;
		unsigned port;
		int cnt = sscanf(line, " %63s %63s %u %" SCNx64, user, address, &port, &id);

		cr_assert_geq(cnt, 3);
		len += (size_t)sprintf(body + len,
				       "{\"user\":\"%s\",\"address\":\"%s\",\"port\":%u", user,
				       address, port);
		if (cnt == 4)
			len += (size_t)sprintf(body + len, ",\"id\":\"%016" PRIx64 "\"", id);
		len += (size_t)sprintf(body + len, "}\n");
	}
	free(copy);
	memset(&last, 0, sizeof(last));
	vouched_import(f.engine.vouched, body, len, 1000, on_done, body);
}

static void expect_refused(const char *lines, const char *error)
{
	struct vouched_status before, after;

	vouched_status(f.engine.vouched, &before);
	import(lines);
	cr_assert_not_null(last.error, "'%s' was taken", lines);
	cr_assert_str_eq(last.error, error, "%s: %s", lines, last.message);
	vouched_status(f.engine.vouched, &after);
	cr_assert_eq(before.total, after.total);
	store_flush(f.engine.store);
}

static void expect_done(const char *lines, unsigned added, unsigned replaced, unsigned unchanged)
{
	import(lines);
	settle(&f, 10);
	cr_assert_null(last.error, "%s: %s", lines, last.message);
	cr_assert_eq(last.status, 200);
	cr_assert_eq(last.added, added);
	cr_assert_eq(last.replaced, replaced);
	cr_assert_eq(last.unchanged, unchanged);
}

static void remove_all(const struct vouched_selection *selection, unsigned removed)
{
	memset(&last, 0, sizeof(last));
	vouched_remove(f.engine.vouched, selection, 1000, on_done, NULL);
	cr_assert_null(last.error, "%s", last.message);
	cr_assert_eq(last.removed, removed);
	settle(&f, 10);
}

static void restart(void)
{
	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 100);
}

/* The next boot: the regions are gone. */
static void reboot(void)
{
	char path[160];

	fixture_stop(&f);
	dataplane_stop(&f);
	snprintf(path, sizeof(path), "%s/" FAN_REGISTRY_FILE, f.dir);
	cr_assert_eq(unlink(path), 0);
	fixture_start(&f);
	dataplane_start(&f);
	settle(&f, 100);
}

static unsigned total(void)
{
	struct vouched_status status;

	vouched_status(f.engine.vouched, &status);
	cr_assert_not(status.loading);
	cr_assert_str_empty(status.failed);
	return (unsigned)status.total;
}

static bool served(uint64_t id, const char *user, const char *address, unsigned port)
{
	struct registry_connection c;
	struct fan_address parsed;
	uint8_t handle[FAN_HANDLE_LEN];

	fan_handle(handle, user, strlen(user));
	fan_address_parse(&parsed, address);
	return registry_connection(f.engine.registry, id, &c) && c.vouched &&
	       c.state == FAN_CONNECTION_ACTIVE && c.port == port &&
	       memcmp(c.handle, handle, 16) == 0 && memcmp(c.address, parsed.bytes, 16) == 0;
}

/* ---- what is taken --------------------------------------------------------------------------- */

Test(vouched, are_served_after_import_restart_and_reboot)
{
	expect_done("alice 198.18.1.1 5000 a1;alice 198.18.1.2 5000 a2;bob 198.18.1.1 5001 b1", 3,
		    0, 0);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(total(), 3);
		cr_assert_eq(endpoints(&f, "alice"), 2);
		cr_assert_eq(endpoints(&f, "bob"), 1);
		cr_assert(served(0xa1, "alice", "198.18.1.1", 5000));
		cr_assert(served(0xa2, "alice", "198.18.1.2", 5000));
		cr_assert(served(0xb1, "bob", "198.18.1.1", 5001));
		if (i == 0)
			restart();
		else
			reboot();
	}
	cr_assert_eq(audited(&f, "vouch"), 1);
	cr_assert_eq(audited(&f, "vouched_loaded"), 2);
	cr_assert_eq(told_count(&f, MESSAGE_HOLD), 0, "the agent has nothing to hold");
}

Test(vouched, the_same_again_changes_nothing_with_ids_and_without)
{
	const char *with = "alice 198.18.1.1 5000 a1;bob 198.18.1.2 5000 b1";
	const char *without = "alice 198.18.2.1 5000;bob 198.18.2.2 5000";

	expect_done(with, 2, 0, 0);
	expect_done(with, 0, 0, 2);
	expect_done(without, 2, 0, 0);
	expect_done(without, 0, 0, 2);
	reboot();
	expect_done(with, 0, 0, 2);
	expect_done(without, 0, 0, 2);
	cr_assert_eq(total(), 4);
}

Test(vouched, another_place_replaces_and_the_old_one_rests_until_it_is_let_go_of)
{
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	f.stalled = true;
	answers = 0;
	import("alice 198.18.1.9 5000 a1");
	settle(&f, 10);
	cr_assert_eq(answers, 0, "answered before the dataplane let go");
	f.stalled = false;
	settle(&f, 10);
	cr_assert_eq(answers, 1);
	cr_assert_eq(last.replaced, 1);
	cr_assert(served(0xa1, "alice", "198.18.1.9", 5000));
	cr_assert_eq(endpoints(&f, "alice"), 1);
	reboot();
	cr_assert(served(0xa1, "alice", "198.18.1.9", 5000));
	expect_done("bob 198.18.1.1 5000 b1", 1, 0, 0);
}

Test(vouched, a_late_replacement_is_told_and_comes_by_itself)
{
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	f.stalled = true;
	answers = 0;
	import("alice 198.18.1.9 5000 a1");
	settle(&f, 6000);
	cr_assert_eq(answers, 1);
	cr_assert_eq(last.waiting, 1);
	expect_refused("bob 198.18.1.2 5000", "busy");
	f.stalled = false;
	settle(&f, 10);
	cr_assert(served(0xa1, "alice", "198.18.1.9", 5000));
	expect_done("bob 198.18.1.2 5000", 1, 0, 0);
}

/* ---- the wall -------------------------------------------------------------------------------- */

Test(vouched, one_place_is_never_two_users)
{
	expect_refused("alice 198.18.1.1 5000;bob 198.18.1.1 5000", "address_taken");
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	expect_refused("bob 198.18.1.2 5000;bob 198.18.1.1 5000", "address_taken");
	restart();
	expect_refused("bob 198.18.1.1 5000", "address_taken");
	reboot();
	expect_refused("bob 198.18.1.1 5000", "address_taken");
	expect_refused("alice 198.18.1.1 5000 a2", "address_taken");
	cr_assert_eq(endpoints(&f, "bob"), -1);
	cr_assert_geq(audited(&f, "vouch_refused"), 4);
	/* the other family's mapped form is not another place */
	expect_refused("bob ::ffff:198.18.1.1 5000", "bad_request");
}

Test(vouched, a_place_is_another_users_only_after_its_last_one_is_let_go_of)
{
	struct vouched_selection selection = {.id = 0xa1};

	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	f.stalled = true;
	remove_all(&selection, 1);
	expect_refused("bob 198.18.1.1 5000", "busy");
	restart(); /* still leaving */
	expect_refused("bob 198.18.1.1 5000", "busy");
	f.stalled = false;
	settle(&f, 10);
	expect_done("bob 198.18.1.1 5000 b1", 1, 0, 0);
	cr_assert_eq(endpoints(&f, "alice"), 0);
}

Test(vouched, an_id_never_changes_its_user)
{
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	expect_refused("bob 198.18.1.2 5000 a1", "connection_foreign");
	expect_refused("bob 198.18.1.2 5000 b1;bob 198.18.1.3 5000 b1", "connection_taken");
	cr_assert_eq(audited(&f, "vouch_refused"), 1);
	cr_assert(served(0xa1, "alice", "198.18.1.1", 5000));
}

Test(vouched, subscribers_and_vouched_ones_keep_apart)
{
	uint64_t id = subscribe(&f, "carol", 0xc1, NULL), ref;
	const struct registration *r = registrations_find(f.engine.registrations, id);
	char line[64];

	snprintf(line, sizeof(line), "alice 198.18.0.2 %u", r->address.port);
	expect_refused(line, "not_vouched");
	expect_refused("alice 198.18.1.1 5000 c1", "connection_foreign");
	expect_refused("carol 198.18.1.1 5000 c1", "connection_taken");
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	ref = ask(&f, "bob", 0xa1);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_CONNECTION_FOREIGN);
	cr_assert_eq(audited(&f, "connection_foreign"), 1);
	ref = ask(&f, "alice", 0xa1);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ref, 0)->error, MESSAGE_ERROR_CONNECTION_FOREIGN);
	cr_assert(served(0xa1, "alice", "198.18.1.1", 5000));
}

Test(vouched, places_outside_are_refused)
{
	expect_refused("alice 192.0.2.1 5000", "not_vouched");
	expect_refused("alice 198.18.0.1 5000", "not_vouched"); /* the engine */
	expect_refused("alice 198.18.0.2 20000", "not_vouched");
	expect_refused("alice 198.18.0.2 21000", "not_vouched");
	expect_done("alice 198.18.0.2 21001", 1, 0, 0);
	expect_refused("alice 198.18.1.1 0", "bad_request");
	expect_refused("alice 2001:db8::1 5000", "not_vouched");
	f.config.vouched[0].address.bytes[12] = 0;
	f.config.vouched[0].address.bytes[13] = 0;
	f.config.vouched[0].prefix_len = 0;
	expect_refused("alice 224.0.0.1 5000", "not_vouched");
	expect_refused("alice 255.255.255.255 5000", "not_vouched");
	expect_refused("alice 127.0.0.1 5000", "not_vouched");
	expect_refused("alice 0.0.0.0 5000", "not_vouched");
}

Test(vouched, another_configuration_ends_what_it_does_not_vouch_for)
{
	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.2.1 5000 b1;carol 198.18.3.1 20500 c1", 3,
		    0, 0);
	f.config.vouched[0].address.bytes[14] = 2;
	f.config.vouched[0].prefix_len = 23; /* 198.18.2.0 and 198.18.3.0 */
	fan_address_parse(&f.config.receiver_address[0], "198.18.3.1");
	for (unsigned i = 0; i < 2; i++) {
		if (i)
			reboot();
		else
			restart();
		cr_assert_eq(total(), 1);
		cr_assert(served(0xb1, "bob", "198.18.2.1", 5000));
	}
	cr_assert_eq(audited(&f, "unvouch"), 1);
}

/* ---- limits ---------------------------------------------------------------------------------- */

Test(vouched, limits_hold_for_both_kinds_together)
{
	f.config.max_connections_per_user = 3;
	subscribe(&f, "alice", 0, NULL);
	expect_refused("alice 198.18.1.1 5000;alice 198.18.1.2 5000;alice 198.18.1.3 5000",
		       "limit_user");
	expect_done("alice 198.18.1.1 5000;alice 198.18.1.2 5000", 2, 0, 0);
	cr_assert_eq(told(&f, MESSAGE_REFUSE, ask(&f, "alice", 0), 0)->error,
		     MESSAGE_ERROR_LIMIT_USER);
	f.config.max_connections_per_user = 100;
	f.config.max_connections = 5;
	expect_refused("bob 198.18.1.3 5000;bob 198.18.1.4 5000;bob 198.18.1.5 5000",
		       "limit_overall");
	f.config.max_users = 2;
	expect_refused("bob 198.18.1.3 5000;carol 198.18.1.4 5000", "limit_overall");
	expect_done("bob 198.18.1.3 5000;bob 198.18.1.4 5000", 2, 0, 0);
}

/* ---- ends ------------------------------------------------------------------------------------ */

Test(vouched, removal_by_id_user_and_batch_lasts)
{
	struct vouched_selection selection = {.id = 0xa1};
	uint64_t batch;

	expect_done("alice 198.18.1.1 5000 a1;alice 198.18.1.2 5000 a2;bob 198.18.1.3 5000 b1", 3,
		    0, 0);
	expect_done("carol 198.18.1.4 5000 c1;dave 198.18.1.5 5000 d1", 2, 0, 0);
	batch = last.batch;
	remove_all(&selection, 1);
	remove_all(&selection, 0);
	selection = (struct vouched_selection){.user = "alice"};
	remove_all(&selection, 1);
	selection = (struct vouched_selection){.batch = batch};
	remove_all(&selection, 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(total(), 1);
		cr_assert_leq(endpoints(&f, "alice"), 0);
		cr_assert_leq(endpoints(&f, "carol"), 0);
		cr_assert_eq(endpoints(&f, "bob"), 1);
		reboot();
	}
	cr_assert_eq(audited(&f, "unvouch"), 3);
}

/* Rows of the main file alone, as if the -wal file had been lost. */
static int rows_without_wal(void)
{
	char command[400], copy[160];
	sqlite3_stmt *stmt;
	sqlite3 *db;
	int cnt;

	snprintf(copy, sizeof(copy), "%s/copy.db", f.dir);
	snprintf(command, sizeof(command), "cp %s/fanwire.db %s", f.dir, copy);
	cr_assert_eq(system(command), 0);
	cr_assert_eq(sqlite3_open(copy, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db, "SELECT count(*) FROM vouched", -1, &stmt, NULL), 0);
	cr_assert_eq(sqlite3_step(stmt), SQLITE_ROW);
	cnt = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return cnt;
}

Test(vouched, a_removal_does_not_depend_on_the_wal)
{
	struct vouched_selection selection = {.id = 0xa1};

	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.1.3 5000 b1", 2, 0, 0);
	cr_assert_eq(rows_without_wal(), 0, "this test sees no -wal file");
	remove_all(&selection, 1);
	cr_assert_eq(rows_without_wal(), 1);
}

static void on_revoked(void *arg, struct user *user, int status)
{
	cr_assert_eq(status, 0);
	*(unsigned *)arg = vouched_on_revoked(f.engine.vouched, user->handle, status);
	registry_user_revoke(f.engine.registry, user->handle);
	vouched_revoke_done(f.engine.vouched);
}

/* As http_users.c does. */
static void revoke_user(const char *name, unsigned *ended)
{
	struct user *user;

	cr_assert_eq(users_get(f.engine.users, name, strlen(name), &user), 0);
	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, ended), 0);
	cr_assert_eq(vouched_revoke_rows(f.engine.vouched, user->handle), 0);
}

Test(vouched, a_revocation_ends_them_for_good)
{
	unsigned ended = 0;

	expect_done("alice 198.18.1.1 5000 a1;alice 198.18.1.2 5000 a2;bob 198.18.1.3 5000 b1", 3,
		    0, 0);
	revoke_user("alice", &ended);
	import("bob 198.18.1.1 5000");
	cr_assert_eq(ended, 2, "the revocation came second");
	cr_assert_str_eq(last.error, "busy");
	settle(&f, 10);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(total(), 1);
		cr_assert_leq(endpoints(&f, "alice"), 0);
		if (i == 0)
			restart();
		else
			reboot();
	}
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	reboot();
	cr_assert(served(0xa1, "alice", "198.18.1.1", 5000), "of the new generation");
}

Test(vouched, a_revocation_reaches_one_that_is_only_waiting_to_be_moved)
{
	unsigned ended = 0;

	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	f.stalled = true;
	import("alice 198.18.1.9 5000 a1");
	revoke_user("alice", &ended);
	store_flush(f.engine.store);
	f.stalled = false;
	settle(&f, 10);
	cr_assert_eq(total(), 0);
	reboot();
	cr_assert_eq(total(), 0);
}

Test(vouched, a_row_of_an_older_generation_is_not_loaded)
{
	struct user *user;
	unsigned ended;

	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.1.2 5000 b1", 2, 0, 0);
	cr_assert_eq(users_get(f.engine.users, "alice", 5, &user), 0);
	/* the rows are left behind, as of a user whose rows were not known when he was revoked */
	cr_assert_eq(users_revoke(f.engine.users, user, on_revoked, &ended), 0);
	f.engine.vouched->revoking++;
	store_flush(f.engine.store);
	reboot();
	cr_assert_eq(total(), 1);
	cr_assert_leq(endpoints(&f, "alice"), 0);
	reboot();
	cr_assert_eq(total(), 1);
}

/* ---- crashes --------------------------------------------------------------------------------- */

/* Durable, and killed before the region has any of it. */
static void take_and_die(char *body)
{
	struct vouched_answer answer = {0};

	vouched_know_places(f.engine.vouched, UINT32_MAX);
	cr_assert(vouched_batch_take(f.engine.vouched, body, strlen(body), 1000, f.now, &answer),
		  "%s", answer.message);
	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 100);
}

Test(vouched, what_was_durable_is_in_the_region_after_a_crash)
{
	char add[] = "{\"user\":\"alice\",\"address\":\"198.18.1.1\",\"port\":5000,"
		     "\"id\":\"00000000000000a1\"}\n"
		     "{\"user\":\"bob\",\"address\":\"198.18.1.2\",\"port\":5000,"
		     "\"id\":\"00000000000000b1\"}";
	char move[] = "{\"user\":\"alice\",\"address\":\"198.18.1.9\",\"port\":5000,"
		      "\"id\":\"00000000000000a1\"}";

	take_and_die(add);
	cr_assert(served(0xa1, "alice", "198.18.1.1", 5000));
	cr_assert(served(0xb1, "bob", "198.18.1.2", 5000));
	take_and_die(move);
	cr_assert(served(0xa1, "alice", "198.18.1.9", 5000));
	cr_assert_eq(total(), 2);
	restart();
	cr_assert_eq(total(), 2);
	expect_refused("carol 198.18.1.9 5000", "address_taken");
	expect_done("carol 198.18.1.1 5000", 1, 0, 0);
}

Test(vouched, what_was_removed_is_out_of_the_region_after_a_crash)
{
	struct vouched_rows *rows = &f.engine.vouched->rows;
	struct registry_connection c;

	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.1.2 5000 b1;carol 198.18.1.3 5000 c1", 3,
		    0, 0);
	/* by id, and by a run of rows as of a batch that is taken back */
	cr_assert(registry_connection(f.engine.registry, 0xa1, &c));
	cr_assert_eq(rows_remove(rows, vouched_row(&c)), 0);
	cr_assert_eq(rows_open_add(rows, vouched_row(&c), vouched_row(&c), 0xa1), 0);
	cr_assert(registry_connection(f.engine.registry, 0xc1, &c));
	cr_assert_eq(rows_remove_run(rows, vouched_row(&c), vouched_row(&c)), 0);
	cr_assert_eq(rows_open_add(rows, vouched_row(&c) - 1, vouched_row(&c), 0), 0);
	store_flush(f.engine.store);
	restart();
	cr_assert_eq(total(), 1);
	cr_assert(served(0xb1, "bob", "198.18.1.2", 5000));
	cr_assert_leq(endpoints(&f, "alice"), 0);
	cr_assert_leq(endpoints(&f, "carol"), 0);
}

Test(vouched, a_loading_that_was_cut_off_goes_on)
{
	char body[64 * 128] = "";
	struct vouched_rows *rows = &f.engine.vouched->rows;
	uint8_t rules[FAN_HANDLE_LEN] = {0};

	for (unsigned i = 0; i < 40; i++)
		sprintf(body + strlen(body), "%su%u 198.18.4.%u 5000", i ? ";" : "", i / 2, i);
	expect_done(body, 40, 0, 0);
	cr_assert_eq(rows_state_write(rows, 1, rules), 0); /* as if into another region */
	restart();
	cr_assert_eq(total(), 40);
	reboot();
	cr_assert_eq(total(), 40);
	expect_done(body, 0, 0, 40);
}

Test(vouched, a_batch_without_room_in_the_table_is_taken_back_whole)
{
	char body[64 * 64] = "";

	/* more groups than there is room for, which the check beforehand does not see */
	for (unsigned i = 0; i < 60; i++)
		sprintf(body + strlen(body), "%su%u 198.18.4.%u 5000", i ? ";" : "", i, i);
	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	f.config.max_users = f.config.max_groups = 1000;
	f.config.max_connections = 10;
	expect_refused(body, "limit_overall");
	f.config.max_connections = 1000;
	memcpy(body, "", 1);
	for (unsigned i = 0; i < 100; i++)
		sprintf(body + strlen(body), "%su%u 198.18.4.%u 5000", i ? ";" : "", i, i);
	import(body);
	settle(&f, 10);
	cr_assert_not_null(last.error);
	cr_assert_str_eq(last.error, "no_room", "%s", last.message);
	settle(&f, 10);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(total(), 1);
		cr_assert_leq(endpoints(&f, "u0"), 0);
		cr_assert_eq(endpoints(&f, "alice"), 1);
		reboot();
	}
	cr_assert_eq(audited(&f, "vouch_failed"), 1);
}

Test(vouched, a_batch_that_the_database_takes_in_part_is_not_taken_at_all)
{
	struct sqlite3_stmt *block;

	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	/* the row that the second line would get is there already */
	block = store_prepare(f.engine.store, "INSERT INTO vouched SELECT row + 2, id, user, "
					      "generation, address, port, since, mac FROM vouched");
	cr_assert_eq(store_write(f.engine.store, block), 0);
	store_flush(f.engine.store);
	expect_refused("bob 198.18.1.2 5000;bob 198.18.1.3 5000;bob 198.18.1.4 5000", "internal");
	cr_assert_eq(rows_count(&f.engine.vouched->rows), 2);
	cr_assert_eq(endpoints(&f, "bob"), -1);
	cr_assert_eq(audited(&f, "vouch"), 1);
}

static void write_sql(const char *sql)
{
	cr_assert_eq(store_write(f.engine.store, store_prepare(f.engine.store, sql)), 0);
	store_flush(f.engine.store);
}

static void status_failed(unsigned loaded, const char *says)
{
	struct vouched_status status;

	vouched_status(f.engine.vouched, &status);
	cr_assert_not(status.loading);
	cr_assert_eq(status.total, loaded);
	cr_assert_not_null(strstr(status.failed, says), "'%s' does not say '%s'", status.failed,
			   says);
}

/* Each of these reads as a row, and would be a registration of somebody else's, or elsewhere. */
Test(vouched, a_row_that_is_not_as_it_was_written_is_never_loaded)
{
	static const char *const changes[] = {
		"UPDATE vouched SET user = 'bob' WHERE id = 161",
		"UPDATE vouched SET id = 162 WHERE id = 161",
		"UPDATE vouched SET address = x'c6120109' WHERE id = 161",
		"UPDATE vouched SET port = 5001 WHERE id = 161",
		"UPDATE vouched SET since = since + 1 WHERE id = 161",
		"UPDATE vouched SET row = 77 WHERE id = 161",
		"UPDATE vouched SET mac = mac + 1 WHERE id = 161",
		"UPDATE vouched SET mac = NULL WHERE id = 161",
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct vouched_selection selection = {.row = i == 5 ? 77 : 2 * i + 1};

		expect_done("alice 198.18.1.1 5000 a1;carol 198.18.1.3 5000 c1", 2, 0, 0);
		write_sql(changes[i]);
		reboot();
		status_failed(1, i == 5 ? "row 77," : "the first is row");
		cr_assert_leq(endpoints(&f, "alice"), 0, "%s", changes[i]);
		cr_assert_leq(endpoints(&f, "bob"), 0, "%s", changes[i]);
		cr_assert(served(0xc1, "carol", "198.18.1.3", 5000));
		restart();
		status_failed(1, "vouched remove --row");
		selection.row = f.engine.vouched->first_damaged;
		remove_all(&selection, 1);
		cr_assert_eq(total(), 1, "what was damaged is put right");
		selection = (struct vouched_selection){.user = "carol"};
		remove_all(&selection, 1);
		cr_assert_eq(rows_count(&f.engine.vouched->rows), 0);
	}
}

/* The region has it still: it ends with its row. */
Test(vouched, a_damaged_row_is_removed_with_its_registration)
{
	struct vouched_selection selection = {.row = 1};

	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.1.2 5000 b1;carol 198.18.1.3 5000 c1", 3,
		    0, 0);
	write_sql("UPDATE vouched SET id = 177 WHERE row = 1"); /* bob's */
	remove_all(&selection, 1);
	cr_assert_leq(endpoints(&f, "alice"), 0);
	cr_assert_eq(endpoints(&f, "bob"), 1);
	write_sql("UPDATE vouched SET id = 161 WHERE row = 2");
	selection = (struct vouched_selection){.batch = last.batch ? last.batch : 1};
	remove_all(&selection, 2);
	cr_assert_leq(endpoints(&f, "bob"), 0);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(total(), 0);
		reboot();
	}
}

Test(vouched, a_batch_that_is_not_as_it_was_written_removes_nobody)
{
	struct vouched_selection selection = {.batch = 1};

	expect_done("alice 198.18.1.1 5000 a1", 1, 0, 0);
	expect_done("bob 198.18.1.2 5000 b1", 1, 0, 0);
	write_sql("UPDATE vouched_batch SET last = 2 WHERE batch = 1");
	vouched_remove(f.engine.vouched, &selection, 1000, on_done, NULL);
	cr_assert_not_null(last.error);
	cr_assert_not_null(strstr(last.message, "batch 1 is not as it was written"), "%s",
			   last.message);
	cr_assert_eq(total(), 2);
}

Test(vouched, the_state_of_the_table_is_believed_as_it_was_written_alone)
{
	expect_done("alice 198.18.1.1 5000 a1;bob 198.18.2.1 5000 b1", 2, 0, 0);
	f.config.vouched[0].address.bytes[14] = 2;
	f.config.vouched[0].prefix_len = 24; /* 198.18.2.0 */
	fixture_stop(&f);
	fixture_start(&f);
	cr_assert_eq(total(), 1);
	f.config.vouched[0].address.bytes[14] = 3;
	write_sql("UPDATE vouched_state SET region = region + 1");
	restart(); /* all are judged anew */
	cr_assert_eq(total(), 0);
}

Test(vouched, listing_goes_page_by_page)
{
	uint64_t next = 0;
	unsigned seen = 0;

	expect_done("a 198.18.1.1 5000 a1;a 198.18.1.2 5000 a2;b 198.18.1.3 5000 b1", 3, 0, 0);
	do {
		json_t *page = vouched_list(f.engine.vouched, NULL, next, 2, &next);

		seen += (unsigned)json_array_size(page);
		json_decref(page);
	} while (next);
	cr_assert_eq(seen, 3);
	for (seen = 0, next = 0;;) {
		json_t *page = vouched_list(f.engine.vouched, "a", next, 1, &next);

		seen += (unsigned)json_array_size(page);
		json_decref(page);
		if (!next)
			break;
	}
	cr_assert_eq(seen, 2);
}
