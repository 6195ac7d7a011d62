/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of control/registry share. Nothing outside that folder includes this but its
 * tests. One thread; the region's readers are other processes.
 *
 * layout.c the region's geometry; bucket.c the hash table; group.c groups and their blocks;
 * change.c activation, deletion, revocation; compact.c room for blocks; intent.c the log of the
 * change in progress; keys.c roots and rotation; retire.c what waits for its grace period; sweep.c
 * rebuilds all private memory from the region; dataplane.c the state region and the two rings;
 * ahead.c asks for memory before it is touched.
 */
#pragma once

#include <stddef.h>

#include "control/registry/block.h"
#include "control/registry/index.h"
#include "control/registry/registry.h"

#define NONE		UINT32_MAX
#define CHANNELS_MAX	64 /* of one activation, ALL not counted */
#define MEMBERSHIPS_MAX (CHANNELS_MAX + 1)
#define BATCHES_MAX	8
#define WHY_LEN		1024

/* ---- private records: each belongs to the region's record of the same index ---- */

/* Lingering groups, by deadline: linger_s is one for all. */
struct linger_list {
	uint32_t first, last;
};
enum linger_of { LINGER_OF_ALL, LINGER_OF_USER, LINGER_LISTS };

/* A user with a live connection or a group. Lists hold indices, NONE at the end. */
struct user {
	uint8_t handle[16];
	uint32_t connections; /* first live (PENDING or ACTIVE) one */
	uint32_t groups;      /* first one in the table */
	uint32_t ending;      /* first ENDING connection that is known to be his */
	uint32_t connection_cnt, group_cnt;
	struct linger_list lingering;
};

struct link {	       /* place in the user's list */
	uint32_t user; /* of a connection NONE: not known, after a takeover */
	uint32_t prev, next;
};

struct connection_books {
	struct link link;
	uint32_t memberships; /* first membership */
};

/* What a group that does not linger has no need of stands apart from its link. */
struct group_books {
	struct {
		uint32_t prev, next;
	} linger[LINGER_LISTS];
	uint64_t linger_until_ns; /* 0: does not linger */
};

/* A connection stands in a group. One for each endpoint in use. */
struct membership {
	uint32_t group;
	uint32_t next; /* of the same connection */
};

/* Free indices of an array; those from `fresh` on were never taken, and are not written down. */
struct stack {
	uint32_t *items;
	uint32_t cnt, max;
	uint32_t fresh, fresh_end;
};

/* ---- reclamation ---- */

enum retired_kind {
	RETIRED_BLOCK, /* idx, cnt: endpoints */
	RETIRED_GROUP,
	RETIRED_BUCKET,
	RETIRED_CONNECTION,
	RETIRED_SESSION,
};
#define RETIRED_KIND_BITS 3
struct retired {
	uint32_t idx;
	uint32_t cnt_kind; /* cnt << 3 | kind */
};

/* Everything retired up to `end`, and what the workers' words were after it was unlinked. */
struct batch {
	uint32_t end;  /* free-running count of retired items */
	bool takeover; /* the first batch of a takeover: with it, all that was found free is */
	uint64_t since_ns;
	uint64_t words[FAN_WORKERS_MAX]; /* odd: still to be waited for */
	uint32_t request_head;		 /* requests before it may name what is in the batch */
};
struct retirement {
	struct retired *items; /* ring; it holds everything that can be retired at once */
	uint32_t mask;
	uint32_t head, tail; /* free-running; `snapped` up to here in a batch */
	uint32_t snapped;
	uint32_t polled; /* head at the last poll */
	struct batch batches[BATCHES_MAX];
	uint32_t batch_head, batch_tail;
};

/* ---- one change while it is planned ---- */

struct plan {
	uint64_t channel;
	uint64_t hash;
	uint32_t group;	    /* as it is in the table, or NONE */
	uint32_t new_group; /* takes its place, or NONE: it stays */
	uint32_t block;	    /* first endpoint of the new block, or NONE: shrinks where it is */
	uint32_t block_cnt;
};

struct registry {
	struct fan_region region;
	struct fan_table table;
	/* The same memory, to be written. */
	struct fan_registry *root;
	struct fan_bucket *buckets;
	struct fan_group *groups;
	struct fan_endpoint *endpoints;
	struct fan_connection *connections;
	struct fan_session *sessions;
	struct fan_nexthop *nexthops;
	struct fan_request *requests;

	/* Configuration. */
	char path[FAN_PATH_MAX + 16];
	char state_path[FAN_PATH_MAX + 16];
	uint32_t groups_max;	  /* in the table at once */
	uint32_t user_groups_max; /* of one user, beyond which none of his linger */
	uint32_t connections_max; /* PENDING and ACTIVE */
	uint32_t reserve; /* endpoints that only deletions may take: what one can copy at most */
	uint64_t linger_ns;

	/* Books. */
	struct index ids;     /* connection id -> index of its record */
	struct index handles; /* user handle -> user */
	uint64_t index_seed[2];
	struct user *users;
	struct connection_books *connection_books;
	struct link *group_links;
	struct group_books *group_books;
	struct membership *memberships;
	struct stack free_users, free_connections, free_groups, free_overflow, free_sessions;
	struct stack free_memberships;
	uint32_t sockets;	/* records that are not FREE and not vouched */
	uint32_t groupless;	/* ACTIVE records that a takeover has met in no group yet */
	struct stack unsettled; /* PENDING and ENDING records that a takeover has met */
	struct block_pool blocks;
	uint32_t gap;	    /* endpoint where the free run begins that compact() moves on */
	uint32_t gap_rests; /* until so many retired ones have been released */
	struct linger_list lingering;
	struct registry_counts counts;

	/* Reclamation. */
	struct retirement retirement;
	bool resting;	      /* after a takeover: what is free may not be taken yet */
	struct stack leaving; /* ENDING, and in groups until there is memory to copy their blocks */
	struct stack freed;   /* connections past their grace period, to be told at housekeeping */
	registry_on_free on_free;
	void *on_free_arg;

	/* The dataplane's region. */
	struct fan_region state_region; /* base NULL: none */
	struct fan_region stale_region; /* replaced since the last housekeeping */
	const struct fan_state *state;
	/* In it, as checked when it was opened: what its root says later is not asked. */
	const struct fan_worker_state *workers;
	const struct fan_group_state *group_states;
	uint32_t group_state_cnt;
	uint64_t state_refused; /* creation epoch of the last one that was told to be corrupt */
	uint64_t state_looked_ns;
	uint64_t dead_beat_ns;	/* see registry_dataplane_look() */
	unsigned report_worker; /* to look at first, for fairness */

	uint32_t rewritten; /* groups in front of this one have tag keys of the generation in force
			     */
	uint64_t now_ns;
	struct plan plan[MEMBERSHIPS_MAX];
	unsigned plan_cnt;
	uint64_t random[32];
	unsigned random_left;
	registry_step step;
	void *step_arg;
	char why[WHY_LEN];
};

/* Before each store of a change. */
static inline void step(const struct registry *r, const char *name)
{
	if (r->step)
		r->step(r->step_arg, name);
}

__attribute__((format(printf, 3, 4))) int registry_fail(struct registry *r, int rc,
							const char *format, ...);

/* ---- layout.c ---- */
int layout_open(struct registry *r, const struct fan_config *config, bool *is_new);

/* ---- books.c ---- */
int books_init(struct registry *r);
void books_fini(struct registry *r);
bool stack_init(struct stack *stack, uint32_t max);
void stack_fini(struct stack *stack);
uint32_t stack_pop(struct stack *stack); /* NONE when empty */
void stack_push(struct stack *stack, uint32_t idx);
uint32_t connection_find(const struct registry *r, uint64_t id);
uint32_t user_find(const struct registry *r, const uint8_t handle[16]);
uint64_t id_hash(const struct registry *r, uint64_t id);
void ids_add(struct registry *r, uint32_t connection);
void ids_del(struct registry *r, uint32_t connection);
/* Into and out of the user's lists; the user's record comes and goes with them. */
void user_link_connection(struct registry *r, uint32_t connection, const uint8_t handle[16]);
void user_link_known(struct registry *r, uint32_t connection, uint32_t user);
/* Asks for the memory that finding or making the user touches first. */
void user_prefetch(const struct registry *r, const uint8_t handle[16]);
/* From the live ones to the ENDING ones, and from those, if it is there, to nowhere. */
void user_unlink_connection(struct registry *r, uint32_t connection);
void user_link_ending(struct registry *r, uint32_t connection, uint32_t user);
void user_unlink_ending(struct registry *r, uint32_t connection);
void user_link_group(struct registry *r, uint32_t group);
void user_unlink_group(struct registry *r, uint32_t group);
void membership_add(struct registry *r, uint32_t connection, uint32_t group);
void membership_del(struct registry *r, uint32_t connection, uint32_t group);
bool membership_has(const struct registry *r, uint32_t connection, uint32_t group);

/* ---- connection.c ---- */
enum fan_connection_state connection_state(const struct fan_connection *connection);
/* One word, with release: what the state says of the record and its groups is written. */
void connection_set_state(struct fan_connection *connection, enum fan_connection_state state);
/* Of its user; zeros where that is not known. */
const uint8_t *connection_handle(const struct registry *r, uint32_t connection);

/* ---- bucket.c ---- */
uint64_t group_hash(const struct registry *r, uint32_t group);
/* Index of the group in the table, or NONE. */
uint32_t bucket_find(const struct registry *r, const uint8_t handle[16], uint64_t channel,
		     uint64_t hash);
/* Empty slots in the chain of this hash. */
unsigned bucket_room(const struct registry *r, uint64_t hash);
/* Cannot fail: an overflow bucket is there if bucket_room() was 0. */
void bucket_add(struct registry *r, uint64_t hash, uint32_t group);
/* `group` takes the slot of `old`, which has the same key. */
void bucket_swap(struct registry *r, uint64_t hash, uint32_t old, uint32_t group);
void bucket_del(struct registry *r, uint64_t hash, uint32_t group);
/* Unlinks the overflow buckets of a first-level bucket that are empty. */
void bucket_trim(struct registry *r, uint32_t first);

/* ---- group.c ---- */
uint32_t group_block(const struct registry *r, uint32_t group, uint32_t *first);
void group_publish(struct registry *r, uint32_t group, uint64_t first, uint32_t cnt);
/* Place of a connection in a group's block, or NONE. */
uint32_t group_position(const struct registry *r, uint32_t group, uint64_t connection);
/* Out of the table; its block and record are retired; no connection is told. */
void group_unlink(struct registry *r, uint32_t group);
void group_linger_begin(struct registry *r, uint32_t group);
void group_linger_end(struct registry *r, uint32_t group);
/* Ends the groups whose time is over. */
void group_linger_expire(struct registry *r);
/*
 * Ends up to cnt lingering groups before their time, the longest lingering first; user NONE: of
 * all users. Not those that the plan takes up. Returns how many.
 */
uint32_t group_linger_shed(struct registry *r, uint32_t user, uint32_t cnt);

/* ---- change.c ---- */
/* A channel or a group that the present plan has already. */
bool planned(const struct registry *r, uint64_t channel);
bool planned_group(const struct registry *r, uint32_t group);
/* The steps of a deletion: `plan` reserves what it needs or fails with -ENOSPC. */
int leave_plan(struct registry *r, uint32_t connection);
void leave_run(struct registry *r, uint32_t connection);
void revoke_run(struct registry *r, const uint8_t handle[16]);
/* ACTIVE or PENDING -> ENDING, and out of the user's list. */
void connection_end(struct registry *r, uint32_t connection);
/* ENDING already: out of its groups at the next housekeeping that has memory for it. */
void connection_leave_later(struct registry *r, uint32_t connection);
/* Finishes such deletions as far as there is memory. */
void leaving_finish(struct registry *r);

/* ---- compact.c ---- */
/* A little at a time, at housekeeping: makes a long run of the holes that small blocks leave. */
void compact(struct registry *r);

/* ---- intent.c ---- */
enum intent_op { INTENT_NONE, INTENT_ACTIVATE, INTENT_DEL, INTENT_REVOKE };
struct intent_args {
	uint64_t connection;
	uint32_t generation;
	uint32_t channel_cnt;
	uint64_t incarnation; /* groups from here on were made by this change */
	uint8_t handle[16];
	struct registry_user_keys keys;
	uint64_t channels[MEMBERSHIPS_MAX];
};
_Static_assert(sizeof(struct intent_args) <= sizeof(((struct fan_intent *)0)->args),
	       "an intent's arguments fit");
void intent_begin(struct registry *r, enum intent_op op, const struct intent_args *args);
void intent_end(struct registry *r);
/* Finishes (deletion, revocation) or undoes (activation) the change in progress. -EPROTO. */
int intent_redo(struct registry *r);

/* ---- retire.c ---- */
int retire_init(struct registry *r);
void retire_fini(struct registry *r);
void retire(struct registry *r, enum retired_kind kind, uint32_t idx, uint32_t cnt);
/* Everything that a takeover found free rests until every worker has passed. */
void retire_takeover(struct registry *r);
/* Frees what has rested long enough, and lets what is new begin to rest. */
void retire_poll(struct registry *r);
/* Words read anew for every batch: there is another state region. */
void retire_resnap(struct registry *r);
/* Tells the owner of each connection that is past its grace period. */
void retire_tell(struct registry *r);
/* As block_alloc() and stack_pop(), but none while resting, and after an attempt to reclaim. */
uint32_t take_block(struct registry *r, uint32_t cnt, uint32_t reserve);
uint32_t take_index(struct registry *r, struct stack *stack);
/* -ENOSPC, and a sentence: what is full, and whether reclamation is what it waits for. */
int registry_no_space(struct registry *r, const char *what, const char *limit);

/* ---- ahead.c ---- */
#define REGISTRY_AHEAD 8 /* items that what follows is asked for before */
/* Asks for what the end of a lingering group, the release of an item, and the last of
 * retire_tell()'s connections but REGISTRY_AHEAD will touch. */
void ahead_group_end(const struct registry *r, uint32_t group);
void ahead_release(const struct registry *r, struct retired item);
void ahead_tell(const struct registry *r);

/* ---- keys.c ---- */
/* The next part of the groups' tag keys after a switch. */
void keys_rewrite(struct registry *r);

/* ---- sweep.c ---- */
int sweep(struct registry *r);

/* ---- dataplane.c ---- */
/* Attaches to the state region where there is another one; now: do not wait for the next look. */
void dataplane_refresh(struct registry *r, bool now);
bool dataplane_alive(const struct registry *r);

/* ---- session.c ---- */
uint64_t draw_random(struct registry *r);

/* ---- registry.c ---- */
uint64_t monotonic_ns(void);
