/* SPDX-License-Identifier: BSD-3-Clause */
/* What is unlinked is not reused while a worker may hold it, and only a worker can hold it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <time.h>

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

TestSuite(reclaim, .init = setup, .fini = teardown);

static void start_workers(void)
{
	dataplane_start(&f);
	worker_enter(&f, 0);
	worker_enter(&f, 1);
	keep(&f, SECOND_NS);
}

static bool is_ending(uint64_t id)
{
	return connection_there(&f, id);
}

Test(reclaim, waits_for_every_odd_worker)
{
	uint64_t id;

	start_workers();
	id = connect_user(&f, 1, NULL, 0, NULL);
	disconnect(&f, id);
	keep(&f, 1);
	cr_assert(is_ending(id));
	worker_pass(&f, 0);
	keep(&f, 1);
	cr_assert(is_ending(id), "worker 1 has not passed");
	worker_pass(&f, 1);
	keep(&f, 1);
	cr_assert_not(is_ending(id));
	cr_assert_eq(counts_of(&f).retired, 0);
}

Test(reclaim, a_pass_before_the_snapshot_does_not_count)
{
	uint64_t id;

	start_workers();
	id = connect_user(&f, 1, NULL, 0, NULL);
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	disconnect(&f, id);
	keep(&f, 1);
	cr_assert(is_ending(id));
}

Test(reclaim, an_even_worker_holds_nothing)
{
	uint64_t id;

	dataplane_start(&f);
	worker_enter(&f, 3);
	keep(&f, SECOND_NS);
	id = connect_user(&f, 1, NULL, 0, NULL);
	disconnect(&f, id);
	keep(&f, 1);
	cr_assert(is_ending(id));
	__atomic_fetch_add(&worker(&f, 3)->quiescent, 1, __ATOMIC_SEQ_CST); /* it leaves */
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

Test(reclaim, a_released_lock_is_death_and_a_late_heartbeat_is_not)
{
	uint64_t id;

	start_workers();
	id = connect_user(&f, 1, NULL, 0, NULL);
	disconnect(&f, id);
	keep(&f, 3600 * SECOND_NS);
	cr_assert(is_ending(id));
	cr_assert(registry_dataplane_alive(f.r));
	dataplane_kill(&f);
	cr_assert_not(registry_dataplane_alive(f.r));
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

/* A dataplane that nobody has looked at yet holds references all the same. */
Test(reclaim, a_dataplane_that_just_started_is_seen_in_time)
{
	uint64_t id = connect_user(&f, 1, NULL, 0, NULL);

	keep(&f, 1);
	dataplane_start(&f);
	worker_enter(&f, 0);
	disconnect(&f, id);
	keep(&f, 1);
	cr_assert(is_ending(id));
	worker_pass(&f, 0);
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

/* Old region dead, a new one under way: what was unlinked meanwhile waits for the new workers. */
Test(reclaim, a_replaced_state_region_is_waited_for_anew)
{
	uint64_t id = connect_user(&f, 1, NULL, 0, NULL);

	start_workers();
	dataplane_kill(&f);
	dataplane_remove_file(&f);
	dataplane_start(&f);
	worker_enter(&f, 0);
	disconnect(&f, id);
	keep(&f, 1);
	cr_assert(is_ending(id));
	worker_pass(&f, 0);
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

Test(reclaim, the_state_of_another_registry_is_not_ours)
{
	dataplane_start(&f);
	((struct fan_state *)f.state.base)->registry_epoch++;
	keep(&f, SECOND_NS);
	cr_assert_null(registry_state(f.r));
	((struct fan_state *)f.state.base)->registry_epoch--;
	((struct fan_state *)f.state.base)->workers_off = UINT64_MAX - 63;
	keep(&f, SECOND_NS);
	cr_assert_null(registry_state(f.r), "its workers lie outside");
	((struct fan_state *)f.state.base)->workers_off = sizeof(struct fan_state);
	((struct fan_state *)f.state.base)->group_cnt = UINT32_MAX;
	keep(&f, SECOND_NS);
	cr_assert_null(registry_state(f.r), "its groups lie outside");
}

/* Its root is the dataplane's to write: spoilt later, it leads nobody out of the region. */
Test(reclaim, a_state_region_that_is_spoilt_later_leads_nowhere)
{
	const struct fan_worker_state *first;
	struct fan_state *state;

	dataplane_start(&f);
	keep(&f, SECOND_NS);
	first = registry_worker(f.r, 0);
	cr_assert_not_null(first);
	cr_assert_eq((const void *)(first + 1), (const void *)registry_worker(f.r, 1));
	cr_assert_null(registry_worker(f.r, 2));
	cr_assert_null(registry_group_state(f.r, 0), "the fixture's has none");
	state = f.state.base;
	state->workers_off = state->groups_off = UINT64_MAX - 63;
	state->group_cnt = state->worker_cnt = UINT32_MAX;
	keep(&f, SECOND_NS);
	cr_assert_eq(registry_worker(f.r, 0), first);
	cr_assert_null(registry_worker(f.r, FAN_WORKERS_MAX));
	cr_assert_null(registry_group_state(f.r, 0));
	state->workers_off = sizeof(*state);
}

/* A reader's view of a block stays whole while the group changes under it. */
Test(reclaim, a_held_block_keeps_its_bytes)
{
	const struct fan_table *t = registry_table(f.r);
	struct fan_endpoint copy[3];
	const struct fan_endpoint *held;
	const struct fan_group *group;
	uint8_t handle[16];
	uint64_t ids[3];
	uint32_t cnt;

	start_workers();
	for (unsigned i = 0; i < 3; i++)
		ids[i] = connect_user(&f, 1, NULL, 0, NULL);
	user_handle(handle, 1);
	group = fan_table_lookup(t, handle, FAN_CHANNEL_ALL,
				 fan_table_hash(t->seed, handle, FAN_CHANNEL_ALL));
	held = fan_group_endpoints(t, group, &cnt);
	cr_assert_eq(cnt, 3);
	memcpy(copy, held, sizeof(copy));
	for (unsigned i = 0; i < 3; i++)
		disconnect(&f, ids[i]);
	for (unsigned i = 0; i < 30; i++) {
		uint64_t id = connect_user(&f, i, NULL, 0, NULL);

		worker_pass(&f, 1);
		disconnect(&f, id);
		keep(&f, SECOND_NS);
	}
	cr_assert_eq(memcmp(copy, held, sizeof(copy)), 0);
	cr_assert_eq(memcmp(group->handle, handle, 16), 0, "so does the group's record");
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	keep(&f, 1);
	drain_and_check(&f);
}

/* Stalled: delayed, refused with a reason, and well again afterwards. */
Test(reclaim, a_stalled_worker_is_named_when_memory_runs_out)
{
	int rc = 0;
	uint64_t id;

	start_workers();
	for (unsigned i = 0; i < 100000 && rc == 0; i++) {
		rc = try_connect(&f, i % 60, NULL, 0, &id);
		if (rc == 0)
			disconnect(&f, id);
		worker_pass(&f, 0);
		keep(&f, 100000000);
	}
	cr_assert_eq(rc, -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "waiting for worker 1, stalled for"), "%s",
			   registry_why(f.r));
	table_check(&f);
	worker_pass(&f, 1);
	keep(&f, 1);
	cr_assert_eq(try_connect(&f, 1, NULL, 0, &id), 0);
	drain_and_check(&f);
}

/* A deletion is not refused for want of memory: it is done when there is some, and told then. */
Test(reclaim, a_deletion_waits_for_memory_instead_of_failing)
{
	uint64_t ids[3], other;

	for (unsigned i = 0; i < 3; i++)
		ids[i] = connect_user(&f, 1, NULL, 0, NULL);
	start_workers();
	fixture_close(&f);
	fixture_open(&f); /* nothing may be taken: the workers have not passed */
	disconnect(&f, ids[1]);
	cr_assert_eq(connection_of(&f, ids[1]).state, FAN_CONNECTION_ENDING);
	cr_assert_eq(counts_of(&f).connections_active, 2);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 3, "in place until it can be copied");
	table_check(&f);
	fixture_close(&f);
	fixture_open(&f); /* a restart does not forget it */
	keep(&f, 1);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 3);
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	keep(&f, 1);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 2);
	cr_assert(is_ending(ids[1]), "from here on its grace period counts");
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	keep(&f, 1);
	cr_assert_not(is_ending(ids[1]));
	other = connect_user(&f, 2, NULL, 0, NULL);
	disconnect(&f, other);
	drain_and_check(&f);
}

Test(reclaim, revocation_takes_those_who_wait_for_memory_along)
{
	uint64_t ids[3];
	uint8_t handle[16];

	for (unsigned i = 0; i < 3; i++)
		ids[i] = connect_user(&f, 1, NULL, 0, NULL);
	start_workers();
	fixture_close(&f);
	fixture_open(&f);
	disconnect(&f, ids[1]);
	user_handle(handle, 1);
	cr_assert_eq(registry_user_revoke(f.r, handle), 0);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), -1);
	keep(&f, 1);
	for (unsigned i = 0; i < 3; i++)
		cr_assert(is_ending(ids[i]));
	table_check(&f);
	drain_and_check(&f);
}

/* ---- takeover ---- */

/* A restarted fanwired does not know what was unlinked last: all that is free rests. */
Test(reclaim, after_a_takeover_nothing_is_taken_before_a_grace_period)
{
	struct registry_connection c;
	struct registry_user_keys keys = user_keys(2);
	struct registry_connection spec;

	start_workers();
	connect_user(&f, 1, NULL, 0, NULL);
	fixture_close(&f);
	fixture_open(&f);
	spec = connection_spec(&f, 2);
	cr_assert_eq(counts_of(&f).endpoints_free, 0);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), -ENOSPC);
	cr_assert_not_null(strstr(registry_why(f.r), "waiting for worker 0"));
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, NULL, 0), 0);
	drain_and_check(&f);
}

Test(reclaim, sessions_rest_after_a_takeover_too)
{
	struct fan_session spec = {.family = 4};
	uint64_t id;

	start_workers();
	fixture_close(&f);
	fixture_open(&f);
	cr_assert_eq(registry_session_open(f.r, &spec, &id), -ENOSPC);
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
}

Test(reclaim, a_takeover_without_a_dataplane_waits_for_nobody)
{
	start_workers();
	dataplane_kill(&f);
	fixture_close(&f);
	fixture_open(&f);
	cr_assert_gt(counts_of(&f).endpoints_free, 0);
	connect_user(&f, 1, NULL, 0, NULL);
}

/* ---- requests to the dataplane name ports ---- */

static uint64_t challenged(void)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct fan_request request = {.type = FAN_REQUEST_CHALLENGE};
	struct registry_connection c;

	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	request.connection = c.id;
	cr_assert(registry_request(f.r, &request));
	return c.id;
}

static void both_pass(void)
{
	worker_pass(&f, 0);
	worker_pass(&f, 1);
	keep(&f, 1);
}

static uint32_t *request_tail(void)
{
	return &((struct fan_state *)f.state.base)->request_tail;
}

Test(reclaim, a_port_rests_while_a_request_may_name_it)
{
	uint64_t id;

	start_workers();
	id = challenged();
	disconnect(&f, id);
	keep(&f, 1);
	both_pass();
	both_pass();
	cr_assert(is_ending(id), "the workers run, and the request is still to be done");
	challenged(); /* later ones are not waited for */
	++*request_tail();
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

Test(reclaim, a_dead_dataplane_does_no_request)
{
	uint64_t id;

	start_workers();
	id = challenged();
	disconnect(&f, id);
	keep(&f, 1);
	both_pass();
	cr_assert(is_ending(id));
	dataplane_kill(&f);
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

Test(reclaim, a_restart_of_fanwired_keeps_waiting_for_the_request)
{
	uint64_t id;

	start_workers();
	id = challenged();
	fixture_close(&f);
	fixture_open(&f);
	keep(&f, 1);
	both_pass();
	both_pass();
	cr_assert(is_ending(id));
	*request_tail() = registry_root(f.r)->request_head;
	keep(&f, 1);
	cr_assert_not(is_ending(id));
}

Test(reclaim, a_request_has_a_deadline)
{
	const struct fan_request *slot;
	struct timespec now;
	uint64_t now_ns;

	start_workers();
	challenged();
	slot = (const void *)((const char *)registry_root(f.r) + registry_root(f.r)->requests_off);
	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
	cr_assert_gt(slot->deadline_ns, now_ns);
	cr_assert_leq(slot->deadline_ns, now_ns + SECOND_NS);
}
