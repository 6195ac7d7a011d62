/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/top.h"

#include <stdlib.h>
#include <string.h>

#include "control/engine/http.h"
#include "control/registry/registry.h"

#define INTERVAL_MIN_NS (ENGINE_NS_PER_S / 5)
#define LIMIT_DEFAULT	20
#define LIMIT_MAX	1000
#define VERDICT_MAX	16
#define GUARD_MAX	8

struct group_reading {
	uint64_t incarnation, sequence;
	uint32_t copies; /* modulo 2^32, as the region has them */
};

struct reading {
	uint64_t taken_ns; /* 0: none yet */
	uint64_t state_epoch;
	uint32_t group_cnt;
	uint64_t counters[FAN_COUNTER_CNT];
	uint64_t verdicts[VERDICT_MAX],
		guards[GUARD_MAX]; /* the kernel's, as the agent told them */
	struct group_reading *groups;
};

/* Rates are told between `base` and now; `next` becomes the base once it is old enough. */
struct top {
	struct reading base, next;
};

struct busy_user {
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t events, copies;
};

struct top *top_create(void)
{
	return calloc(1, sizeof(struct top));
}

void top_destroy(struct top *top)
{
	if (!top)
		return;
	free(top->base.groups);
	free(top->next.groups);
	free(top);
}

/* Groups that the dataplane keeps a state of. */
static uint32_t group_cnt(const struct engine *engine)
{
	uint32_t cnt = registry_table(engine->registry)->group_cnt;

	return registry_group_state(engine->registry, cnt - 1) ? cnt : 0;
}

static bool take(struct reading *reading, const struct engine *engine, uint64_t now_ns)
{
	const struct fan_state *state = registry_state(engine->registry);
	uint32_t cnt = group_cnt(engine);

	if (cnt && cnt != reading->group_cnt) {
		struct group_reading *groups = realloc(reading->groups, cnt * sizeof(*groups));

		if (!groups)
			return false;
		reading->groups = groups;
	}
	reading->taken_ns = now_ns;
	reading->group_cnt = cnt;
	reading->state_epoch = state ? state->header.creation_epoch : 0;
	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++)
		reading->counters[i] = engine_counter(engine, i);
	memcpy(reading->verdicts, engine->agent_status.verdicts, sizeof(reading->verdicts));
	memcpy(reading->guards, engine->agent_status.guards, sizeof(reading->guards));
	for (uint32_t i = 0; i < cnt; i++) {
		const struct fan_group_state *group = registry_group_state(engine->registry, i);

		reading->groups[i] = (struct group_reading){
			__atomic_load_n(&group->incarnation, __ATOMIC_RELAXED),
			__atomic_load_n(&group->sequence, __ATOMIC_RELAXED),
			__atomic_load_n(&group->copies, __ATOMIC_RELAXED)};
	}
	return true;
}

static json_t *json_rate(uint64_t value, uint64_t base, double seconds)
{
	uint64_t grown = value > base ? value - base : 0;

	return json_real(seconds > 0 ? (double)grown / seconds : 0);
}

/* What the kernel decided, each by its name. */
static json_t *json_kernel_rates(const uint64_t *values, const uint64_t *base, unsigned max,
				 const char *(*name)(unsigned), double seconds)
{
	json_t *rates = json_object();

	for (unsigned i = 0; i < max && name(i); i++)
		json_object_set_new(rates, name(i), json_rate(values[i], base[i], seconds));
	return rates;
}

static json_t *json_rates(const struct engine *engine, const struct reading *base, double seconds)
{
	json_t *rates = json_object();

	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++)
		json_object_set_new(
			rates, fan_counter_name(i),
			json_rate(engine_counter(engine, i), base->counters[i], seconds));
	return rates;
}

static int by_handle(const void *a, const void *b)
{
	return memcmp(((const struct busy_user *)a)->handle, ((const struct busy_user *)b)->handle,
		      FAN_HANDLE_LEN);
}

static int by_copies(const void *a, const void *b)
{
	const struct busy_user *left = a, *right = b;

	if (left->copies != right->copies)
		return left->copies < right->copies ? 1 : -1;
	return left->events < right->events ? 1 : left->events > right->events ? -1 : 0;
}

/* Groups that moved since `base`, as entries of their users; *out is the caller's. */
static size_t collect(const struct engine *engine, const struct reading *base,
		      struct busy_user **out)
{
	const struct fan_state *state = registry_state(engine->registry);
	const struct fan_table *table = registry_table(engine->registry);
	struct busy_user *users;
	size_t cnt = 0;

	*out = NULL;
	if (!state || base->state_epoch != state->header.creation_epoch || !group_cnt(engine))
		return 0;
	*out = users = calloc(base->group_cnt ? base->group_cnt : 1, sizeof(*users));
	for (uint32_t i = 0; users && i < base->group_cnt && i < table->group_cnt; i++) {
		const struct fan_group_state *group = registry_group_state(engine->registry, i);
		const struct group_reading *old = &base->groups[i];
		bool same = old->incarnation == group->incarnation;
		uint64_t events = group->sequence - (same ? old->sequence : 0);

		if (!events || group->incarnation != table->groups[i].incarnation)
			continue;
		memcpy(users[cnt].handle, table->groups[i].handle, FAN_HANDLE_LEN);
		users[cnt].events = events;
		users[cnt++].copies = (uint32_t)(group->copies - (same ? old->copies : 0));
	}
	return cnt;
}

/* One entry a user, the busiest first. */
static size_t merge(struct busy_user *users, size_t cnt)
{
	size_t kept = 0;

	if (!cnt)
		return 0;
	qsort(users, cnt, sizeof(*users), by_handle);
	for (size_t i = 1; i < cnt; i++) {
		if (by_handle(&users[kept], &users[i]) == 0) {
			users[kept].events += users[i].events;
			users[kept].copies += users[i].copies;
		} else {
			users[++kept] = users[i];
		}
	}
	qsort(users, kept + 1, sizeof(*users), by_copies);
	return kept + 1;
}

static json_t *json_busiest(const struct engine *engine, const struct reading *base, double seconds,
			    uint64_t limit)
{
	char handle[2 * FAN_HANDLE_LEN + 1];
	json_t *list = json_array();
	struct busy_user *users;
	size_t cnt = collect(engine, base, &users);

	cnt = merge(users, cnt);
	for (size_t i = 0; i < cnt && i < limit && seconds > 0; i++) {
		const struct user *user = users_find(engine->users, users[i].handle);

		fan_hex(handle, users[i].handle, FAN_HANDLE_LEN);
		json_array_append_new(
			list, json_pack("{s:o, s:s, s:f, s:f, s:i}", "user", http_json_user(user),
					"handle", handle, "events_per_second",
					(double)users[i].events / seconds, "copies_per_second",
					(double)users[i].copies / seconds, "connections",
					(int)registry_user_connections(engine->registry,
								       users[i].handle, NULL, 0)));
	}
	free(users);
	return list;
}

void http_top(struct http_call *call)
{
	const struct agent_status *agent = &call->engine->agent_status;
	struct top *top = call->engine->top;
	uint64_t limit = LIMIT_DEFAULT, now_ns = call->now.mono_ns;
	double seconds;
	json_t *answer;

	if (!http_query_number(call, "limit", 1, LIMIT_MAX, &limit))
		return;
	if (top->next.taken_ns && now_ns - top->next.taken_ns >= INTERVAL_MIN_NS) {
		struct reading old = top->base;

		top->base = top->next;
		top->next = old;
		top->next.taken_ns = 0;
	}
	seconds = top->base.taken_ns ? (double)(now_ns - top->base.taken_ns) / 1e9 : 0;
	answer = json_pack("{s:f, s:o, s:o, s:o, s:o}", "interval_seconds", seconds, "rates",
			   json_rates(call->engine, &top->base, seconds), "filter",
			   json_kernel_rates(agent->verdicts, top->base.verdicts, VERDICT_MAX,
					     agent_verdict_name, seconds),
			   "guard",
			   json_kernel_rates(agent->guards, top->base.guards, GUARD_MAX,
					     agent_guard_name, seconds),
			   "users", json_busiest(call->engine, &top->base, seconds, limit));
	if (!top->next.taken_ns && !take(&top->next, call->engine, now_ns)) {
		json_decref(answer);
		http_refuse(call, 500, "internal", "out of memory");
		return;
	}
	http_reply(call, 200, answer);
}
