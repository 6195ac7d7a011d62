/* SPDX-License-Identifier: BSD-3-Clause */
/* The event log: what is in it, for how long, and what a dataplane that was killed left. */
#include <criterion/criterion.h>
#include <rte_ethdev.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/wire/handle.h"
#include "dataplane/log.h"
#include "tests/unit/dataplane/replay_asks.h"

#define PORT	   25500
#define GENERATION 3

static struct pipeline p;
static struct fan_group *alice, *bob;
static struct seen seen;

static void open_workers(unsigned workers)
{
	pipeline_open(&p, workers);
	status_hold(&p);
	memset(p.regions.root->replay_root, 0x33, sizeof(p.regions.root->replay_root));
	alice = region_add_group(&p.regions, "alice", 0, 1, 4, 0, PORT);
	bob = region_add_group(&p.regions, "bob", 0, 1, 4, 0, PORT + 100);
}

static void open_one(void)
{
	open_workers(1);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(log, .init = open_one, .fini = close_one);

static struct log *log_of(unsigned idx)
{
	return p.plane.workers[idx]->log;
}

static void ask_all(const struct fan_group *group, unsigned worker)
{
	uint64_t connection =
		p.regions.endpoints[group->endpoints >> FAN_ENDPOINT_CNT_BITS].connection;
	struct fan_replay request = ask_of(&p, group, connection, 1, UINT64_MAX);

	memset(&seen, 0, sizeof(seen));
	ask(&p, &request, GENERATION);
	loops(&p, worker);
	see(&p, &seen);
}

/* How many records a walk from the group's tail finds, each whole and of the right sequence. */
static unsigned history(const struct fan_group *group)
{
	const struct worker *w = p.plane.workers[0];
	const struct fan_group_state *state = &p.plane.group_states[group - p.regions.groups];
	const struct fan_log_record *record;
	uint64_t at = log_tail(w, state), before = state->sequence + 1;
	unsigned cnt = 0;

	while (log_get(w, at, group->incarnation, before, &record) == LOG_FOUND) {
		cr_assert_eq(record->sequence, before - 1);
		cr_assert(log_check(w, record, group, state->epoch));
		before = record->sequence;
		at = record->previous;
		cnt++;
	}
	return cnt;
}

/* Whatever fits: each record of the ring is whole, and a wrap never cuts one in two. */
Test(log, rings_wrap_and_every_record_in_them_is_whole)
{
	struct log_ring *ring = &log_of(0)->rings[0];

	log_of(0)->share_max = UINT32_MAX;
	for (unsigned i = 0; i < 60; i++) {
		unsigned cnt = history(alice);
		uint64_t wrapped = ring->head / ring->size;

		publish_events(&p, "alice", 50, (uint16_t)(17 * i % 1100));
		cr_expect(history(alice) == cnt + 50 || ring->head / ring->size > wrapped ||
			  wrapped > 0);
	}
	cr_expect_gt(ring->head, 2 * ring->size);
	cr_expect_gt(history(alice) * (64u + 100 + 1100 + 64), ring->size / 2);
	cr_expect_eq(p.plane.worker_states[0].log_head[0], ring->head);
}

Test(log, a_position_is_whole_again_from_its_place)
{
	const uint64_t head = (UINT64_C(5) << 37) + 640, heads[2] = {head, head + 64000};

	for (uint64_t back = 64; back < UINT64_C(1) << 37; back = back * 3 / 64 * 64 + 64) {
		uint64_t position = head - back;

		if (fan_log_place(position) == 0)
			continue;
		cr_expect_eq(fan_log_position(fan_log_place(position), heads), position);
		position |= FAN_LOG_RING_BIT;
		cr_expect_eq(fan_log_position(fan_log_place(position), heads), position);
	}
	cr_expect_eq(fan_log_position(0, heads), 0);
}

/* At the position whose place would be 0, which means "none", no record begins. */
Test(log, no_record_has_the_place_that_means_none)
{
	struct log_ring *ring = &log_of(0)->rings[0];

	ring->head = (UINT64_C(1) << 37) + ring->at;
	ring->head -= ring->head % ring->size; /* as log_open() has it: at is head % size */
	ring->head = UINT64_C(1) << 37;
	ring->at = ring->head % ring->size;
	publish_events(&p, "alice", 3, 10);
	cr_expect_eq(history(alice), 3);
}

/* One who floods has his share of what all have, and else evicts those who flood. */
Test(log, a_flood_evicts_nobody_elses_history)
{
	publish_events(&p, "bob", 20, 500);
	publish_events(&p, "alice", 3000, 1000);
	cr_expect_eq(history(bob), 20);
	cr_expect_gt(counter(&p, FAN_COUNTER_log_heavy), 2900);
	cr_expect_leq(log_of(0)->rings[0].head - p.plane.state->log_bytes,
		      log_of(0)->share_max * 64u + 20 * 704 + 2 * LOG_RECORD_MAX + 64);
	publish_events(&p, "bob", 20, 500);
	cr_expect_eq(history(bob), 40, "nor does it cost him what he has from now on");
	ask_all(bob, 0);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 40);
}

Test(log, what_is_for_nobody_is_not_logged)
{
	publish_events(&p, "nobody", 3, 10);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_logged), 0);
	alice->endpoints &= ~(uint64_t)FAN_ENDPOINT_CNT_MAX; /* lingers */
	publish_events(&p, "alice", 3, 10);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_logged), 3);
	cr_expect_eq(history(alice), 3);
}

static unsigned logged_at_transmit, sent_at_transmit;

static uint16_t on_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t cnt,
			    void *arg)
{
	if (sent_at_transmit++ == 0)
		logged_at_transmit = history(alice);
	return cnt;
}

Test(log, an_event_is_logged_before_its_first_copy_leaves)
{
	rte_eth_add_tx_callback(p.plane.port_id, 0, on_transmit, NULL);
	publish_events(&p, "alice", 1, 10);
	cr_expect_gt(sent_at_transmit, 0);
	cr_expect_eq(logged_at_transmit, 1);
}

/* ---- after a kill ---- */

static void restart(void)
{
	pipeline_restart_anew(&p);
	status_hold(&p);
}

Test(log, outlives_the_process_that_wrote_it)
{
	uint64_t epoch;

	publish_events(&p, "alice", 30, 200);
	epoch = p.plane.group_states[0].epoch;
	restart();
	cr_expect_eq(history(alice), 30);
	publish_events(&p, "alice", 5, 200);
	cr_expect_eq(history(alice), 35);
	ask_all(alice, 0);
	cr_assert_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 35);
	for (unsigned i = 0; i < 35; i++) {
		cr_expect_eq(seen.delivery[i].sequence, i + 1);
		cr_expect_eq(seen.delivery[i].epoch, epoch);
	}
}

/* The acknowledgement never left: the publisher asks again, and is told the event's place. */
/* Units that a user has in ring 0, by his chain of records. */
static uint64_t held_units(const struct fan_group *group)
{
	const struct worker *w = p.plane.workers[0];
	const struct fan_group_state *state = &p.plane.group_states[group - p.regions.groups];
	const struct fan_log_record *record;
	uint64_t at = log_tail(w, state), before = state->sequence + 1, units = 0;

	while (log_get(w, at, group->incarnation, before, &record) == LOG_FOUND) {
		if (!(at & FAN_LOG_RING_BIT))
			units += (sizeof(*record) + record->image_len + 63) / 64;
		before = record->sequence;
		at = record->previous;
	}
	return units;
}

static void expect_exact_shares(void)
{
	const struct fan_group *const groups[] = {alice, bob};

	for (unsigned i = 0; i < RTE_DIM(groups); i++) {
		const struct log_share *share = log_share_of(p.plane.workers[0], groups[i]->handle);

		cr_expect_eq(share->window, log_of(0)->rings[0].head / log_of(0)->rings[0].size);
		cr_expect_eq(share->cnt + share->last, held_units(groups[i]), "%u + %u of %lu",
			     share->cnt, share->last, (unsigned long)held_units(groups[i]));
	}
}

/* Over several fillings of the ring, whatever the sizes; and over a takeover of a takeover. */
Test(log, a_users_share_is_counted_anew_at_a_takeover)
{
	for (unsigned i = 0; i < 40; i++) {
		log_of(0)->share_max = UINT32_MAX;
		publish_events(&p, i % 3 ? "alice" : "bob", 40, (uint16_t)(17 * i % 1100));
		if (i % 4)
			continue;
		restart();
		cr_assert_gt(held_units(alice) + held_units(bob), 0);
		expect_exact_shares();
		restart(); /* it skips what might be half written, and nothing was */
		expect_exact_shares();
	}
	cr_expect_gt(log_of(0)->rings[0].head, 2 * log_of(0)->rings[0].size);
}

Test(log, who_has_used_up_his_share_has_no_second_one_after_a_takeover)
{
	uint64_t heavy;

	while (!counter(&p, FAN_COUNTER_log_heavy))
		publish_events(&p, "bob", 10, 1000);
	restart();
	heavy = counter(&p, FAN_COUNTER_log_heavy);
	publish_events(&p, "bob", 40, 1000);
	cr_expect_geq(counter(&p, FAN_COUNTER_log_heavy), heavy + 40 - 1);
	heavy = counter(&p, FAN_COUNTER_log_heavy);
	publish_events(&p, "alice", 10, 1000);
	cr_expect_eq(counter(&p, FAN_COUNTER_log_heavy), heavy);
}

/* Old payload that looks like a record where none is. */
Test(log, what_only_looks_like_a_record_is_charged_to_nobody)
{
	struct log_ring *ring = &log_of(0)->rings[0];
	struct fan_log_record *record;

	publish_events(&p, "alice", 10, 200);
	record = (void *)(ring->bytes + ring->at + LOG_RECORD_MAX / 64 * 64);
	memset(record, 0, 1024);
	record->position = ring->head + LOG_RECORD_MAX / 64 * 64;
	record->image_len = 500;
	memcpy((uint8_t *)(record + 1) + FAN_DELIVERY_HANDLE_OFF, bob->handle, FAN_HANDLE_LEN);
	restart();
	expect_exact_shares();
}

Test(log, what_was_logged_is_answered_with_its_place_after_a_kill)
{
	struct fan_result_record *record = &p.plane.session_states[1].results[1];
	struct publish_spec spec = {.slot = 1, .sequence = 1, .user = "alice"};
	struct fan_result results[FAN_ACK_RESULT_MAX];
	struct frame frame;
	uint64_t cumulative;

	publish(&p, &spec);
	take_all(&p);
	record->phase = FAN_RESULT_PHASE_LOGGED; /* and never got further */
	record->attempted = 0;
	record->sent = ~p.plane.state->run;
	publish(&p, &spec);
	cr_expect_not(take(&p, &frame), "it is being worked on");
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_publish_pending), 1);
	restart();
	publish(&p, &spec);
	cr_assert(take(&p, &frame));
	cr_assert_eq(ack_open(&frame, 1, &cumulative, results), 1);
	cr_expect_eq(results[0].status, FAN_RESULT_OK);
	cr_expect_eq(results[0].sequence, 1);
	cr_expect_eq(results[0].epoch, p.plane.group_states[0].epoch);
	cr_expect_eq(results[0].sent, 0);
	cr_expect_eq(counter(&p, FAN_COUNTER_events_sequenced), 0, "one copy of it, not two");
}

/*
 * Every prefix of the stores of the eleventh record: the region is put back as it was before it,
 * but for the words that were stored by then. What can be had is ten whole records or eleven, the
 * stream goes on behind, and nothing else is ever sent.
 */
static void kill_after(unsigned steps)
{
	struct fan_group_state *state = &p.plane.group_states[0], before;
	struct fan_worker_state *shared = &p.plane.worker_states[0];
	uint64_t head = shared->log_head[0];
	struct fan_log_record *record;
	uint8_t image[512];

	before = *state;
	publish_events(&p, "alice", 1, 200);
	cr_assert_eq(log_get(p.plane.workers[0], log_tail(p.plane.workers[0], state),
			     alice->incarnation, UINT64_MAX,
			     (const struct fan_log_record **)&record),
		     LOG_FOUND);
	memcpy(image, record, sizeof(image));
	if (steps < 5)
		state->log_tail = before.log_tail;
	if (steps < 4)
		shared->log_head[0] = head;
	if (steps < 3)
		record->position = 0;
	if (steps < 2) /* half of the image */
		memset((uint8_t *)record + 200, 0, 164);
	if (steps < 1)
		memset((uint8_t *)record + 8, 0xff, 192);
	restart();
}

Test(log, a_kill_between_any_two_stores_leaves_whole_records_only)
{
	for (unsigned steps = 0; steps <= 5; steps++) {
		uint64_t sequence = 11 * steps + 10 + steps, events;
		bool whole = steps == 5;

		publish_events(&p, "alice", 10, 200);
		kill_after(steps);
		publish_events(&p, "alice", 1, 200);
		events = seen_type(&seen, FAN_TYPE_DELIVERY);
		ask_all(alice, 0);
		events = seen_type(&seen, FAN_TYPE_DELIVERY) - events;
		cr_expect_eq(events, whole ? 12 : 11, "%u steps: %lu", steps,
			     (unsigned long)events);
		for (unsigned i = 1; i < seen.cnt - 1; i++)
			cr_expect(seen.delivery[i].type == FAN_TYPE_LOST ||
				  seen.delivery[i].sequence != sequence + 1 || whole);
		cr_expect_eq(counter(&p, FAN_COUNTER_replay_torn), 0);
		memset(&seen, 0, sizeof(seen));
		ask_all(alice, 0);
	}
}

/* Another division of the log, or another size: its history is void, sequences go on. */
static void expect_void(unsigned events)
{
	uint64_t epoch = p.plane.group_states[0].epoch, head = p.plane.worker_states[0].log_head[0];

	restart();
	cr_expect_gt(p.plane.worker_states[0].log_head[0], head, "no position is used twice");
	cr_expect_eq(history(alice), 0);
	cr_expect_eq(p.plane.group_states[0].epoch, epoch);
	publish_events(&p, "alice", 2, 200);
	cr_expect_eq(p.plane.group_states[0].sequence, events + 2);
	cr_expect_eq(history(alice), 2);
	ask_all(alice, 0);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 2);
	cr_assert_eq(seen_type(&seen, FAN_TYPE_LOST), 1);
	cr_expect_eq(seen.delivery[0].publisher_sequence, events);
}

static uint64_t state_size(void)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", p.dir, FAN_STATE_FILE);
	cr_assert_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

Test(log, another_size_voids_what_it_held_and_keeps_the_rest)
{
	uint64_t size = state_size(), creation = p.plane.state->header.creation_epoch;

	publish_events(&p, "alice", 30, 200);
	p.plane.config.log_mb = 3;
	expect_void(30);
	cr_expect_eq(state_size(), size + (2u << 20));
	p.plane.config.log_mb = 2;
	expect_void(32);
	cr_expect_eq(state_size(), size + (1u << 20));
	cr_expect_eq(p.plane.state->header.creation_epoch, creation);
}

/* No event that was logged as it was is ever sent by one that is told to seal, nor the reverse. */
Test(log, sealing_that_is_switched_begins_everything_anew)
{
	uint64_t creation = p.plane.state->header.creation_epoch;

	publish_events(&p, "alice", 10, 200);
	cr_assert_eq(history(alice), 10);
	p.regions.root->seal = 1;
	restart();
	cr_expect_neq(p.plane.state->header.creation_epoch, creation);
	cr_expect_eq(history(alice), 0);
	ask_all(alice, 0);
	cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 0);
	creation = p.plane.state->header.creation_epoch;
	restart();
	cr_expect_eq(p.plane.state->header.creation_epoch, creation, "not switched");
	p.regions.root->seal = 0;
	restart();
	cr_expect_neq(p.plane.state->header.creation_epoch, creation);
}

/* A file that is longer than it says, as one leaves it that is killed while it changes the size. */
Test(log, killed_at_any_step_of_another_size_it_keeps_the_rest)
{
	uint64_t size = state_size(), creation = p.plane.state->header.creation_epoch;
	char path[128];

	publish_events(&p, "alice", 30, 200);
	snprintf(path, sizeof(path), "%s/%s", p.dir, FAN_STATE_FILE);
	for (unsigned step = 0; step < 3; step++) {
		p.plane.state->header.resizing = 1;
		pipeline_kill(&p);
		cr_assert_eq(truncate(path, (off_t)(size + (1u << 20) * step)), 0);
		pipeline_start(&p);
		cr_expect_eq(p.plane.state->header.creation_epoch, creation);
		cr_expect_eq(p.plane.state->header.resizing, 0);
		cr_expect_eq(state_size(), size);
		cr_expect_eq(history(alice), 30, "the same size: nothing is given up");
	}
	p.plane.state->log_workers = 0; /* smaller: the log is void already, the file as it was */
	p.plane.config.log_mb = 2;
	expect_void(30);
	cr_expect_eq(p.plane.state->header.creation_epoch, creation);
}

/* Whatever a damaged worker's record says of its log, nothing is read or written beside it. */
Test(log, damaged_heads_void_what_it_held)
{
	static const uint64_t heads[] = {1, 63, UINT64_MAX, UINT64_MAX - 63, UINT64_C(1) << 60};

	for (unsigned i = 0; i < RTE_DIM(heads); i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++) {
			publish_events(&p, "alice", 30, 200);
			p.plane.worker_states[0].log_head[ring] = heads[i];
			restart();
			cr_expect_eq(history(alice), 0);
			publish_events(&p, "alice", 3, 200);
			cr_expect_eq(history(alice), 3);
		}
}

/* A damaged sequence does not wrap: the stream begins anew. */
Test(log, a_sequence_beyond_all_sense_is_the_end_of_its_epoch)
{
	uint64_t epoch;

	publish_events(&p, "alice", 3, 200);
	epoch = p.plane.group_states[0].epoch;
	p.plane.group_states[0].sequence = UINT64_MAX - 1;
	publish_events(&p, "alice", 2, 200);
	cr_expect_neq(p.plane.group_states[0].epoch, epoch);
	cr_expect_eq(p.plane.group_states[0].sequence, 2);
}

Test(log, another_division_voids_what_it_held_and_keeps_the_rest)
{
	publish_events(&p, "alice", 30, 200);
	p.plane.state->log_workers = 2;
	expect_void(30);
	cr_expect_eq(p.plane.state->log_workers, 1);
}

/* ---- two workers ---- */

static void open_two(void)
{
	open_workers(2);
}

TestSuite(logs, .init = open_two, .fini = close_one);

/* A request comes to worker 0 and is served by the owner of its group, from its own log. */
Test(logs, each_worker_serves_its_own_groups)
{
	static const char *const names[] = {"user-0", "user-1", "user-2", "user-3",
					    "user-4", "user-5", "user-6", "user-7"};
	unsigned served[2] = {0};

	for (unsigned i = 0; i < RTE_DIM(names); i++) {
		struct fan_group *group = region_add_group(&p.regions, names[i], 0, 1, 4, 0,
							   (uint16_t)(PORT + 200 + i));
		unsigned owner =
			group_owner(&p.plane, fan_table_hash(p.plane.table.seed, group->handle,
							     group->channel));

		for (uint64_t n = 1; n <= 5; n++) {
			publish(&p, &(struct publish_spec){.sequence = 5 * i + n,
							   .user = names[i],
							   .payload_len = 20});
			loops(&p, 1);
			loops(&p, 0);
		}
		take_all(&p);
		ask_all(group, owner);
		cr_expect_eq(seen_type(&seen, FAN_TYPE_DELIVERY), 5, "%s of worker %u", names[i],
			     owner);
		for (unsigned n = 0; n < seen.cnt; n++)
			cr_expect_eq(seen.port[n], PORT + 200 + i);
		served[owner]++;
	}
	cr_expect(served[0] && served[1], "both own groups");
}
