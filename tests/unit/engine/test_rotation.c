/* SPDX-License-Identifier: BSD-3-Clause */
/* A rotation of keys: in which order it reaches whom, and what a restart makes of each stage. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/shm/table.h"
#include "control/engine/rotation.h"
#include "control/registry/registry.h"
#include "tests/unit/engine/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
	f.config.seal = true;
	f.config.lease_s = f.config.reattach_s = 3000; /* nobody leaves meanwhile */
	fixture_start(&f);
	dataplane_start(&f);
}

static void teardown(void)
{
	fixture_stop(&f);
	fixture_fini(&f);
}

TestSuite(rotation, .init = setup, .fini = teardown);

static struct rotation_status status(void)
{
	struct rotation_status now;

	rotation_status(f.engine.rotation, f.now, &now);
	return now;
}

static void restart(void)
{
	fixture_stop(&f);
	fixture_start(&f);
	settle(&f, 100);
}

/* Real seconds pass where a stage waits for the agent's answer; here the test's clock does. */
static void go_to(enum rotation_stage stage)
{
	for (unsigned i = 0; status().stage != stage; i++) {
		cr_assert_lt(i, 200, "stays %s, not %s", rotation_stage_name(status().stage),
			     rotation_stage_name(stage));
		settle(&f,
		       status().stage == ROTATION_SETTLING || stage == ROTATION_NONE ? 1500 : 1);
	}
}

static const struct message *keys_told(uint64_t id)
{
	return told(&f, MESSAGE_KEYS, 0, id);
}

static void both(const struct message *message, uint8_t present, uint8_t other)
{
	cr_assert_not_null(message);
	cr_assert_eq(message->u.grant.scope.key_generation, present);
	cr_assert_eq(message->u.grant.scope.previous_key_generation, other);
	cr_assert_neq(memcmp(message->u.grant.scope.tag_key,
			     message->u.grant.scope.previous_tag_key, FAN_TAG_KEY_LEN),
		      0);
	cr_assert_eq(message->u.grant.keys.cnt, 2);
	cr_assert_eq(message->u.grant.keys.key[0].generation, present);
	cr_assert_eq(message->u.grant.keys.key[1].generation, other);
}

static void alone(const struct message *message, uint8_t present)
{
	cr_assert_not_null(message);
	cr_assert_eq(message->u.grant.scope.key_generation, present);
	cr_assert_eq(message->u.grant.scope.previous_key_generation, present);
	cr_assert_eq(message->u.grant.keys.cnt, 1);
	cr_assert_eq(message->u.grant.keys.key[0].generation, present);
}

/* No filter may meet a generation that it does not know. */
Test(rotation, nothing_is_sent_under_new_keys_before_all_filters_have_them)
{
	uint64_t alice = subscribe(&f, "alice", 0, NULL), bob = subscribe(&f, "bob", 0, NULL);

	f.mute = true; /* the agent does not say that it has acted upon them */
	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	cr_assert_eq(rotation_begin(f.engine.rotation), -EBUSY);
	for (unsigned i = 0; i < 20; i++)
		settle(&f, 1000);
	both(keys_told(alice), 1, 2);
	both(keys_told(bob), 1, 2);
	cr_assert_eq(status().stage, ROTATION_CONFIRMING);
	cr_assert_eq(status().generation, 1, "switched before the filters had the keys");
	answer_mark(&f);
	f.mute = false;
	go_to(ROTATION_OVERLAP);
	cr_assert_eq(status().generation, 2);
}

Test(rotation, the_old_keys_hold_for_their_time_and_no_longer)
{
	uint64_t alice = subscribe(&f, "alice", 0, NULL);
	unsigned before;

	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_OVERLAP);
	before = told_count(&f, MESSAGE_KEYS);
	settle(&f, 58000);
	cr_assert_eq(status().stage, ROTATION_OVERLAP);
	cr_assert_eq(told_count(&f, MESSAGE_KEYS), before);
	cr_assert_eq(registry_other_generation(f.engine.registry), 1);
	go_to(ROTATION_NONE);
	alone(keys_told(alice), 2);
	cr_assert_null(fan_root_of(registry_root(f.engine.registry), 1));
	cr_assert_eq(audited(&f, "keys_switched"), 1);
	cr_assert_eq(audited(&f, "keys_retired"), 1);
}

Test(rotation, who_comes_meanwhile_is_given_both)
{
	uint64_t ref, id;
	const struct message *grant;

	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_SETTLING);
	ref = ask(&f, "alice", 0);
	grant = told(&f, MESSAGE_GRANT, ref, 0);
	both(grant, 1, 2);
	id = bind_grant(&f, ref);
	settle(&f, 20);
	go_to(ROTATION_OVERLAP);
	both(told(&f, MESSAGE_GRANT, ask(&f, "bob", 0), 0), 2, 1);
	echo(&f, id);
	cr_assert_eq(endpoints(&f, "alice"), 1);
}

/* Challenges are tagged under what every filter has: never under what is only being told. */
Test(rotation, a_challenge_has_the_generation_in_force)
{
	const struct fan_registry *root = registry_root(f.engine.registry);
	const struct fan_request *requests;
	uint32_t head;

	f.mute = true;
	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	settle(&f, 100);
	cr_assert_eq(status().stage, ROTATION_CONFIRMING);
	head = root->request_head;
	bind_grant(&f, ask(&f, "alice", 0));
	settle(&f, 20);
	cr_assert_eq(root->request_head, head + 1);
	requests = (const void *)((const char *)root + root->requests_off);
	cr_assert_eq(requests[head & (root->request_cnt - 1)].key_generation, 1);
}

Test(rotation, streams_go_on)
{
	uint64_t before;

	subscribe(&f, "alice", 0, NULL);
	before = registry_root(f.engine.registry)->next_incarnation;
	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_NONE);
	subscribe(&f, "alice", 0, NULL);
	cr_assert_eq(endpoints(&f, "alice"), 2);
	cr_assert_eq(registry_root(f.engine.registry)->next_incarnation, before);
}

Test(rotation, after_255_comes_1)
{
	for (unsigned i = 0; i < 255; i++) {
		cr_assert_eq(rotation_begin(f.engine.rotation), 0);
		f.message_cnt = 0;
		go_to(ROTATION_NONE);
		cr_assert_eq(status().generation, (i + 1) % 255 + 1);
	}
}

/* ---- restarts -------------------------------------------------------------------------------- */

static void goes_on_from(enum rotation_stage stage)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);

	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	f.mute = stage == ROTATION_CONFIRMING;
	go_to(stage);
	f.mute = false;
	restart();
	cr_assert_neq(status().stage, ROTATION_NONE, "%s is forgotten", rotation_stage_name(stage));
	go_to(ROTATION_NONE);
	cr_assert_eq(status().generation, 2);
	cr_assert_eq(registry_other_generation(f.engine.registry), 0);
	alone(keys_told(id), 2);
	restart();
	cr_assert_eq(status().stage, ROTATION_NONE);
	cr_assert_eq(status().generation, 2);
}

Test(rotation, a_restart_tells_all_once_more)
{
	goes_on_from(ROTATION_CONFIRMING);
}

Test(rotation, a_restart_goes_on_with_settling)
{
	goes_on_from(ROTATION_SETTLING);
}

Test(rotation, a_restart_goes_on_with_the_overlap)
{
	goes_on_from(ROTATION_OVERLAP);
}

Test(rotation, a_restart_goes_on_with_retiring)
{
	uint64_t id = subscribe(&f, "alice", 0, NULL);

	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_OVERLAP);
	registry_roots_retire(f.engine.registry); /* killed right after it */
	restart();
	go_to(ROTATION_NONE);
	alone(keys_told(id), 2);
}

static void new_region(void)
{
	char path[128];

	dataplane_stop(&f);
	fixture_stop(&f);
	snprintf(path, sizeof(path), "%s/%s", f.dir, FAN_REGISTRY_FILE);
	cr_assert_eq(unlink(path), 0);
	fixture_start(&f);
	dataplane_start(&f);
}

Test(rotation, a_generation_never_goes_back_over_boots)
{
	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_NONE);
	new_region();
	cr_assert_eq(status().generation, 2);
	cr_assert_eq(rotation_begin(f.engine.rotation), 0);
	go_to(ROTATION_OVERLAP); /* killed here, and the region lost with the boot */
	new_region();
	cr_assert_eq(status().generation, 3);
	cr_assert_eq(status().stage, ROTATION_NONE);
}

Test(rotation, a_region_of_another_master_key_is_refused)
{
	char why[1024] = "";
	struct rotation *rotation;

	f.engine.keys.master[0] ^= 1;
	cr_assert_eq(rotation_open(&rotation, &f.engine, why), -ESTALE);
	cr_assert_not_null(strstr(why, "another master key"), "%s", why);
	f.engine.keys.master[0] ^= 1;
}
