/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reclamation by quiescent generation. What was unlinked queues up; a batch takes one snapshot of
 * the workers' words for everything queued since the last; once each word that was odd has changed,
 * or the kernel released the dataplane's lock, no worker holds any of it. McKenney & Slingwine,
 * "Read-Copy Update" (1998), is the idea; here a stalled reader delays reuse and nothing else.
 *
 * Why it is right. A worker stores its word (seq_cst) and then loads references; the writer
 * unlinks, fences (seq_cst) and then loads the word. Either the writer sees the newer word, and
 * waits for that loop's end, or the worker's loads come after the fence and see the unlinking. A
 * change of the word is read with acquire, after which nothing that the worker read before can be
 * overtaken by our reuse. A dataplane that starts after the snapshot maps memory in which it is
 * unlinked already.
 */
#include <errno.h>
#include <string.h>

#include "control/registry/big.h"
#include "control/registry/internal.h"

#define POLL_EVERY 1024u /* items: bounds what rests while nobody calls housekeeping */

static void fence(void)
{
#ifdef __SANITIZE_THREAD__
	/* ThreadSanitizer knows no fences (gcc refuses them); a locked instruction does the same.
	 */
	uint32_t word = 0;

	__atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

int retire_init(struct registry *r)
{
	const struct fan_registry *root = r->root;
	uint64_t most = (uint64_t)root->endpoint_cnt + root->group_cnt + root->overflow_cnt +
			root->connection_cnt + root->session_cnt;
	uint32_t cnt = 1024;

	while (cnt < most)
		cnt *= 2;
	r->retirement.items = big_calloc(cnt, sizeof(*r->retirement.items));
	r->retirement.mask = cnt - 1;
	return r->retirement.items ? 0 : -ENOMEM;
}

void retire_fini(struct registry *r)
{
	big_free(r->retirement.items, (size_t)r->retirement.mask + 1, sizeof(*r->retirement.items));
}

void retire(struct registry *r, enum retired_kind kind, uint32_t idx, uint32_t cnt)
{
	struct retirement *q = &r->retirement;

	q->items[q->head++ & q->mask] = (struct retired){idx, cnt << RETIRED_KIND_BITS | kind};
}

/* ---- batches ---- */

static void snap(const struct registry *r, struct batch *batch)
{
	memset(batch->words, 0, sizeof(batch->words));
	if (!r->state)
		return;
	for (unsigned w = 0; w < FAN_WORKERS_MAX; w++) {
		uint64_t word = __atomic_load_n(&r->workers[w].quiescent, __ATOMIC_SEQ_CST);

		batch->words[w] = word & 1 ? word : 0;
	}
}

static void batch_begin(struct registry *r, bool takeover)
{
	struct retirement *q = &r->retirement;
	struct batch *batch = &q->batches[q->batch_head % BATCHES_MAX];

	dataplane_refresh(r, !dataplane_alive(r));
	fence();
	batch->end = q->head;
	batch->takeover = takeover;
	batch->since_ns = r->now_ns;
	batch->request_head = r->root->request_head;
	snap(r, batch);
	q->snapped = q->head;
	q->batch_head++;
}

void retire_takeover(struct registry *r)
{
	r->resting = true;
	batch_begin(r, true);
}

void retire_resnap(struct registry *r)
{
	struct retirement *q = &r->retirement;

	fence();
	for (uint32_t b = q->batch_tail; b != q->batch_head; b++)
		snap(r, &q->batches[b % BATCHES_MAX]);
}

/* The first worker that a batch still waits for, or NONE. */
static uint32_t blocker(const struct registry *r, struct batch *batch)
{
	for (uint32_t w = 0; w < FAN_WORKERS_MAX; w++) {
		if (!batch->words[w])
			continue;
		/* Pairs with the worker's seq_cst store at the end of a loop. */
		if (r->state &&
		    __atomic_load_n(&r->workers[w].quiescent, __ATOMIC_SEQ_CST) == batch->words[w])
			return w;
		batch->words[w] = 0;
	}
	return NONE;
}

/*
 * A request names a port, so the port is another's only when the request has left or never will.
 * The dataplane moves its tail on when that is so, and to the head when it starts.
 */
static bool requests_done(const struct registry *r, const struct batch *batch)
{
	uint32_t tail, left;

	if (!r->state)
		return true;
	tail = __atomic_load_n(&r->state->request_tail, __ATOMIC_ACQUIRE);
	left = batch->request_head - tail;
	return left == 0 || left > r->root->request_cnt; /* passed, or impossible and skipped */
}

static bool rested(const struct registry *r, struct batch *batch)
{
	return requests_done(r, batch) && blocker(r, batch) == NONE;
}

static bool passed(struct registry *r, struct batch *batch)
{
	if (rested(r, batch) || fan_planted(PLANT_EARLY_RECLAIM))
		return true;
	if (dataplane_alive(r))
		return false;
	/* Dead; unless another one has come meanwhile, whose words are then the ones to wait for.
	 */
	dataplane_refresh(r, true);
	return !dataplane_alive(r) || rested(r, batch);
}

/* ---- reuse ---- */

static void release(struct registry *r, struct retired item)
{
	switch ((enum retired_kind)(item.cnt_kind & ((1u << RETIRED_KIND_BITS) - 1))) {
	case RETIRED_BLOCK:
		block_free(&r->blocks, item.idx, item.cnt_kind >> RETIRED_KIND_BITS);
		break;
	case RETIRED_GROUP:
		stack_push(&r->free_groups, item.idx);
		break;
	case RETIRED_BUCKET:
		stack_push(&r->free_overflow, item.idx);
		break;
	case RETIRED_CONNECTION:
		stack_push(&r->freed, item.idx);
		break;
	case RETIRED_SESSION:
		memset(&r->sessions[item.idx], 0, sizeof(r->sessions[item.idx]));
		stack_push(&r->free_sessions, item.idx);
		break;
	}
}

static void batch_release(struct registry *r, const struct batch *batch)
{
	struct retirement *q = &r->retirement;

	while (q->tail != batch->end) {
		if (batch->end - q->tail > REGISTRY_AHEAD)
			ahead_release(r, q->items[(q->tail + REGISTRY_AHEAD) & q->mask]);
		release(r, q->items[q->tail++ & q->mask]);
	}
	if (batch->takeover)
		r->resting = false;
	q->batch_tail++;
}

void retire_poll(struct registry *r)
{
	struct retirement *q = &r->retirement;

	q->polled = q->head;
	if (q->head != q->snapped && q->batch_head - q->batch_tail < BATCHES_MAX)
		batch_begin(r, false);
	while (q->batch_tail != q->batch_head) {
		struct batch *batch = &q->batches[q->batch_tail % BATCHES_MAX];

		if (!passed(r, batch))
			break;
		batch_release(r, batch);
	}
}

void retire_tell(struct registry *r)
{
	uint32_t connection;

	while (ahead_tell(r), (connection = stack_pop(&r->freed)) != NONE) {
		struct fan_connection *record = &r->connections[connection];
		uint64_t id = record->id;

		ids_del(r, connection);
		r->sockets -= !(record->hop & FAN_HOP_VOUCHED);
		connection_set_state(record, FAN_CONNECTION_FREE);
		user_unlink_ending(r, connection);
		stack_push(&r->free_connections, connection);
		r->counts.connections_ending--;
		if (r->on_free)
			r->on_free(r->on_free_arg, id);
	}
}

/* ---- taking ---- */

uint32_t take_block(struct registry *r, uint32_t cnt, uint32_t reserve)
{
	uint32_t first = NONE;

	if (r->retirement.head - r->retirement.polled >= POLL_EVERY)
		retire_poll(r);
	for (unsigned attempt = 0; first == NONE && attempt < 2; attempt++) {
		if (attempt)
			retire_poll(r);
		if (!r->resting && r->blocks.free_cnt >= (uint64_t)cnt + reserve)
			first = block_alloc(&r->blocks, cnt);
	}
	return first;
}

uint32_t take_index(struct registry *r, struct stack *stack)
{
	if (r->resting || stack->cnt == 0)
		retire_poll(r);
	return r->resting ? NONE : stack_pop(stack);
}

int registry_no_space(struct registry *r, const char *what, const char *limit)
{
	struct retirement *q = &r->retirement;
	struct batch *oldest = &q->batches[q->batch_tail % BATCHES_MAX];
	uint32_t worker = q->batch_tail == q->batch_head ? NONE : blocker(r, oldest);

	if (worker != NONE)
		return registry_fail(
			r, -ENOSPC,
			"%s: reclamation is waiting for worker %u, stalled for %.1f s; "
			"try again, and see to the dataplane if it stays so",
			what, worker, (double)(r->now_ns - oldest->since_ns) / 1e9);
	return registry_fail(r, -ENOSPC, "%s full: raise %s", what, limit);
}
