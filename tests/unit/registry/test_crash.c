/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A change that is killed before its n-th store, for every n: the next fanwired finishes or undoes
 * it, the table holds, and nothing is lost. The child is really killed; only the region remains.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/registry/fixture.h"

#define THREADS	  3
#define STEPS_MAX 400

static struct fixture f;

static void setup(void)
{
	fixture_init(&f);
}

static void teardown(void)
{
	fixture_fini(&f);
}

TestSuite(crash, .init = setup, .fini = teardown);

/* What stands before the change, made anew for each n. */
struct scene {
	uint64_t channels[THREADS];
	uint64_t subject;   /* the connection that the change is about */
	uint64_t others[2]; /* same user: before and behind the subject in its blocks */
	uint64_t stranger;
};

typedef void (*scene_op)(struct scene *scene);

static void kill_at(void *arg, const char *name)
{
	unsigned *left = arg;

	if ((*left)-- == 0)
		kill(getpid(), SIGKILL);
}

static void scene_make(struct scene *scene)
{
	fixture_open(&f);
	roots_give(&f, (uint8_t)registry_root(f.r)->key_generation);
	thread_channels(scene->channels, THREADS);
	scene->others[0] = connect_user(&f, 1, scene->channels, THREADS, NULL);
	scene->subject = connect_user(&f, 1, scene->channels, 2, NULL);
	scene->others[1] = connect_user(&f, 1, scene->channels, 1, NULL);
	scene->stranger = connect_user(&f, 2, scene->channels, THREADS, NULL);
	disconnect(&f, connect_user(&f, 3, scene->channels, 1, NULL)); /* lingers */
	keep(&f, 1);
}

/* True while the child was killed; false once n is behind the last step. */
static bool run_killed(struct scene *scene, scene_op op, unsigned n)
{
	int status;
	pid_t pid;

	fixture_close(&f);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		fixture_open(&f);
		keep(&f, 1);
		registry_set_step(f.r, kill_at, &n);
		op(scene);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	fixture_open(&f);
	table_check(&f);
	if (WIFSIGNALED(status))
		cr_assert_eq(WTERMSIG(status), SIGKILL);
	else
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

static bool is_active(uint64_t id)
{
	return connection_there(&f, id) && connection_of(&f, id).state == FAN_CONNECTION_ACTIVE;
}

/* Others are as they were, whatever became of the change. */
static void bystanders_check(const struct scene *scene, bool user_too)
{
	for (unsigned i = 0; user_too && i < 2; i++)
		cr_assert_eq(connection_of(&f, scene->others[i]).state, FAN_CONNECTION_ACTIVE);
	cr_assert_eq(registry_connection_channels(f.r, scene->stranger, NULL, 0), THREADS + 1);
	cr_assert_eq(endpoint_cnt(&f, 2, FAN_CHANNEL_ALL), 1);
}

static void scene_end(struct scene *scene)
{
	drain_and_check(&f);
	fixture_close(&f);
}

/* Runs op killed at each step in turn, and asks `judge` each time. Returns the number of steps. */
static unsigned each_step(scene_op op, void (*judge)(struct scene *scene))
{
	unsigned n;
	bool killed = true;

	for (n = 0; killed; n++) {
		struct scene scene;

		cr_assert_lt(n, STEPS_MAX);
		scene_make(&scene);
		killed = run_killed(&scene, op, n);
		judge(&scene);
		scene_end(&scene);
	}
	return n;
}

/* ---- activation, into groups that are there, that linger and that are new ---- */

#define JOINER 3 /* a user with two lingering groups */

static void op_activate(struct scene *scene)
{
	connect_user(&f, JOINER, scene->channels, THREADS, NULL);
}

static void judge_activate(struct scene *scene)
{
	uint8_t handle[16];
	uint64_t id;
	unsigned cnt;

	bystanders_check(scene, true);
	user_handle(handle, JOINER);
	cnt = registry_user_connections(f.r, handle, &id, 1);
	cr_assert_leq(cnt, 1);
	if (cnt) {
		cr_assert_eq(registry_connection_channels(f.r, id, NULL, 0), THREADS + 1);
		return;
	}
	cr_assert_eq(endpoint_cnt(&f, JOINER, FAN_CHANNEL_ALL), 0, "undone: it lingers as before");
	cr_assert_eq(endpoint_cnt(&f, JOINER, scene->channels[0]), 0);
	cr_assert_eq(endpoint_cnt(&f, JOINER, scene->channels[1]), -1, "no group is left behind");
	cr_assert_eq(endpoint_cnt(&f, JOINER, scene->channels[2]), -1);
}

Test(crash, activation)
{
	cr_assert_gt(each_step(op_activate, judge_activate), 20);
}

/* Of another user than those whose groups linger, into a table that is full with them. */
static void op_activate_full(struct scene *scene)
{
	connect_user(&f, 4, scene->channels, THREADS, NULL);
}

static void judge_activate_full(struct scene *scene)
{
	int all = endpoint_cnt(&f, 4, FAN_CHANNEL_ALL);

	bystanders_check(scene, true);
	cr_assert(all == 1 || all == -1);
	for (unsigned i = 0; i < THREADS; i++)
		cr_assert_eq(endpoint_cnt(&f, 4, scene->channels[i]), all);
	cr_assert_leq(counts_of(&f).groups, f.config.max_groups);
}

Test(crash, activation_where_lingering_groups_make_way)
{
	f.config.max_groups = 12; /* the scene has 10, of which two linger */
	cr_assert_gt(each_step(op_activate_full, judge_activate_full), 20);
}

/* A member more in groups of several: copied blocks. */
static void op_activate_beside(struct scene *scene)
{
	connect_user(&f, 1, scene->channels, THREADS, NULL);
}

static void judge_activate_beside(struct scene *scene)
{
	int all = endpoint_cnt(&f, 1, FAN_CHANNEL_ALL);

	bystanders_check(scene, true);
	cr_assert(all == 3 || all == 4);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[0]), all);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[1]), all - 1);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[2]), all - 2);
}

Test(crash, activation_beside_others)
{
	cr_assert_gt(each_step(op_activate_beside, judge_activate_beside), 10);
}

/* Of another user generation: each group is swapped for another with the same members. */
static void op_activate_rekeyed(struct scene *scene)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;

	keys.user_generation++;
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, scene->channels, THREADS), 0);
}

Test(crash, activation_with_other_keys)
{
	cr_assert_gt(each_step(op_activate_rekeyed, judge_activate_beside), 15);
}

/* ---- deletion, from the front, the middle and the back of blocks ---- */

static unsigned leaver;

static uint64_t leaver_id(const struct scene *scene)
{
	return leaver == 0 ? scene->others[0] : leaver == 1 ? scene->subject : scene->others[1];
}

static void op_del(struct scene *scene)
{
	disconnect(&f, leaver_id(scene));
}

/* The same with a worker that runs: it passes once, so that the restarted child has memory. */
static void op_del_passing(struct scene *scene)
{
	worker_pass(&f, 0);
	op_del(scene);
}

static void judge_del(struct scene *scene)
{
	uint64_t id = leaver_id(scene);
	int all = endpoint_cnt(&f, 1, FAN_CHANNEL_ALL);

	cr_assert_eq(registry_connection_channels(f.r, scene->stranger, NULL, 0), THREADS + 1);
	if (is_active(id)) {
		cr_assert_eq(all, 3);
		cr_assert_eq(registry_connection_channels(f.r, id, NULL, 0), leaver == 0
										     ? THREADS + 1
									     : leaver == 1 ? 3
											   : 2);
		return;
	}
	cr_assert_eq(all, 2);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[0]), 2);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[1]), leaver == 2 ? 2 : 1);
	cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[2]), leaver == 0 ? 0 : 1);
}

Test(crash, deletion)
{
	for (leaver = 0; leaver < 3; leaver++)
		cr_assert_gt(each_step(op_del, judge_del), 5);
}

/* ---- revocation ---- */

static void op_revoke(struct scene *scene)
{
	uint8_t handle[16];

	user_handle(handle, 1);
	cr_assert_eq(registry_user_revoke(f.r, handle), 0);
}

static void judge_revoke(struct scene *scene)
{
	bool whole = is_active(scene->subject);

	bystanders_check(scene, whole);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), whole ? 3 : -1);
	for (unsigned i = 0; i < THREADS; i++)
		cr_assert_eq(endpoint_cnt(&f, 1, scene->channels[i]), whole ? 3 - (int)i : -1);
}

Test(crash, revocation)
{
	cr_assert_gt(each_step(op_revoke, judge_revoke), 8);
}

/* ---- rotation ---- */

static uint8_t in_force(void)
{
	return (uint8_t)registry_root(f.r)->key_generation;
}

static void op_rotate(struct scene *scene)
{
	uint8_t next = in_force() % 3 + 1;

	roots_give(&f, next);
	cr_assert_eq(registry_generation_switch(f.r, next), 0);
	keep(&f, 1);
	registry_roots_retire(f.r);
}

/* Whatever is in force has its roots, no stream began anew, and it can be gone through again. */
static void judge_rotate(struct scene *scene)
{
	const struct fan_registry *root = registry_root(f.r);
	uint64_t incarnation = root->next_incarnation;

	bystanders_check(scene, true);
	cr_assert_not_null(fan_root_of(root, in_force()));
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), 3);
	op_rotate(scene);
	cr_assert(registry_keys_rewritten(f.r));
	cr_assert_eq(registry_other_generation(f.r), 0);
	cr_assert_eq(root->next_incarnation, incarnation);
	tag_keys_check(&f);
}

Test(crash, rotation)
{
	cr_assert_gt(each_step(op_rotate, judge_rotate), 30);
}

/* Killed between the stores of one key: what has no generation is written anew. */
Test(crash, half_of_a_tag_key)
{
	struct scene scene;

	scene_make(&scene);
	op_rotate(&scene);
	f.r->groups[0].key_generation = 0;
	memset(f.r->groups[0].tag_key, 0x55, FAN_TAG_KEY_LEN / 2);
	fixture_close(&f);
	fixture_open(&f);
	keep(&f, 1);
	tag_keys_check(&f);
	scene_end(&scene);
}

/* ---- replacement: the same id and user again ---- */

static void op_replace(struct scene *scene)
{
	struct registry_connection spec = connection_spec(&f, 1);
	struct registry_user_keys keys = user_keys(1);
	struct registry_connection c;

	spec.id = scene->subject;
	spec.port = 20001;
	disconnect(&f, scene->subject);
	keep(&f, 1);
	cr_assert_eq(registry_connection_add(f.r, &spec, &c), 0);
	cr_assert_eq(registry_connection_activate(f.r, c.id, &keys, scene->channels, 2), 0);
}

static void judge_replace(struct scene *scene)
{
	bool stands = is_active(scene->subject);

	bystanders_check(scene, true);
	cr_assert_eq(endpoint_cnt(&f, 1, FAN_CHANNEL_ALL), stands ? 3 : 2, "one copy, never two");
	if (stands)
		cr_assert_eq(registry_connection_channels(f.r, scene->subject, NULL, 0), 3);
}

Test(crash, replacement)
{
	cr_assert_gt(each_step(op_replace, judge_replace), 20);
}

/* ---- lingering groups ---- */

static void op_linger(struct scene *scene)
{
	keep(&f, f.config.linger_s * SECOND_NS + 1);
}

static void judge_linger(struct scene *scene)
{
	bystanders_check(scene, true);
	cr_assert_leq(endpoint_cnt(&f, 3, FAN_CHANNEL_ALL), 0);
}

Test(crash, expiry_of_lingering_groups)
{
	cr_assert_gt(each_step(op_linger, judge_linger), 3);
}

/* ---- overflow buckets ---- */

#define CROWD 20

static void op_crowd(struct scene *scene)
{
	uint64_t channels[CROWD];

	crowded_channels(&f, 4, channels, CROWD);
	disconnect(&f, connect_user(&f, 4, channels, CROWD, NULL));
	keep(&f, f.config.linger_s * SECOND_NS + 1);
}

static void judge_crowd(struct scene *scene)
{
	uint64_t channels[CROWD];
	uint8_t handle[16];
	uint64_t id;

	bystanders_check(scene, true);
	crowded_channels(&f, 4, channels, CROWD);
	user_handle(handle, 4);
	if (registry_user_connections(f.r, handle, &id, 1))
		cr_assert_eq(registry_connection_channels(f.r, id, NULL, 0), CROWD + 1);
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert_leq(endpoint_cnt(&f, 4, channels[i]), 1);
}

Test(crash, overflow_buckets)
{
	cr_assert_gt(each_step(op_crowd, judge_crowd), 150);
}

/* ---- sessions ---- */

static void op_session(struct scene *scene)
{
	struct fan_session spec = {.family = 4};
	uint64_t id;

	cr_assert_eq(registry_session_open(f.r, &spec, &id), 0);
	cr_assert_eq(registry_session_close(f.r, id), 0);
}

static void judge_session(struct scene *scene)
{
	struct registry_counts counts = counts_of(&f);
	uint32_t cursor = 0;
	const struct fan_session *session;

	cr_assert_leq(counts.sessions, 1);
	while ((session = registry_session_next(f.r, &cursor)))
		cr_assert_eq(registry_session_close(f.r, session->id), 0);
}

Test(crash, sessions)
{
	unsigned steps;

	fixture_open(&f);
	dataplane_start(&f);
	fixture_close(&f);
	steps = each_step(op_session, judge_session);
	cr_assert_gt(steps, 3);
}

/* ---- with a worker that is alive and holds everything ---- */

/*
 * No memory is free right after the takeover: a deletion that needs some is finished as soon as
 * there is.
 */
Test(crash, a_deletion_is_finished_when_memory_comes_back)
{
	unsigned waited = 0;
	bool killed = true;

	leaver = 1; /* from the middle: a copy */
	for (unsigned n = 0; killed; n++) {
		struct scene scene;

		scene_make(&scene);
		dataplane_start(&f);
		worker_enter(&f, 0);
		killed = run_killed(&scene, op_del_passing, n);
		waited += f.r->leaving.cnt;
		worker_pass(&f, 0);
		keep(&f, 1);
		cr_assert_eq(f.r->leaving.cnt, 0);
		table_check(&f);
		judge_del(&scene);
		scene_end(&scene);
		dataplane_kill(&f);
		dataplane_remove_file(&f);
	}
	cr_assert_gt(waited, 0, "it never had to wait: the test tests nothing");
}
