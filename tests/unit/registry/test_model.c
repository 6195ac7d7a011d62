/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Long seeded runs of random changes against a model that is trivially right: an array of
 * connections and a set of (user, channel, connection). Quiescence is driven by hand; restarts of
 * either side come in between.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/registry/fixture.h"

#define USERS	  12
#define MODEL_MAX 128
#define THREADS	  4
#define OPS	  20000

struct model_connection {
	uint64_t id; /* 0: none */
	uint32_t generation;
	unsigned user;
	uint8_t state;
	uint8_t threads; /* bit i: stands in thread i */
	bool single;
};

static struct fixture f;
static struct model_connection model[MODEL_MAX];
static uint64_t channels[THREADS];
static unsigned refused;

static void setup(void)
{
	fixture_init(&f);
	f.config.max_groups = 128;
	f.config.linger_s = 1;
	fixture_open(&f);
	thread_channels(channels, THREADS);
	memset(model, 0, sizeof(model));
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(model, .init = setup, .fini = teardown);

static unsigned draw(unsigned below)
{
	return (unsigned)random() % below;
}

static struct model_connection *model_find(uint64_t id)
{
	for (unsigned i = 0; i < MODEL_MAX; i++) {
		if (model[i].id == id)
			return &model[i];
	}
	return NULL;
}

static struct model_connection *model_pick(uint8_t state)
{
	unsigned start = draw(MODEL_MAX);

	for (unsigned i = 0; i < MODEL_MAX; i++) {
		struct model_connection *m = &model[(start + i) % MODEL_MAX];

		if (m->id && m->state == state)
			return m;
	}
	return NULL;
}

static void on_free(void *arg, uint64_t id)
{
	struct model_connection *m = model_find(id);

	cr_assert_not_null(m);
	cr_assert_eq(m->state, FAN_CONNECTION_ENDING, "freed before it ended");
	m->id = 0;
}

/* ---- operations: each does the same to both ---- */

static void op_add(void)
{
	unsigned user = draw(USERS);
	struct registry_connection spec = connection_spec(&f, user);
	struct model_connection *m = model_find(0);
	struct registry_connection c;

	if (!m)
		return;
	if (registry_connection_add(f.r, &spec, &c) < 0) {
		refused++;
		return;
	}
	cr_assert_null(model_find(c.id));
	*m = (struct model_connection){.id = c.id,
				       .generation = c.generation,
				       .user = user,
				       .state = FAN_CONNECTION_PENDING};
}

static void op_activate(void)
{
	struct model_connection *m = model_pick(FAN_CONNECTION_PENDING);
	uint64_t asked[THREADS + 1];
	struct registry_user_keys keys;
	unsigned cnt = 0;
	uint8_t threads = (uint8_t)draw(1 << THREADS);
	bool single = draw(4) == 0;

	if (!m)
		return;
	for (unsigned i = 0; i < THREADS; i++) {
		if (threads >> i & 1)
			asked[cnt++] = channels[i];
	}
	if (single)
		asked[cnt++] = FAN_CHANNEL_SINGLE | m->id;
	keys = user_keys(m->user);
	keys.user_generation = draw(32) ? 1 : 2; /* another one now and then */
	if (registry_connection_activate(f.r, m->id, &keys, asked, cnt) < 0) {
		refused++;
		return;
	}
	m->state = FAN_CONNECTION_ACTIVE;
	m->threads = threads;
	m->single = single;
}

static void op_del(void)
{
	struct model_connection *m =
		model_pick(draw(8) ? FAN_CONNECTION_ACTIVE : FAN_CONNECTION_PENDING);
	int rc;

	if (!m)
		return;
	if (draw(8) == 0) {
		cr_assert_eq(registry_connection_del(f.r, m->id, m->generation + 1), -ESTALE);
		return;
	}
	rc = registry_connection_del(f.r, m->id, m->generation);
	cr_assert_eq(rc, 0);
	m->state = FAN_CONNECTION_ENDING;
}

static void op_revoke(void)
{
	unsigned user = draw(USERS);
	uint8_t handle[16];

	user_handle(handle, user);
	cr_assert_eq(registry_user_revoke(f.r, handle), 0);
	for (unsigned i = 0; i < MODEL_MAX; i++) {
		if (model[i].id && model[i].user == user)
			model[i].state = FAN_CONNECTION_ENDING;
	}
}

static void op_restart(void)
{
	fixture_close(&f);
	fixture_open(&f);
	registry_set_on_connection_free(f.r, on_free, NULL);
	for (unsigned i = 0; i < MODEL_MAX; i++) {
		if (model[i].id && model[i].state == FAN_CONNECTION_PENDING)
			model[i].state = FAN_CONNECTION_ENDING;
	}
}

static void op_dataplane(void)
{
	if (f.state.base) {
		dataplane_kill(&f);
		dataplane_remove_file(&f);
		return;
	}
	dataplane_start(&f);
	worker_enter(&f, 0);
	worker_enter(&f, 1);
}

static void op_pass(void)
{
	if (f.state.base)
		worker_pass(&f, draw(2));
	keep(&f, draw(4) ? 1000000 : SECOND_NS / 2);
}

static void op_random(void)
{
	static void (*const often[])(void) = {op_add, op_activate, op_activate, op_del, op_pass};
	unsigned n = draw(1000);

	if (n < 8)
		op_revoke();
	else if (n < 11)
		op_restart();
	else if (n < 13)
		op_dataplane();
	else
		often[n % 5]();
}

/* ---- agreement ---- */

static void check_channel(unsigned user, uint64_t channel, unsigned expected)
{
	int cnt = endpoint_cnt(&f, user, channel);

	cr_assert_eq(cnt > 0 ? (unsigned)cnt : 0, expected, "user %u channel %016llx", user,
		     (unsigned long long)channel);
}

/* Deleted, and still in its groups for want of memory. */
static bool is_leaving(uint64_t id)
{
	return f.r->leaving.cnt > 0 && connection_of(&f, id).state == FAN_CONNECTION_ENDING &&
	       registry_connection_channels(f.r, id, NULL, 0) > 0;
}

static void check_user(unsigned user)
{
	unsigned all = 0, live = 0, in[THREADS] = {0};
	uint8_t handle[16];

	for (unsigned i = 0; i < MODEL_MAX; i++) {
		const struct model_connection *m = &model[i];
		bool active = m->state == FAN_CONNECTION_ACTIVE;

		if (!m->id || m->user != user)
			continue;
		live += m->state != FAN_CONNECTION_ENDING;
		all += active || is_leaving(m->id);
		for (unsigned t = 0; t < THREADS; t++)
			in[t] += (active || is_leaving(m->id)) && (m->threads >> t & 1);
		if (m->single)
			check_channel(user, FAN_CHANNEL_SINGLE | m->id,
				      active || is_leaving(m->id));
	}
	user_handle(handle, user);
	cr_assert_eq(registry_user_connections(f.r, handle, NULL, 0), live);
	check_channel(user, FAN_CHANNEL_ALL, all);
	for (unsigned t = 0; t < THREADS; t++)
		check_channel(user, channels[t], in[t]);
}

static void check_model(void)
{
	for (unsigned i = 0; i < MODEL_MAX; i++) {
		struct registry_connection c;

		if (!model[i].id)
			continue;
		c = connection_of(&f, model[i].id);
		cr_assert_eq(c.state, model[i].state);
		cr_assert_eq(c.generation, model[i].generation);
	}
	for (unsigned user = 0; user < USERS; user++)
		check_user(user);
	table_check(&f);
}

static void run(unsigned seed)
{
	srandom(seed);
	registry_set_on_connection_free(f.r, on_free, NULL);
	for (unsigned n = 0; n < OPS; n++) {
		op_random();
		if (n % 16 == 0)
			check_model();
	}
	check_model();
	cr_assert_gt(refused, 0, "nothing was ever full: the limits were not met");
	registry_set_on_connection_free(f.r, NULL, NULL);
	drain_and_check(&f);
}

Test(model, agrees_seed_1)
{
	run(1);
}

Test(model, agrees_seed_2)
{
	run(2);
}

Test(model, agrees_seed_3)
{
	run(3);
}
