/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The three changes that touch several groups at once. Each is planned first, which takes all the
 * memory that it will need or refuses with nothing changed; then it is written as an intent; then
 * it runs, and cannot fail.
 */
#include <errno.h>
#include <string.h>

#include "common/plant.h"
#include "common/wire/wire.h"
#include "control/registry/internal.h"

/* ---- planning ---- */

/* Nothing of the plan was published: what it took may be taken again at once. */
static void plan_drop(struct registry *r)
{
	for (unsigned i = 0; i < r->plan_cnt; i++) {
		const struct plan *plan = &r->plan[i];

		if (plan->block != NONE)
			block_free(&r->blocks, plan->block, plan->block_cnt);
		if (plan->new_group != NONE)
			stack_push(&r->free_groups, plan->new_group);
	}
	r->plan_cnt = 0;
}

/* Connected users stand in all of them: waiting for reclamation helps nobody. */
static int groups_full(struct registry *r)
{
	return registry_fail(r, -ENOSPC, "groups full: raise limits.max_groups");
}

static int plan_fail(struct registry *r, const char *what, const char *limit)
{
	plan_drop(r);
	return registry_no_space(r, what, limit);
}

bool planned(const struct registry *r, uint64_t channel)
{
	for (unsigned i = 0; i < r->plan_cnt; i++) {
		if (r->plan[i].channel == channel)
			return true;
	}
	return false;
}

bool planned_group(const struct registry *r, uint32_t group)
{
	for (unsigned i = 0; i < r->plan_cnt; i++) {
		if (r->plan[i].group == group)
			return true;
	}
	return false;
}

/* Another user generation means another group in its place; a rotation writes keys in place. */
static bool same_user(const struct fan_group *group, const struct registry_user_keys *keys)
{
	return group->user_generation == keys->user_generation;
}

/* Overflow buckets that the plan's new groups need: one for each eight that find no room. */
static uint32_t overflow_needed(const struct registry *r)
{
	uint32_t needed = 0;

	for (unsigned i = 0; i < r->plan_cnt; i++) {
		unsigned room, before = 0; /* others of the plan in the same chain */

		if (r->plan[i].group != NONE)
			continue;
		for (unsigned j = 0; j < i; j++) {
			before += r->plan[j].group == NONE &&
				  fan_table_bucket_idx(&r->table, r->plan[j].hash) ==
					  fan_table_bucket_idx(&r->table, r->plan[i].hash);
		}
		room = bucket_room(r, r->plan[i].hash);
		needed += before >= room && (before - room) % FAN_BUCKET_SLOTS == 0;
	}
	return needed;
}

/* One channel of an activation: room in its group's block, and the group where there is none. */
static int join_plan(struct registry *r, uint32_t connection, uint64_t channel,
		     const struct registry_user_keys *keys)
{
	const uint8_t *handle = connection_handle(r, connection);
	struct plan *plan = &r->plan[r->plan_cnt];
	uint32_t cnt = 0, first;

	plan->channel = channel;
	plan->hash = fan_table_hash(r->table.seed, handle, channel);
	plan->group = bucket_find(r, handle, channel, plan->hash);
	plan->new_group = plan->block = NONE;
	if (plan->group != NONE)
		cnt = group_block(r, plan->group, &first);
	r->plan_cnt++;
	if (plan->group == NONE || !same_user(&r->groups[plan->group], keys)) {
		plan->new_group = take_index(r, &r->free_groups);
		if (plan->new_group == NONE)
			return plan_fail(r, "groups", "limits.max_groups");
	}
	if (cnt == FAN_ENDPOINT_CNT_MAX)
		return plan_fail(r, "a group", "limits.max_connections_per_user");
	plan->block_cnt = cnt + 1;
	plan->block = take_block(r, cnt + 1, r->reserve);
	if (plan->block == NONE)
		return plan_fail(r, "endpoints", "limits.max_connections");
	return 0;
}

/* Groups that the plan makes must fit; those that linger, and that it does not take up, make way.
 */
static int room_make(struct registry *r, uint32_t user)
{
	uint32_t reclaimable = r->counts.groups_lingering, created = 0, over = 0, own = 0, shed;

	for (unsigned i = 0; i < r->plan_cnt; i++) {
		uint32_t group = r->plan[i].group;

		created += group == NONE;
		reclaimable -= group != NONE && r->group_books[group].linger_until_ns != 0;
	}
	if (r->counts.groups + created > r->groups_max)
		over = r->counts.groups + created - r->groups_max;
	if (over > reclaimable) {
		plan_drop(r);
		return groups_full(r);
	}
	if (r->users[user].group_cnt + created > r->user_groups_max)
		own = r->users[user].group_cnt + created - r->user_groups_max;
	shed = group_linger_shed(r, user, own);
	if (shed < over)
		group_linger_shed(r, NONE, over - shed);
	return 0;
}

static int activation_plan(struct registry *r, uint32_t connection,
			   const struct registry_user_keys *keys, const uint64_t *channels,
			   unsigned channel_cnt)
{
	int rc;

	r->plan_cnt = 0;
	rc = join_plan(r, connection, FAN_CHANNEL_ALL, keys);
	for (unsigned i = 0; rc == 0 && i < channel_cnt; i++) {
		if (!planned(r, channels[i]))
			rc = join_plan(r, connection, channels[i], keys);
	}
	if (rc == 0)
		rc = room_make(r, r->connection_books[connection].link.user);
	if (rc < 0)
		return rc;
	if (overflow_needed(r) > r->free_overflow.cnt)
		return plan_fail(r, "overflow buckets", "limits.max_groups");
	return 0;
}

int registry_groups_check(struct registry *r, const uint8_t handle[16], const uint64_t *channels,
			  unsigned channel_cnt)
{
	uint32_t live = r->counts.groups - r->counts.groups_lingering;

	for (unsigned i = 0; i <= channel_cnt; i++) {
		uint64_t channel = i ? channels[i - 1] : FAN_CHANNEL_ALL;
		uint32_t group = bucket_find(r, handle, channel,
					     fan_table_hash(r->table.seed, handle, channel));

		live += group == NONE || r->group_books[group].linger_until_ns != 0;
	}
	return live > r->groups_max ? groups_full(r) : 0;
}

/* ---- activation ---- */

static void endpoint_fill(const struct registry *r, struct fan_endpoint *endpoint,
			  uint32_t connection)
{
	const struct fan_connection *record = &r->connections[connection];

	*endpoint = (struct fan_endpoint){
		.connection = record->id,
		.record = connection,
		.port = record->port,
		.hop = record->hop & (FAN_HOP_NEXTHOP | FAN_HOP_IPV6),
	};
	memcpy(endpoint->handle, connection_handle(r, connection), 16);
	memcpy(endpoint->address, record->address, 16);
}

static void group_fill(struct registry *r, const struct plan *plan, uint32_t connection,
		       const struct registry_user_keys *keys)
{
	struct fan_group *group = &r->groups[plan->new_group];
	uint64_t incarnation = r->root->next_incarnation;

	step(r, "incarnation");
	/* Advanced before it is used: a crash wastes a number and repeats none. */
	__atomic_store_n(&r->root->next_incarnation, incarnation + 1, __ATOMIC_RELEASE);
	step(r, "group fill");
	*group = (struct fan_group){
		.channel = plan->channel,
		.incarnation = incarnation,
		.endpoints = (uint64_t)plan->block << FAN_ENDPOINT_CNT_BITS | plan->block_cnt,
		.user_generation = keys->user_generation,
		.key_generation = keys->key_generation,
	};
	memcpy(group->handle, connection_handle(r, connection), 16);
	memcpy(group->tag_key, keys->tag_key, sizeof(group->tag_key));
}

/* Books of a group that takes the place of another: its members stand in the new one. */
static void members_move(struct registry *r, uint32_t from, uint32_t to)
{
	uint32_t first, cnt = group_block(r, from, &first);

	for (uint32_t i = 0; i < cnt; i++) {
		uint32_t member = r->endpoints[first + i].record;

		membership_del(r, member, from);
		membership_add(r, member, to);
	}
}

static void join_new(struct registry *r, const struct plan *plan, uint32_t connection,
		     const struct registry_user_keys *keys)
{
	uint32_t old_first, old_cnt;

	group_fill(r, plan, connection, keys);
	if (plan->group == NONE) {
		bucket_add(r, plan->hash, plan->new_group);
	} else {
		bucket_swap(r, plan->hash, plan->group, plan->new_group);
		members_move(r, plan->group, plan->new_group);
		group_linger_end(r, plan->group);
		user_unlink_group(r, plan->group);
		old_cnt = group_block(r, plan->group, &old_first);
		if (old_cnt)
			retire(r, RETIRED_BLOCK, old_first, old_cnt);
		retire(r, RETIRED_GROUP, plan->group, 1);
	}
	user_link_group(r, plan->new_group);
	membership_add(r, connection, plan->new_group);
}

/* Copy, publish, retire: the newcomer comes last, so that undoing it needs no memory. */
static void join(struct registry *r, const struct plan *plan, uint32_t connection,
		 const struct registry_user_keys *keys)
{
	struct fan_endpoint *block = &r->endpoints[plan->block];
	uint32_t old_first = 0, old_cnt = 0;

	if (plan->group != NONE)
		old_cnt = group_block(r, plan->group, &old_first);
	if (fan_planted(PLANT_BLOCK_BEFORE_FILL) && plan->new_group == NONE)
		group_publish(r, plan->group, plan->block, plan->block_cnt);
	step(r, "block fill");
	memcpy(block, &r->endpoints[old_first], old_cnt * sizeof(*block));
	endpoint_fill(r, &block[old_cnt], connection);
	r->counts.endpoints_used++;
	if (plan->new_group != NONE) {
		join_new(r, plan, connection, keys);
		return;
	}
	group_publish(r, plan->group, plan->block, plan->block_cnt);
	group_linger_end(r, plan->group);
	if (old_cnt)
		retire(r, RETIRED_BLOCK, old_first, old_cnt);
	membership_add(r, connection, plan->group);
}

static int activation_check(struct registry *r, uint64_t id, const uint64_t *channels,
			    unsigned channel_cnt, uint32_t *connection)
{
	*connection = connection_find(r, id);
	if (*connection == NONE)
		return registry_fail(r, -ENOENT, "no such connection; it may have ended meanwhile");
	if (connection_state(&r->connections[*connection]) != FAN_CONNECTION_PENDING)
		return registry_fail(r, -EALREADY, "the connection is not pending any more");
	if (channel_cnt > CHANNELS_MAX)
		return registry_fail(r, -E2BIG,
				     "%u channels asked for; a connection joins %u at most",
				     channel_cnt, CHANNELS_MAX);
	for (unsigned i = 0; i < channel_cnt; i++) {
		bool single = (channels[i] & FAN_CHANNEL_KIND_MASK) == FAN_CHANNEL_SINGLE;

		if (!fan_channel_ok(channels[i]))
			return registry_fail(r, -EINVAL, "channel %016llx is of no known kind",
					     (unsigned long long)channels[i]);
		if (single && channels[i] != (FAN_CHANNEL_SINGLE | id))
			return registry_fail(r, -EINVAL,
					     "a connection joins no other connection's channel");
	}
	return 0;
}

int registry_connection_activate(struct registry *r, uint64_t id,
				 const struct registry_user_keys *keys, const uint64_t *channels,
				 unsigned channel_cnt)
{
	struct intent_args args = {.connection = id, .keys = *keys};
	uint32_t connection;
	int rc = activation_check(r, id, channels, channel_cnt, &connection);

	if (rc == 0)
		rc = activation_plan(r, connection, keys, channels, channel_cnt);
	if (rc < 0)
		return rc;
	args.generation = r->connections[connection].generation;
	args.incarnation = r->root->next_incarnation;
	memcpy(args.handle, connection_handle(r, connection), 16);
	args.channel_cnt = r->plan_cnt;
	for (unsigned i = 0; i < r->plan_cnt; i++)
		args.channels[i] = r->plan[i].channel;
	intent_begin(r, INTENT_ACTIVATE, &args);
	for (unsigned i = 0; i < r->plan_cnt; i++)
		join(r, &r->plan[i], connection, keys);
	step(r, "state active");
	connection_set_state(&r->connections[connection], FAN_CONNECTION_ACTIVE);
	intent_end(r);
	r->counts.connections_pending--;
	r->counts.connections_active++;
	return 0;
}

/* ---- deletion ---- */

/* Out of one group: the first and the last of a block leave without a copy. */
static int leave_plan_one(struct registry *r, uint32_t connection, uint32_t group)
{
	struct plan *plan = &r->plan[r->plan_cnt];
	uint32_t first, cnt = group_block(r, group, &first);
	uint32_t at = group_position(r, group, r->connections[connection].id);

	plan->group = group;
	plan->new_group = plan->block = NONE;
	r->plan_cnt++;
	if (at == 0 || at == cnt - 1)
		return 0;
	plan->block_cnt = cnt - 1;
	plan->block = take_block(r, cnt - 1, 0);
	return plan->block == NONE ? plan_fail(r, "endpoints", "limits.max_connections") : 0;
}

int leave_plan(struct registry *r, uint32_t connection)
{
	int rc = 0;

	r->plan_cnt = 0;
	for (uint32_t m = r->connection_books[connection].memberships; rc == 0 && m != NONE;
	     m = r->memberships[m].next)
		rc = leave_plan_one(r, connection, r->memberships[m].group);
	return rc;
}

static void leave(struct registry *r, const struct plan *plan, uint32_t connection)
{
	uint32_t first, cnt = group_block(r, plan->group, &first);
	uint32_t at = group_position(r, plan->group, r->connections[connection].id);
	struct fan_endpoint *block;

	if (fan_planted(PLANT_ENDPOINT_STAYS)) {
		step(r, "nothing is published");
	} else if (plan->block == NONE) {
		/* Shrinks where it is: endpoints that stay are not touched. */
		group_publish(r, plan->group, (uint64_t)first + (at == 0), cnt - 1);
		retire(r, RETIRED_BLOCK, first + at, 1);
	} else {
		step(r, "block fill");
		block = &r->endpoints[plan->block];
		memcpy(block, &r->endpoints[first], at * sizeof(*block));
		memcpy(block + at, &r->endpoints[first + at + 1], (cnt - at - 1) * sizeof(*block));
		group_publish(r, plan->group, plan->block, cnt - 1);
		retire(r, RETIRED_BLOCK, first, cnt);
	}
	r->counts.endpoints_used--;
	membership_del(r, connection, plan->group);
	if (cnt == 1)
		group_linger_begin(r, plan->group);
}

void leave_run(struct registry *r, uint32_t connection)
{
	for (unsigned i = 0; i < r->plan_cnt; i++)
		leave(r, &r->plan[i], connection);
}

void connection_end(struct registry *r, uint32_t connection)
{
	enum fan_connection_state state = connection_state(&r->connections[connection]);

	step(r, "state ending");
	connection_set_state(&r->connections[connection], FAN_CONNECTION_ENDING);
	if (r->connection_books[connection].link.user != NONE)
		user_unlink_connection(r, connection);
	else if (state == FAN_CONNECTION_ACTIVE)
		r->groupless--;
	if (state == FAN_CONNECTION_PENDING)
		r->counts.connections_pending--;
	else
		r->counts.connections_active--;
	r->counts.connections_ending++;
}

/*
 * A deletion is never refused: whoever asks for it has let go of the connection. Where memory for a
 * copy is lacking, its state alone is the record of what is still to be done, also for the sweep.
 */
void connection_leave_later(struct registry *r, uint32_t connection)
{
	stack_push(&r->leaving, connection);
}

static void deletion_args(const struct registry *r, uint32_t connection, struct intent_args *args)
{
	args->connection = r->connections[connection].id;
	args->generation = r->connections[connection].generation;
	memcpy(args->handle, connection_handle(r, connection), 16);
}

void leaving_finish(struct registry *r)
{
	while (r->leaving.cnt) {
		uint32_t connection = r->leaving.items[r->leaving.cnt - 1];
		struct intent_args args = {0};

		if (leave_plan(r, connection) < 0)
			return;
		deletion_args(r, connection, &args);
		intent_begin(r, INTENT_DEL, &args);
		leave_run(r, connection);
		intent_end(r);
		retire(r, RETIRED_CONNECTION, connection, 1);
		stack_pop(&r->leaving);
	}
}

int registry_connection_del(struct registry *r, uint64_t id, uint32_t generation)
{
	uint32_t connection = connection_find(r, id);
	struct intent_args args = {0};

	if (connection == NONE)
		return registry_fail(r, -ENOENT, "no such connection");
	if (r->connections[connection].generation != generation &&
	    !fan_planted(PLANT_GENERATION_NOT_COMPARED))
		return registry_fail(r, -ESTALE, "the connection's generation is %u, not %u",
				     r->connections[connection].generation, generation);
	if (connection_state(&r->connections[connection]) == FAN_CONNECTION_ENDING)
		return registry_fail(r, -EALREADY, "the connection is ending already");
	if (leave_plan(r, connection) < 0) {
		connection_end(r, connection);
		connection_leave_later(r, connection);
		return 0;
	}
	deletion_args(r, connection, &args);
	intent_begin(r, INTENT_DEL, &args);
	leave_run(r, connection);
	connection_end(r, connection);
	intent_end(r);
	retire(r, RETIRED_CONNECTION, connection, 1);
	return 0;
}

/* ---- revocation ---- */

/* Groups go whole, so nothing is copied and no memory is needed. */
static void revoke_group(struct registry *r, uint32_t group)
{
	uint32_t first, cnt = group_block(r, group, &first);

	for (uint32_t i = 0; i < cnt; i++)
		membership_del(r, r->endpoints[first + i].record, group);
	r->counts.endpoints_used -= cnt;
	group_unlink(r, group);
}

/*
 * The connections first: after a kill in between, who has no group any more must be ENDING, for
 * nothing would say whose he was.
 */
void revoke_run(struct registry *r, const uint8_t handle[16])
{
	uint32_t user;

	/* The user's record goes with the last that names it: looked up each time. */
	while ((user = user_find(r, handle)) != NONE && r->users[user].connections != NONE) {
		uint32_t connection = r->users[user].connections;

		connection_end(r, connection);
		retire(r, RETIRED_CONNECTION, connection, 1);
	}
	while ((user = user_find(r, handle)) != NONE && r->users[user].groups != NONE &&
	       !fan_planted(PLANT_REVOKE_KEEPS_GROUPS))
		revoke_group(r, r->users[user].groups);
}

int registry_user_revoke(struct registry *r, const uint8_t handle[16])
{
	struct intent_args args = {0};

	if (user_find(r, handle) == NONE)
		return 0;
	memcpy(args.handle, handle, 16);
	intent_begin(r, INTENT_REVOKE, &args);
	revoke_run(r, handle);
	intent_end(r);
	return 0;
}
