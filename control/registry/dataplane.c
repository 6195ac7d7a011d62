/* SPDX-License-Identifier: BSD-3-Clause */
/* The dataplane's state region, and the rings that lead there and back. */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "common/shm/ring.h"
#include "control/registry/internal.h"

#define LOOK_EVERY_NS	UINT64_C(100000000)
#define REQUEST_LIFE_NS UINT64_C(1000000000) /* who asked has asked again by then */

bool dataplane_alive(const struct registry *r)
{
	return r->state && fan_region_writer_alive(&r->state_region);
}

bool registry_dataplane_alive(const struct registry *r)
{
	return dataplane_alive(r);
}

bool registry_dataplane_look(struct registry *r, uint64_t *dead_ns)
{
	const struct fan_worker_state *worker;
	bool alive = dataplane_alive(r);
	uint64_t beat;

	for (unsigned i = 0; !alive && (worker = registry_worker(r, i)); i++) {
		beat = __atomic_load_n(&worker->heartbeat_ns, __ATOMIC_RELAXED);
		if (beat > r->dead_beat_ns)
			r->dead_beat_ns = beat;
	}
	*dead_ns = r->dead_beat_ns;
	return alive;
}

const struct fan_state *registry_state(const struct registry *r)
{
	return r->state;
}

const struct fan_worker_state *registry_worker(const struct registry *r, uint32_t idx)
{
	if (!r->state || idx >= FAN_WORKERS_MAX ||
	    idx >= __atomic_load_n(&r->state->worker_cnt, __ATOMIC_RELAXED))
		return NULL;
	return &r->workers[idx];
}

const struct fan_group_state *registry_group_state(const struct registry *r, uint32_t idx)
{
	return r->state && idx < r->group_state_cnt ? &r->group_states[idx] : NULL;
}

/*
 * The record is the group's own as long as it names the group's incarnation, before and after. Only
 * we make another one, so what the dataplane could do meanwhile is to begin this one's stream.
 */
static void tail_read(const struct fan_group_state *state, uint64_t incarnation,
		      struct registry_tail *tail)
{
	uint64_t epoch, sequence;

	/* pairs with the release in the dataplane's stream_begin() */
	if (__atomic_load_n(&state->incarnation, __ATOMIC_ACQUIRE) != incarnation)
		return;
	epoch = __atomic_load_n(&state->epoch, __ATOMIC_ACQUIRE);
	sequence = __atomic_load_n(&state->sequence, __ATOMIC_ACQUIRE);
	if (!sequence || __atomic_load_n(&state->incarnation, __ATOMIC_ACQUIRE) != incarnation)
		return;
	tail->epoch = epoch;
	tail->sequence = sequence;
}

void registry_tails(const struct registry *r, const uint8_t handle[16], const uint64_t *channels,
		    unsigned cnt, struct registry_tail *tails)
{
	for (unsigned i = 0; i < cnt; i++) {
		uint32_t group = bucket_find(r, handle, channels[i],
					     fan_table_hash(r->table.seed, handle, channels[i]));
		const struct fan_group_state *state =
			group == NONE ? NULL : registry_group_state(r, group);

		tails[i] = (struct registry_tail){.channel = channels[i]};
		if (state)
			tail_read(state, r->groups[group].incarnation, &tails[i]);
	}
}

/* Where the arrays of a state region are. Read once: its writer may change its root. */
struct arrays {
	uint64_t workers_off, groups_off;
	uint32_t group_cnt;
};

static bool lies_inside(const struct fan_region *region, uint64_t off, uint64_t len)
{
	return off % FAN_CACHE_LINE == 0 && off >= sizeof(struct fan_state) &&
	       len <= region->size && off <= region->size - len;
}

/* Its arrays lie inside it and it was made for this registry. */
static bool state_fits(struct registry *r, const struct fan_region *region, struct arrays *arrays)
{
	const volatile struct fan_state *state = region->base;
	uint64_t epoch = state->header.creation_epoch;

	*arrays = (struct arrays){state->workers_off, state->groups_off, state->group_cnt};
	if (state->registry_epoch != r->root->header.creation_epoch)
		return false; /* of another registry: not ours to wait for */
	if (lies_inside(region, arrays->workers_off,
			FAN_WORKERS_MAX * sizeof(struct fan_worker_state)) &&
	    (!arrays->group_cnt ||
	     lies_inside(region, arrays->groups_off,
			 arrays->group_cnt * (uint64_t)sizeof(struct fan_group_state))))
		return true;
	if (r->state_refused != epoch)
		fan_log(FAN_LOG_ERROR, "registry",
			"%s is corrupt: its workers or groups lie outside; restart "
			"fanwire-dataplane",
			r->state_path);
	r->state_refused = epoch;
	return false;
}

static void attach(struct registry *r, struct fan_region *region, const struct arrays *arrays)
{
	const char *base = region->base;

	if (r->state) {
		/* The caller of registry_state() may use the old one until the next housekeeping.
		 */
		fan_region_close(&r->stale_region);
		r->stale_region = r->state_region;
	}
	r->state_region = *region;
	r->state = region->base;
	r->workers = (const void *)(base + arrays->workers_off);
	r->group_states = (const void *)(base + arrays->groups_off);
	r->group_state_cnt = arrays->group_cnt;
	retire_resnap(r);
}

/*
 * The present region stays as long as its writer lives, whatever its name says: its workers may
 * hold references.
 */
void dataplane_refresh(struct registry *r, bool now)
{
	struct fan_region region;
	struct arrays arrays;

	if (!now && r->now_ns - r->state_looked_ns < LOOK_EVERY_NS)
		return;
	r->state_looked_ns = r->now_ns;
	if (r->state && (dataplane_alive(r) || fan_region_is_current(&r->state_region)))
		return;
	/* None, one that is still being made, or one of another ABI: no dataplane reads our table
	 * that is not seen by the next look. */
	if (fan_region_open_reader(&region, r->state_path, FAN_REGION_MAGIC_STATE,
				   sizeof(struct fan_state), NULL) < 0)
		return;
	if (!state_fits(r, &region, &arrays)) {
		fan_region_close(&region);
		return;
	}
	attach(r, &region, &arrays);
}

bool registry_request(struct registry *r, const struct fan_request *request)
{
	struct fan_request timed = *request;

	if (!r->state)
		return false;
	timed.deadline_ns = monotonic_ns() + REQUEST_LIFE_NS;
	return fan_ring_try_push(r->requests, r->root->request_cnt, sizeof(timed),
				 &r->root->request_head, &r->state->request_tail, &timed);
}

/*
 * A dataplane that starts sets its ends of the rings to where ours stand, so neither a restart nor
 * a new state region needs anything here; counts that are impossible read as full and as empty.
 */
bool registry_report(struct registry *r, struct fan_report *report)
{
	if (!r->state)
		return false;
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++) {
		unsigned worker = (r->report_worker + i) % FAN_WORKERS_MAX;

		const struct fan_worker_state *w = &r->workers[worker];

		if (fan_ring_try_pop(w->reports, FAN_REPORT_CNT, sizeof(*report), &w->report_head,
				     &r->root->report_tail[worker], report)) {
			r->report_worker = worker + 1;
			return true;
		}
	}
	return false;
}
