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

const struct fan_state *registry_state(const struct registry *r)
{
	return r->state;
}

/* Its arrays lie inside it and it was made for this registry. */
static bool state_fits(const struct registry *r, const struct fan_region *region)
{
	const struct fan_state *state = region->base;
	uint64_t workers_len = FAN_WORKERS_MAX * sizeof(struct fan_worker_state);

	if (state->registry_epoch != r->root->header.creation_epoch)
		return false; /* of another registry: not ours to wait for */
	if (state->workers_off % FAN_CACHE_LINE || state->workers_off < sizeof(*state) ||
	    workers_len > region->size || state->workers_off > region->size - workers_len) {
		fan_log(FAN_LOG_ERROR, "registry",
			"%s is corrupt: its workers lie outside; restart fanwire-dataplane",
			r->state_path);
		return false;
	}
	return true;
}

static void attach(struct registry *r, struct fan_region *region)
{
	if (r->state) {
		/* The caller of registry_state() may use the old one until the next housekeeping.
		 */
		fan_region_close(&r->stale_region);
		r->stale_region = r->state_region;
	}
	r->state_region = *region;
	r->state = region->base;
	r->workers = (const void *)((const char *)region->base + r->state->workers_off);
	retire_resnap(r);
}

/*
 * The present region stays as long as its writer lives, whatever its name says: its workers may
 * hold references.
 */
void dataplane_refresh(struct registry *r, bool now)
{
	struct fan_region region;

	if (!now && r->now_ns - r->state_looked_ns < LOOK_EVERY_NS)
		return;
	r->state_looked_ns = r->now_ns;
	if (r->state &&
	    (dataplane_alive(r) || fan_region_is_current(&r->state_region, r->state_path)))
		return;
	/* None, one that is still being made, or one of another ABI: no dataplane reads our table
	 * that is not seen by the next look. */
	if (fan_region_open_reader(&region, r->state_path, FAN_REGION_MAGIC_STATE,
				   sizeof(struct fan_state), NULL) < 0)
		return;
	if (!state_fits(r, &region)) {
		fan_region_close(&region);
		return;
	}
	attach(r, &region);
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
