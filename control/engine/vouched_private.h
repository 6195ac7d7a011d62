/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the vouched connections: vouched.c keeps them and makes changes in the region,
 * vouched_batch.c judges what an administrator sends, vouched_rows.c is their table in the
 * database, vouched_load.c fills a region from it and makes up for what a crash cut off.
 */
#pragma once

#include "common/wire/handle.h"
#include "control/engine/places.h"
#include "control/engine/vouched.h"
#include "control/messages.h"
#include "control/registry/registry.h"

struct sqlite3_stmt;

enum fate {
	FATE_ADD,
	FATE_REPLACE, /* the same connection at another place */
	FATE_KEEP,    /* it is so already */
};
/* One that is to stand in the region. */
struct vouch {
	uint64_t id, mark, row, since_s;
	uint8_t handle[FAN_HANDLE_LEN];
	struct message_address address;
	const char *user; /* of the caller's memory; not terminated */
	uint32_t line, hop, generation;
	uint8_t user_len;
	enum fate fate;
	bool done;
};
/* A vouched record has no token: that field, of 32 bits, keeps the number of its row. */
#define vouched_row(connection) ((connection)->token_expiry_s)
#define ROW_MAX			UINT32_MAX

/* What is being made in the region. */
struct work {
	struct vouch *items;
	uint32_t cnt, left;
	uint64_t first, last; /* rows that the added ones got; 0: none */
	bool undo;	      /* those that find no room for good take all of the added ones back */
	struct vouched_answer answer;
	vouched_done done; /* NULL: nobody waits */
	void *arg;
	uint64_t answer_by_ns;
	uint32_t uid;
};

/* A call that waits for the work under way. */
struct queued {
	struct queued *next;
	bool import;
	char *lines; /* the caller's */
	size_t len;
	struct vouched_selection selection;
	char user[FAN_NAME_MAX + 1];
	uint32_t uid;
	vouched_done done;
	void *arg;
};

/* The place of one that has left the table rests with it. */
struct leaving {
	struct leaving *next;
	uint64_t id, mark;
	bool vouched; /* else a registration: its port is the agent's to free */
};
#define LEAVING_CHAINS 4096 /* power of two */

struct vouched_rows {
	struct store *store;
	uint8_t id_key[crypto_shorthash_KEYBYTES]; /* of ids that a line does not give */
	struct sqlite3_stmt *insert, *move, *remove, *remove_run, *read, *run, *max, *count;
	struct sqlite3_stmt *batch_add, *batch_sign, *batch_find, *batch_remove;
	struct sqlite3_stmt *open_add, *open_sign, *open_list, *open_clear;
	struct sqlite3_stmt *state_read, *state_clear, *state_write;
};

struct vouched {
	struct engine *engine;
	struct vouched_rows rows;
	struct places places;
	uint32_t places_cursor; /* records before it are in `places` */
	bool places_whole;
	struct leaving *leaving[LEAVING_CHAINS];
	uint32_t cnt; /* in the region */
	uint64_t next_row;
	struct work work;
	bool working;
	unsigned revoking; /* revocations that are not durable yet */
	struct queued *queue, **queue_end;
	/* Loading. */
	struct event *on_load;
	bool loading;
	uint64_t load_row, loaded, to_load;
	uint64_t damaged, first_damaged; /* rows that are not as they were written */
	char load_failed[400];		 /* "": it did not */
};

/* ---- vouched.c ---- */
/* The place of one that leaves the table rests until it has. */
void vouched_rest(struct vouched *v, uint64_t id, uint64_t mark);
/* Of its place. */
uint64_t vouched_mark(const struct vouched *v, const struct registry_connection *c);
/* Out of the region; its place rests. */
int vouched_end(struct vouched *v, const struct registry_connection *c);
/* 0, -EAGAIN: the dataplane has to let go of something first; or -errno. */
int vouched_apply(struct vouched *v, struct vouch *item);
/* All places are known from then on. */
void vouched_know_places(struct vouched *v, uint32_t records_max);

/* ---- vouched_work.c ---- */
/* Into the region as far as it takes them now; the rest at the ticks. */
void vouched_work(struct vouched *v, struct moment now);
/* Answers all who wait. */
void vouched_work_close(struct vouched *v);
/* The region is as the rows say; unless something is between its commit and the region. */
void vouched_close_open_rows(struct vouched *v);
/* True: refused, for the rows are being loaded. */
bool vouched_refuse_loading(struct vouched *v, vouched_done done, void *arg);
/* A place behind the work under way, or NULL: it was refused. */
struct queued *vouched_queue_up(struct vouched *v, uint32_t uid, vouched_done done, void *arg);

/* ---- vouched_remove.c ---- */
void vouched_remove_now(struct vouched *v, const struct vouched_selection *selection, uint32_t uid,
			vouched_done done, void *arg);

/* ---- vouched_batch.c ---- */
/* Judges a body; true: v->work holds it, durable. Else *answer says what is wrong with it. */
bool vouched_batch_take(struct vouched *v, char *body, size_t len, uint32_t uid, struct moment now,
			struct vouched_answer *answer);
/* ---- vouched_judge.c ---- */
/* Whether a place may be vouched for at all; or a sentence. */
bool vouched_place_ok(const struct fan_config *config, const struct message_address *address,
		      char why[256]);
/* Whether it is in the range of this host's scoped sockets. */
bool vouched_place_is_scoped(const struct fan_config *config, const struct message_address *place);
void vouched_rules(const struct fan_config *config, uint8_t rules[FAN_HANDLE_LEN]);

/* A registration that names a place of its own. */
struct registered {
	uint64_t mark;
	const struct user *user;
};
/* What a batch has named so far. */
#define VOUCHED_SEEN_CNT (4 * VOUCHED_LINES_MAX) /* power of two */
struct seen {
	uint64_t key;
	uint32_t value;
};
struct judging {
	struct vouched *v;
	struct vouched_answer *answer;
	uint32_t uid;
	struct seen *ids, *marks, *users; /* line; line; connections added */
	struct registered *registered;	  /* in order of their marks */
	uint32_t registered_cnt;
	uint32_t new_users;
	const struct vouch *item; /* under judgement */
	struct registry_counts counts;
	uint32_t socket_cnt; /* registrations that come with a socket */
};
/* Says why in the answer, with the line under judgement; false. */
__attribute__((format(printf, 4, 5))) bool
vouched_refuse(struct judging *j, int status, const char *error, const char *format, ...);
/* All items of the work; false: refused. */
bool vouched_judge_all(struct judging *j);

/* ---- vouched_load.c ---- */
int vouched_load_open(struct vouched *v, char why[1024]);
void vouched_load_close(struct vouched *v);
/* So many damaged rows were removed. */
void vouched_damaged_removed(struct vouched *v, unsigned cnt);

/* ---- vouched_rows.c: 0 or the store's -errno ---- */
bool rows_prepare(struct vouched_rows *rows, struct store *store);
uint64_t rows_max(struct vouched_rows *rows);
uint64_t rows_count(struct vouched_rows *rows);
int rows_insert(struct vouched_rows *rows, const struct vouch *item);
int rows_move(struct vouched_rows *rows, const struct vouch *item);
int rows_remove(struct vouched_rows *rows, uint64_t row);
int rows_remove_run(struct vouched_rows *rows, uint64_t first, uint64_t last);
/*
 * A row into *item (its user's name into `name`). 1: it is there; 0: not; -EPROTO: it is not as it
 * was written.
 */
int rows_read(struct vouched_rows *rows, uint64_t row, struct vouch *item,
	      char name[FAN_NAME_MAX + 1]);
/*
 * The next up to max rows after `after` and up to `last`, names in `names`; how many, or -errno.
 * One that is not as it was written has its number and no user.
 */
int rows_run(struct vouched_rows *rows, uint64_t after, uint64_t last, struct vouch *items,
	     char (*names)[FAN_NAME_MAX + 1], unsigned max);
int rows_batch_add(struct vouched_rows *rows, uint64_t first, uint64_t last, uint64_t *batch);
/* 1: there is such a batch; -EPROTO: it is not as it was written. */
int rows_batch_find(struct vouched_rows *rows, uint64_t batch, uint64_t *first, uint64_t *last);
int rows_batch_remove(struct vouched_rows *rows, uint64_t batch);
/* Rows first..last, or the one row of `id`: the region may not be as they say yet. */
int rows_open_add(struct vouched_rows *rows, uint64_t first, uint64_t last, uint64_t id);
/* Calls `each` for all of these, in their order. -EPROTO: one is not as it was written. */
typedef int (*rows_on_open)(void *arg, uint64_t first, uint64_t last, uint64_t id);
int rows_open_each(struct vouched_rows *rows, rows_on_open each, void *arg);
/* The region is as they say: with the next commit. */
int rows_open_clear(struct vouched_rows *rows);
/* The region that all rows were loaded into, and the rules they were judged by. */
bool rows_state(struct vouched_rows *rows, uint64_t *region, uint8_t rules[FAN_HANDLE_LEN]);
int rows_state_write(struct vouched_rows *rows, uint64_t region,
		     const uint8_t rules[FAN_HANDLE_LEN]);
