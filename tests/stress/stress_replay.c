/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two workers, each a thread with the whole loop of a worker: both take in publishes for groups of
 * either, log what is theirs, and are asked by both for replays of either's groups, among them ones
 * that have left the log; streams fall silent, so that statuses are told; a third thread reads
 * tails as fanwired does. In between the dataplane dies with whatever is under way, and its
 * successor takes the regions up.
 *
 * What comes out is looked at by the thread that sent it: each copy is of its user, whole, from the
 * worker that owns the group; live ones in their order without a gap; replays and lost ranges at
 * the connection that asked. Built with ThreadSanitizer, too.
 *
 * Usage: stress-replay [SECONDS [SEED]]
 */
#include <pthread.h>
#include <rte_lcore.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/wire/handle.h"
#include "dataplane/housekeeping.h"
#include "dataplane/plane.h"
#include "tests/unit/dataplane/pipeline.h"

#define WORKERS	    2
#define USERS	    12u
#define TAKEOVERS   3
#define FIRST_PORT  25500u /* a user has two connections: one that never asks, one that does */
#define PAYLOAD_LEN 64u
#define ASK_BACK    4000u /* more than the log holds of a user */
#define BUSY_NS	    UINT64_C(30000000)
#define SILENT_NS   UINT64_C(60000000) /* longer than the first status waits */

/* What the thread of one worker knows; nobody else touches it while it runs. */
struct side {
	pthread_t thread;
	struct worker *w;
	uint32_t slot; /* of the session that it publishes from, which it owns */
	uint64_t seed;
	uint64_t last[USERS][2]; /* live sequences by user and connection */
	bool after_takeover[USERS][2];
	uint64_t live, replayed, lost, statuses;
};

/* How far a stream has come, for whoever asks for a part of it. */
struct stream {
	uint64_t epoch, tail; /* __atomic */
};

static struct pipeline p;
static struct side sides[WORKERS];
static struct stream streams[USERS];
static char names[USERS][16];
static uint64_t asked;	/* __atomic: counts requests */
static uint64_t wrong;	/* __atomic */
static uint32_t ending; /* __atomic */
static uint64_t tails_read;

static void fail(const char *what, unsigned user, uint64_t sequence)
{
	if (__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED) < 10)
		fprintf(stderr, "stress-replay: %s (user %u, sequence %llu)\n", what, user,
			(unsigned long long)sequence);
}

static uint64_t draw(uint64_t *seed)
{
	*seed ^= *seed << 13; /* xorshift64, Marsaglia 2003 */
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- packet buffers under a mutex: ThreadSanitizer does not see into DPDK's own ring of them ----
 */

struct stack {
	pthread_mutex_t lock;
	unsigned cnt;
	void *objects[];
};

static int stack_alloc(struct rte_mempool *pool)
{
	struct stack *stack = calloc(1, sizeof(*stack) + pool->size * sizeof(void *));

	if (!stack || pthread_mutex_init(&stack->lock, NULL))
		return -ENOMEM;
	pool->pool_data = stack;
	return 0;
}

static void stack_free(struct rte_mempool *pool)
{
	free(pool->pool_data);
}

static int stack_put(struct rte_mempool *pool, void *const *objects, unsigned cnt)
{
	struct stack *stack = pool->pool_data;

	pthread_mutex_lock(&stack->lock);
	memcpy(stack->objects + stack->cnt, objects, cnt * sizeof(void *));
	stack->cnt += cnt;
	pthread_mutex_unlock(&stack->lock);
	return 0;
}

static int stack_get(struct rte_mempool *pool, void **objects, unsigned cnt)
{
	struct stack *stack = pool->pool_data;
	int err = -ENOBUFS;

	pthread_mutex_lock(&stack->lock);
	if (stack->cnt >= cnt) {
		stack->cnt -= cnt;
		memcpy(objects, stack->objects + stack->cnt, cnt * sizeof(void *));
		err = 0;
	}
	pthread_mutex_unlock(&stack->lock);
	return err;
}

static unsigned stack_cnt(const struct rte_mempool *pool)
{
	return ((struct stack *)pool->pool_data)->cnt;
}

static const struct rte_mempool_ops stack_ops = {
	.name = "mutexed",
	.alloc = stack_alloc,
	.free = stack_free,
	.enqueue = stack_put,
	.dequeue = stack_get,
	.get_count = stack_cnt,
};

RTE_MEMPOOL_REGISTER_OPS(stack_ops)

/* ---- in ---- */

static struct rte_mbuf *mbuf_of(const uint8_t *frame, uint16_t len)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p.plane.pool);

	if (mbuf)
		memcpy(rte_pktmbuf_append(mbuf, len), frame, len);
	return mbuf;
}

/* The next one that the session waits for, to a user of either worker. */
static struct rte_mbuf *publish_next(struct side *side, uint64_t sequence)
{
	unsigned user = (unsigned)(draw(&side->seed) % USERS);
	char payload[PAYLOAD_LEN];
	uint8_t frame[2048];

	memset(payload, 'a' + (int)user, sizeof(payload));
	return mbuf_of(frame,
		       publish_make(frame, &(struct publish_spec){.slot = side->slot,
								  .sequence = sequence,
								  .user = names[user],
								  .payload = payload,
								  .payload_len = PAYLOAD_LEN}));
}

static struct rte_mbuf *ask_again(struct side *side)
{
	unsigned user = (unsigned)(draw(&side->seed) % USERS);
	const struct fan_group *group = &p.regions.groups[user];
	uint64_t tail = __atomic_load_n(&streams[user].tail, __ATOMIC_ACQUIRE);
	uint64_t back = draw(&side->seed) % ASK_BACK;
	struct fan_replay request = {
		.connection = 1000 * (user + 1u) + 1,
		.channel = group->channel,
		.epoch = __atomic_load_n(&streams[user].epoch, __ATOMIC_ACQUIRE),
		.first = tail > back ? tail - back : 1,
		.counter = __atomic_add_fetch(&asked, 1, __ATOMIC_RELAXED),
	};
	uint8_t key[FAN_TAG_KEY_LEN], wire[FAN_REPLAY_LEN], frame[2048];

	if (!tail)
		return NULL;
	request.last = back % 8 ? request.first + back % 50 : UINT64_MAX;
	memcpy(request.handle, group->handle, sizeof(request.handle));
	fan_replay_key(key, p.regions.root->replay_root, request.connection,
		       p.regions.connections[2 * user + 1].generation, group->user_generation,
		       request.handle);
	fan_replay_encode(wire, &request, key);
	return mbuf_of(frame, datagram_make(frame, 4, (uint16_t)(FIRST_PORT + 2 * user + 1), wire,
					    sizeof(wire)));
}

static unsigned receive(struct side *side, struct rte_mbuf *received[BURST_MAX])
{
	uint64_t accepted = p.plane.session_states[side->slot].accepted;
	bool silent = now_ns() % (BUSY_NS + SILENT_NS) > BUSY_NS;
	unsigned cnt = 0;

	for (unsigned i = 0; i < 16 && !silent; i++)
		if ((received[cnt] = publish_next(side, accepted + 1 + i)))
			cnt++;
	if (draw(&side->seed) % 4 == 0 && (received[cnt] = ask_again(side)))
		cnt++;
	return cnt;
}

/* ---- out ---- */

static void see_live(struct side *side, unsigned user, unsigned connection, uint64_t sequence)
{
	uint64_t *last = &side->last[user][connection];

	/* what was logged when its dataplane died has not been sent: it comes by replay */
	if (side->after_takeover[user][connection] ? sequence <= *last : sequence != *last + 1)
		fail("a live copy out of order", user, sequence);
	side->after_takeover[user][connection] = false;
	*last = sequence;
	side->live++;
}

static void see(struct side *side, const struct frame *frame)
{
	unsigned user = (frame->target_port - FIRST_PORT) / 2;
	unsigned connection = (frame->target_port - FIRST_PORT) % 2;
	const struct fan_group *group = &p.regions.groups[user];
	struct fan_delivery d;

	if (frame->wire[1] == FAN_TYPE_ACK)
		return;
	if (user >= USERS || fan_delivery_decode(frame->wire, frame->wire_len, &d) != FAN_WIRE_OK) {
		fail("a datagram for nobody, or of no form", user, 0);
		return;
	}
	if (memcmp(d.handle, group->handle, sizeof(d.handle)) != 0 ||
	    !fan_filter_tag_ok(frame->wire, group->tag_key))
		fail("another user's, or under another key", user, d.sequence);
	if (group_owner(&p.plane, fan_table_hash(p.plane.table.seed, group->handle, 0)) !=
	    side->w->idx)
		fail("not from the worker that owns the group", user, d.sequence);
	if (d.type == FAN_TYPE_DELIVERY)
		for (unsigned i = 0; i < PAYLOAD_LEN; i++)
			if (frame->wire[FAN_DELIVERY_LEN + i] != 'a' + user)
				fail("a payload that is not whole", user, d.sequence);
	if (connection == 0 && (d.flags & FAN_FLAG_REPLAY || d.type == FAN_TYPE_LOST))
		fail("a replay to a connection that did not ask", user, d.sequence);
	if (d.type == FAN_TYPE_DELIVERY && !(d.flags & FAN_FLAG_REPLAY))
		see_live(side, user, connection, d.sequence);
	if (d.type == FAN_TYPE_DELIVERY && d.flags & FAN_FLAG_REPLAY)
		side->replayed++;
	side->statuses += d.type == FAN_TYPE_STATUS;
	side->lost += d.type == FAN_TYPE_LOST;
	if (d.type == FAN_TYPE_DELIVERY || d.type == FAN_TYPE_STATUS) {
		__atomic_store_n(&streams[user].epoch, d.epoch, __ATOMIC_RELEASE);
		__atomic_store_n(&streams[user].tail, side->last[user][0], __ATOMIC_RELEASE);
	}
}

static void drain(struct side *side)
{
	struct rte_mbuf *mbuf;
	struct frame frame;

	while (rte_ring_dequeue(p.tx[side->w->idx], (void **)&mbuf) == 0) {
		frame.len = mbuf->data_len;
		memcpy(frame.bytes, rte_pktmbuf_mtod(mbuf, void *), frame.len);
		rte_pktmbuf_free(mbuf);
		frame_check(&frame);
		see(side, &frame);
	}
}

/* ---- threads ---- */

/* The loop of worker_run(), on a port that is this thread itself; it ends as a kill would end it.
 */
static void *work(void *arg)
{
	struct rte_mbuf *received[BURST_MAX];
	struct side *side = arg;
	struct worker *w = side->w;

	rte_thread_register(); /* a cache of packet buffers of its own */
	worker_enter(w);
	while (!__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
		housekeeping(w, worker_burst(w, received, receive(side, received)));
		worker_quiesce(w);
		drain(side);
	}
	rte_thread_unregister();
	return NULL;
}

/* As registry_tails() of control/registry/registry.h reads them. */
static void *read_tails(void *arg)
{
	uint64_t last[USERS] = {0};

	(void)arg;
	while (!__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
		for (unsigned user = 0; user < USERS; user++) {
			const struct fan_group_state *state = &p.plane.group_states[user];
			uint64_t epoch, sequence;

			if (__atomic_load_n(&state->incarnation, __ATOMIC_ACQUIRE) !=
			    p.regions.groups[user].incarnation)
				continue;
			epoch = __atomic_load_n(&state->epoch, __ATOMIC_ACQUIRE);
			sequence = __atomic_load_n(&state->sequence, __ATOMIC_ACQUIRE);
			if (sequence && (!epoch || sequence < last[user]))
				fail("a tail that goes back", user, sequence);
			last[user] = sequence;
			tails_read++;
		}
		nanosleep(&(struct timespec){0, 100000}, NULL);
	}
	return NULL;
}

static void run(double seconds)
{
	pthread_t reader;

	__atomic_store_n(&ending, 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < WORKERS; i++) {
		sides[i].w = p.plane.workers[i];
		pthread_create(&sides[i].thread, NULL, work, &sides[i]);
	}
	pthread_create(&reader, NULL, read_tails, NULL);
	nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)},
		  NULL);
	__atomic_store_n(&ending, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(sides[i].thread, NULL);
	pthread_join(reader, NULL);
}

static void take_over(void)
{
	pipeline_restart(&p);
	for (unsigned i = 0; i < WORKERS; i++)
		memset(sides[i].after_takeover, true, sizeof(sides[i].after_takeover));
}

static void scene(uint64_t seed)
{
	pipeline_pool_ops = stack_ops.name;
	pipeline_open(&p, WORKERS);
	for (unsigned user = 0; user < USERS; user++) {
		snprintf(names[user], sizeof(names[user]), "user-%u", user);
		region_add_group(&p.regions, names[user], 0, 2, 4, 0,
				 (uint16_t)(FIRST_PORT + 2 * user));
	}
	for (uint32_t slot = 0; slot < WORKERS; slot++) {
		unsigned owner = session_owner(&p.plane, pipeline_session(slot));

		sides[owner].slot = slot;
		sides[owner].seed = seed + slot;
	}
}

static int judge(void)
{
	struct side all = {0};
	bool enough = counter(&p, FAN_COUNTER_handovers) > 0 && tails_read > 0;

	for (unsigned i = 0; i < WORKERS; i++) {
		enough &= sides[i].live > 1000 && sides[i].replayed > 100 && sides[i].lost > 0 &&
			  sides[i].statuses > 0;
		all.live += sides[i].live;
		all.replayed += sides[i].replayed;
		all.lost += sides[i].lost;
		all.statuses += sides[i].statuses;
	}
	printf("%llu copies, %llu replayed, %llu lost ranges, %llu statuses, %u takeovers, "
	       "%llu wrong\n",
	       (unsigned long long)all.live, (unsigned long long)all.replayed,
	       (unsigned long long)all.lost, (unsigned long long)all.statuses, TAKEOVERS,
	       (unsigned long long)wrong);
	if (!enough)
		fprintf(stderr, "stress-replay: too little was done to judge by\n");
	return wrong || !enough;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 4;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	int failed;

	scene(seed ? seed : 1);
	for (unsigned i = 0; i <= TAKEOVERS; i++) {
		if (i)
			take_over();
		run(seconds / (TAKEOVERS + 1));
	}
	failed = judge();
	pipeline_close(&p);
	return failed;
}
