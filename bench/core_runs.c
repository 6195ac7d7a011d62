/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/core_runs.h"

#include <errno.h>
#include <rte_cycles.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/housekeeping.h"

#define CHUNK	     2048 /* publishes sealed ahead */
#define FANOUT_CHUNK 512  /* opened ahead: a worker's stage holds as many as are done */

_Static_assert(FANOUT_CHUNK <= STAGE_MAX, "a chunk's events fit a stage");

const char *const core_mode_names[CORE_MODE_CNT] = {"whole", "fanout", "stages"};
const char *const core_stage_names[STAGE_CNT] = {
	"parse", "clock", "lookup", "open",   "sequence",    "header",	    "seal",
	"tag",	 "log",	  "fanout", "finish", "acknowledge", "housekeeping"};

/* A run under way, on the worker's lcore. */
struct task {
	struct rig *rig;
	enum core_mode mode;
	uint64_t cycles; /* to be reached */
	struct core_run *run;
	int err;
};

/* ---- whole: what a loop does, but that the packets are there already ---- */

static void burst_whole(struct worker *w, struct rte_mbuf **mbufs, unsigned cnt,
			struct core_run *run)
{
	uint64_t start = rte_rdtsc_precise();

	housekeeping(w, worker_burst(w, mbufs, cnt));
	worker_quiesce(w);
	run->cycles += rte_rdtsc_precise() - start;
	run->events += cnt;
}

/* Fan-outs that go on in later bursts belong to what is timed. */
static void flows_end(struct worker *w, struct core_run *run)
{
	while (w->flow_cnt)
		burst_whole(w, NULL, 0, run);
}

/* ---- stages: worker_burst() and the loop around it, with the time between ---- */

static void lap(struct core_run *run, enum core_stage stage, uint64_t *since)
{
	uint64_t now = rte_rdtsc_precise();

	run->stages[stage] += now - *since;
	run->cycles += now - *since;
	*since = now;
}

static void burst_stages(struct worker *w, struct rte_mbuf **mbufs, unsigned cnt,
			 struct core_run *run)
{
	uint64_t since = rte_rdtsc_precise();

	w->burst_no++;
	parse_burst(w, mbufs, cnt);
	lap(run, STAGE_PARSE, &since);
	handover_collect(w);
	worker_clock(w);
	lap(run, STAGE_CLOCK, &since);
	lookup_burst(w);
	lap(run, STAGE_LOOKUP, &since);
	session_open_burst(w);
	lap(run, STAGE_OPEN, &since);
	sequence_burst(w);
	lap(run, STAGE_SEQUENCE, &since);
	header_burst(w);
	lap(run, STAGE_HEADER, &since);
	seal_burst(w);
	lap(run, STAGE_SEAL, &since);
	tag_burst(w);
	lap(run, STAGE_TAG, &since);
	log_burst(w);
	lap(run, STAGE_LOG, &since);
	fanout_burst(w);
	lap(run, STAGE_FANOUT, &since);
	session_finish_burst(w);
	lap(run, STAGE_FINISH, &since);
	ack_burst(w);
	lap(run, STAGE_ACK, &since);
	housekeeping(w, cnt);
	worker_quiesce(w);
	lap(run, STAGE_HOUSEKEEPING, &since);
	run->events += cnt;
}

static int chunk_pipeline(struct task *task, struct worker *w)
{
	unsigned burst = task->rig->options.burst;
	struct rte_mbuf *mbufs[CHUNK];

	if (feed_make(&task->rig->feed, mbufs, CHUNK))
		return -ENOMEM;
	for (unsigned i = 0; i < CHUNK; i += burst) {
		unsigned cnt = RTE_MIN(burst, CHUNK - i);

		if (task->mode == CORE_STAGES)
			burst_stages(w, mbufs + i, cnt, task->run);
		else
			burst_whole(w, mbufs + i, cnt, task->run);
	}
	flows_end(w, task->run);
	return 0;
}

/* ---- fanout: what was opened before is looked up and replicated ---- */

/* Opens a chunk of publishes, a burst at a time; each gets some place in a stream. */
static int events_prepare(struct task *task, struct worker *w, struct rte_mbuf **events)
{
	unsigned burst = task->rig->options.burst;
	struct rte_mbuf *mbufs[FANOUT_CHUNK];

	if (feed_make(&task->rig->feed, mbufs, FANOUT_CHUNK))
		return -ENOMEM;
	worker_clock(w);
	for (unsigned i = 0; i < FANOUT_CHUNK; i += burst) {
		unsigned cnt = RTE_MIN(burst, FANOUT_CHUNK - i);

		w->burst_no++;
		parse_burst(w, mbufs + i, cnt);
		lookup_burst(w);
		session_open_burst(w);
		if (w->event_cnt != cnt)
			return -EPROTO;
		memcpy(events + i, w->events, cnt * sizeof(events[0]));
		w->event_cnt = 0;
	}
	for (unsigned i = 0; i < FANOUT_CHUNK; i++) {
		struct fan_result *result = &packet_of(events[i])->result;

		result->epoch = 1;
		result->sequence = packet_of(events[i])->publish.publisher_sequence;
	}
	return 0;
}

static int chunk_fanout(struct task *task, struct worker *w)
{
	unsigned burst = task->rig->options.burst;
	struct rte_mbuf *events[FANOUT_CHUNK];
	int err = events_prepare(task, w, events);

	for (unsigned i = 0; i < FANOUT_CHUNK && !err; i += burst) {
		unsigned cnt = RTE_MIN(burst, FANOUT_CHUNK - i);
		uint64_t start;

		memcpy(w->events, events + i, cnt * sizeof(events[0]));
		w->event_cnt = cnt;
		w->burst_no++;
		start = rte_rdtsc_precise();
		lookup_burst(w);
		header_burst(w);
		seal_burst(w);
		tag_burst(w);
		fanout_burst(w);
		task->run->cycles += rte_rdtsc_precise() - start;
		task->run->events += cnt;
	}
	session_finish_burst(w);
	ack_burst(w);
	flows_end(w, task->run);
	housekeeping(w, FANOUT_CHUNK);
	worker_quiesce(w);
	return err;
}

/* ---- a run ---- */

static int task_work(void *arg)
{
	struct task *task = arg;
	struct worker *w = task->rig->plane.workers[0];

	worker_enter(w);
	while (!task->err && task->run->cycles < task->cycles)
		task->err =
			task->mode == CORE_FANOUT ? chunk_fanout(task, w) : chunk_pipeline(task, w);
	worker_leave(w);
	return 0;
}

static uint64_t port_sent(const struct rig *rig)
{
	struct rte_eth_stats stats;

	rte_eth_stats_get(rig->plane.port_id, &stats);
	return stats.opackets;
}

int core_run(struct rig *rig, enum core_mode mode, unsigned ms, struct core_run *run, char why[256])
{
	uint64_t copies = rig_counter(rig, FAN_COUNTER_copies_sent);
	uint64_t acks = rig_counter(rig, FAN_COUNTER_acks_sent);
	uint64_t keys = rig_counter(rig, FAN_COUNTER_seal_keys_derived);
	uint64_t statuses = rig_counter(rig, FAN_COUNTER_statuses_sent);
	uint64_t port = port_sent(rig);
	struct task task = {
		.rig = rig, .mode = mode, .cycles = rte_get_tsc_hz() / 1000 * ms, .run = run};

	*run = (struct core_run){0};
	rig_call(task_work, &task);
	run->copies = rig_counter(rig, FAN_COUNTER_copies_sent) - copies;
	run->keys_derived = rig_counter(rig, FAN_COUNTER_seal_keys_derived) - keys;
	run->acks = rig_counter(rig, FAN_COUNTER_acks_sent) - acks;
	statuses = rig_counter(rig, FAN_COUNTER_statuses_sent) - statuses;
	port = port_sent(rig) - port;
	if (task.err) {
		snprintf(why, 256, "the run failed: %s; are there enough packet buffers?",
			 strerror(-task.err));
		return task.err;
	}
	if (port != run->copies + run->acks + statuses ||
	    run->copies != run->events * rig->options.fanout) {
		snprintf(why, 256,
			 "of %llu events to %u connections each, the pipeline counts %llu copies "
			 "and %llu acknowledgements, the port %llu packets: something was dropped",
			 (unsigned long long)run->events, rig->options.fanout,
			 (unsigned long long)run->copies, (unsigned long long)run->acks,
			 (unsigned long long)port);
		return -EPROTO;
	}
	return 0;
}
