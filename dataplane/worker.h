/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a worker works with: the plane that all share and that is constant while workers run, and
 * the worker's own state, which only its lcore touches unless a field says otherwise.
 *
 * A publish travels as the mbuf that it arrived in; what is known of it stands in the mbuf's
 * private area (struct packet), so it can be handed to another worker as it is. References into the
 * registry region stand in the worker's burst arrays only, and never outlive one burst; a fan-out
 * under way (struct flow) keeps its own for longer and withholds the quiescence word meanwhile
 * (flows.h).
 */
#pragma once

#define LINUX
#include <intel-ipsec-mb.h>

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include "common/config/config.h"
#include "common/counters.h"
#include "common/shm/keys.h"
#include "common/shm/state.h"
#include "common/shm/table.h"
#include "common/wire/wire.h"
#include "dataplane/budget.h"
#include "dataplane/kernels/kernels.h"

#define BURST_MAX	   256		   /* packets taken from one source at once */
#define STAGE_MAX	   (5 * BURST_MAX) /* received, of two kinds handed over, had waited, went on */
#define TX_BURST	   32		   /* frames that fit the first cache together */
#define FLOWS_MAX	   16		   /* fan-outs that go on in later bursts; flows.h */
#define FLOW_SHARE	   256 /* copies of a group in one burst: more, and it becomes a flow */
#define FLOW_SLICE	   32  /* copies of a flow in one burst */
#define SLICES_MAX	   128 /* of flows in one burst */
#define GROUP_SHARES	   1024
#define GROUP_PLACES	   1024
#define ADMISSION_QUEUE	   256	/* publishes that wait for their share, of all sessions */
#define EPOCHS_DRAWN	   64	/* stream epochs at once */
#define HANDOVER_CNT	   1024 /* capacity of each ring between two workers */
#define HANDOVER_GROUP_MAX 256	/* of it, that one group may take */

/* What one ring carries from one worker to another. */
enum handover {
	HANDOVER_PUBLISH,  /* to the session's owner, as received */
	HANDOVER_EVENT,	   /* to the group's owner, opened and accepted */
	HANDOVER_RESULT,   /* back to the session's owner */
	HANDOVER_REPLAY,   /* to the group's owner: a request that was judged */
	HANDOVER_TRANSMIT, /* to a worker that has a transmit queue */
	HANDOVER_KIND_CNT
};

/* A registration: the index of its connection's record, and which one of those that had it. */
struct replay_asker {
	uint32_t record, generation;
};

/* In the private area of the mbuf that a publish arrived in. No reference into the registry. */
struct packet {
	uint8_t *wire;	       /* UDP payload, inside this mbuf */
	struct rte_mbuf *next; /* what waits behind it: of its session, or of its flow */
	union {
		uint64_t incarnation;	   /* of the group that sequenced it */
		struct replay_asker asker; /* of a request for replay that was judged */
	};
	uint64_t hash; /* of handle and channel */
	struct fan_publish publish;
	struct fan_result result;
	uint8_t source[16]; /* IPv6, or IPv4 as v4-mapped */
	uint16_t source_port;
	uint16_t wire_len;
	uint32_t wait_ms; /* held back, over its publisher's budget: for so long; 0: it was not */
	bool answered;	  /* an acknowledgement carries `result`; false: cumulative only */
};
#define PACKET_PRIV_LEN RTE_ALIGN_CEIL(sizeof(struct packet), RTE_MBUF_PRIV_ALIGN)

static inline struct packet *packet_of(struct rte_mbuf *mbuf)
{
	return rte_mbuf_to_priv(mbuf);
}

/* Key schedule of a session, at its slot; touched by the session's owner only. */
struct key_schedule {
	struct gcm_key_data gcm __attribute__((aligned(64)));
	uint64_t session; /* whose schedule it is; 0: none */
};

struct seal_key;
struct seal_schedule;
struct worker;
struct log;
struct replay;
struct status;

/* Shared by all workers; constant while they run, but for the two flags. */
struct plane {
	struct fan_config config;
	struct fan_region registry;
	struct fan_region state_region;
	struct fan_table table;
	struct fan_state *state;
	struct fan_worker_state *worker_states;
	struct fan_group_state *group_states;
	struct fan_session_state *session_states;
	uint8_t *logs; /* of all workers, one behind the other; log.h */
	struct key_schedule *key_schedules;
	struct publisher_budget *budgets; /* of publishers, by their meter; budget.h */
	bool seal;			  /* deliveries are sealed */
	struct seal_key *seal_keys;	  /* of groups' streams, by group; seal.h */
	const struct kernels *kernels;
	struct rte_mempool *pool;    /* what is received */
	struct rte_mempool *tx_pool; /* what is sent; the same one where the port needs that */
	uint16_t port_id;
	uint8_t mac[6];
	unsigned worker_cnt;
	uint32_t request_cnt;  /* power of two, checked */
	unsigned rx_queue_cnt; /* worker i polls queue i where i < rx_queue_cnt */
	unsigned tx_queue_cnt; /* workers below own groups; the others send through these */
	struct worker *workers[FAN_WORKERS_MAX];
	/* rings[kind][from][to]; NULL where from == to */
	struct rte_ring *rings[HANDOVER_KIND_CNT][FAN_WORKERS_MAX][FAN_WORKERS_MAX];
	bool draining; /* __atomic: receive no more */
	bool stopping; /* __atomic: leave the loop */
};

#define FRAME_HEADERS_MAX 64 /* Ethernet, IPv6 and UDP take 62 */

/* Constant part of every frame to one next hop, valid for one burst. */
struct frame_template {
	uint64_t burst;	  /* worker.burst_no that it was made in; 0: never */
	uint32_t ip_sum;  /* partial sum of the constant IPv4 words; 0 for IPv6 */
	uint32_t udp_sum; /* partial sum of source address, protocol and source port */
	uint16_t mtu;
	uint8_t family;
	uint8_t len;	/* Ethernet, IP and UDP headers */
	uint8_t reason; /* enum fan_counter: why nothing can be sent there */
	bool usable;
	uint8_t bytes[FRAME_HEADERS_MAX];
};

/* Frames of one kind and length that stand one behind the other in the transmit burst. */
struct tx_run {
	uint16_t kind; /* index of tx_sent */
	uint16_t cnt;
	uint16_t len; /* bytes */
};

/* Index of tx_sent for packets that are no copy of an event. */
enum {
	SENT_ACK = STAGE_MAX,
	SENT_CHALLENGE,
	SENT_REPLAY,
	SENT_STATUS,
	SENT_LOST,
	SENT_SLICES,
	SENT_CNT = SENT_SLICES + SLICES_MAX
};

/* Endpoints that are still to be served. */
struct block {
	const struct fan_endpoint *endpoints;
	uint32_t cnt;
};

/* A group's events that go on in later bursts, the first of them under way or not; flows.h. */
struct flow {
	uint64_t hash; /* of handle and channel */
	struct rte_mbuf *first, *last;
	unsigned cnt;
	const struct fan_group *group; /* of the one under way; NULL: none is */
	struct block rest;	       /* its */
};

/* A part of a flow's event that left in this burst. */
struct slice {
	struct rte_mbuf *event;
	const struct fan_group *group;
	bool ended;
};

/* Copies in this burst of the groups that have this place. */
struct group_share {
	uint32_t burst; /* its low bits */
	uint32_t used;
};

/* How much one session publishes; admission.h. */
struct session_share {
	uint32_t window;    /* that cnt is of */
	uint32_t cnt, last; /* in this window and the one before */
	uint32_t waiting;   /* publishes */
	struct rte_mbuf *first_waiting, *last_waiting;
	bool listed; /* in the list of those whose publishes wait, or waited */
	struct budget_ahead ahead;
};

struct admission {
	struct session_share *sessions; /* by slot */
	uint32_t window, cnt;		/* number of the window, publishes in it */
	uint32_t active, last_active;	/* sessions in it, and in the one before */
	uint64_t others_tsc;		/* when there was last more than one */
	uint32_t waiting;		/* publishes of all sessions, at most ADMISSION_QUEUE */
	uint32_t list_first, list_cnt;
	uint32_t slots[ADMISSION_QUEUE]; /* of sessions; they take turns */
};

struct worker {
	struct plane *plane;
	unsigned idx;
	struct fan_worker_state *shared; /* in the state region: ours to write */
	uint64_t burst_no;
	uint64_t now_ns; /* CLOCK_REALTIME, once a burst */
	uint64_t monotonic_ns;
	bool unattended; /* fanwired away for too long */

	/* Stages of one burst. */
	unsigned publish_cnt, event_cnt, done_cnt;
	struct rte_mbuf *publishes[STAGE_MAX];	   /* to be opened here */
	const struct fan_group *named[STAGE_MAX];  /* by publishes[i]; NULL: there is none */
	struct rte_mbuf *events[STAGE_MAX];	   /* accepted, of groups that are ours */
	const struct fan_group *groups[STAGE_MAX]; /* of events[i]; NULL: there is none */
	struct rte_mbuf *done[STAGE_MAX];	   /* to be acknowledged here */

	/* Fan-outs of more than a share. */
	unsigned flow_cnt, slice_cnt;
	unsigned flow_event_cnt, flow_event_max; /* that wait in all flows */
	struct flow flows[FLOWS_MAX];
	struct slice slices[SLICES_MAX];
	struct group_share shares[GROUP_SHARES];
	uint64_t mixed_tsc;  /* when another group had an event while there was a flow */
	uint64_t pinned_tsc; /* since when some fan-out has been under way; 0: none is */

	struct admission admission;
	struct log *log;
	struct replay *replay; /* what is to be sent again */
	struct status *status; /* whom to tell the tail of his stream, and when */

	/* Transmission. */
	unsigned tx_cnt, tx_ready, tx_run_cnt;
	struct rte_mbuf *tx[TX_BURST]; /* tx_cnt frames, then empty ones up to tx_ready */
	struct tx_run tx_runs[TX_BURST];
	uint32_t tx_sent[SENT_CNT];	  /* what the port took */
	struct frame_template *templates; /* by next hop */

	/* Acknowledgements: chains of done[] by session slot; 0 ends a chain. */
	uint16_t *ack_first; /* index + 1 of a slot's first */
	uint16_t ack_next[STAGE_MAX];

	uint32_t in_flight[FAN_WORKERS_MAX]; /* events at each other worker; __atomic: main reads */
	uint16_t in_flight_groups[GROUP_PLACES]; /* of them, by their group's hash */
	MB_MGR *crypto;
	struct seal_schedule *schedules; /* of streams; seal.h */
	struct fan_key_roots roots;	 /* of the key generation in force, as of this burst */
	uint8_t epoch_key[32];		 /* of the generator of stream epochs */
	uint64_t epoch_counter;
	uint64_t epochs[EPOCHS_DRAWN]; /* drawn ahead; epoch_left of them not used yet */
	unsigned epoch_left;
	uint64_t next_heartbeat_tsc, heartbeat_tsc;
	unsigned empty_polls;
	uint64_t counters[FAN_COUNTER_CNT]; /* since they were last added to the shared ones */
};

#define COUNT(w, name)	    ((w)->counters[FAN_COUNTER_##name]++)
#define COUNT_N(w, name, n) ((w)->counters[FAN_COUNTER_##name] += (n))

static inline unsigned session_owner(const struct plane *plane, uint64_t session)
{
	return ((uint32_t)session & plane->table.session_mask) % plane->worker_cnt;
}

/* High bits: the low ones choose the bucket. Only a worker that can send by itself owns groups. */
static inline unsigned group_owner(const struct plane *plane, uint64_t hash)
{
	return (unsigned)((hash >> 32) & 0xffff) % plane->tx_queue_cnt;
}

/* ---- life of a worker (worker.c) ---- */

/* Makes worker `idx` of plane; 0 or -errno. Caller: main lcore, before it is launched. */
int worker_create(struct plane *plane, unsigned idx);
void worker_destroy(struct worker *w);

/* ---- the loop (loop.c) ---- */

/* lcore function: runs until plane->stopping. arg: struct worker *. */
int worker_run(void *arg);
/*
 * The pipeline: everything that becomes of one burst of received packets, and of what other workers
 * handed over. Takes the mbufs. Returns what there was to do. The worker's lcore, or a test or
 * benchmark in its place.
 */
unsigned worker_burst(struct worker *w, struct rte_mbuf **received, unsigned cnt);

/* ---- stages, in their order; each takes and leaves the worker's burst arrays ---- */

void parse_burst(struct worker *w, struct rte_mbuf **received, unsigned cnt); /* parse.c */
unsigned handover_collect(struct worker *w);				      /* handover.c */
void lookup_burst(struct worker *w);					      /* lookup.c */
void session_open_burst(struct worker *w);				      /* session.c */
void sequence_burst(struct worker *w);					      /* sequence.c */
void header_burst(struct worker *w);					      /* fanout.c */
void seal_burst(struct worker *w);					      /* seal.c */
void tag_burst(struct worker *w);					      /* tag.c */
void log_burst(struct worker *w);					      /* log.c */
void fanout_burst(struct worker *w);					      /* fanout.c */
void session_finish_burst(struct worker *w);				      /* session.c */
void ack_burst(struct worker *w);					      /* ack.c */

/* ---- between stages ---- */

/* Appends to a stage's array; the sizes of the sources guarantee room. */
void stage_add(struct rte_mbuf **stage, unsigned *cnt, struct rte_mbuf *mbuf);
void packet_drop(struct worker *w, struct rte_mbuf *mbuf, enum fan_counter reason);
