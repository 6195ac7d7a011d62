/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The database: what outlives a boot. SQLite, WAL, synchronous=FULL.
 *
 * Group commit: writes of one turn of the event loop share a transaction. store_on_durable() calls
 * back once it is on disk, or with an error when it could not be; answers that promise durability
 * wait for that. Writes that nobody waits for (audit rows) are committed within 100 ms.
 * Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/engine/row_mac.h"

struct event_base;
struct sqlite3;
struct sqlite3_stmt;
struct store;

/* Whose the database is: the keys beside it. */
#define STORE_ID_LEN 16
struct store_owner {
	uint8_t id[STORE_ID_LEN];
	uint8_t row_key[ROW_MAC_KEY_LEN];
	bool fresh; /* the keys were just made: then the database may be missing, or be another's */
};

/*
 * Opens or creates `path` and checks each table but the vouched connections'. Refused with a
 * sentence in `why`: damaged, not ours, another schema's, not writable; and missing, empty or
 * another's while the keys are there, for then it was lost, and with it the revocations.
 */
int store_open(struct store **store, struct event_base *base, const char *path,
	       const struct store_owner *owner, char why[1024]);
/* Commits what is pending, calls back, closes. */
void store_close(struct store *store);

/* A prepared statement that the store finalises; NULL where memory is exhausted. */
struct sqlite3_stmt *store_prepare(struct store *store, const char *sql);

/*
 * Runs a bound statement inside the turn's transaction and resets it. -EEXIST: a constraint;
 * -ENOSPC: the disk is full; -EIO. On the last two the whole turn's transaction is undone, and all
 * who wait for it are told so.
 */
int store_write(struct store *store, struct sqlite3_stmt *stmt);

/* Undoes the turn, as a write that failed does: for who has to have all of several writes or none.
 */
void store_undo(struct store *store);

/*
 * What this turn has written must not be lost with the -wal file: it is in the main file when those
 * who wait for it are called.
 */
void store_settle(struct store *store);

/* status 0 once all earlier writes are durable, or -errno: none of this turn's happened. */
typedef void (*store_done)(void *arg, int status);
void store_on_durable(struct store *store, store_done done, void *arg);
/* Commits now, and calls back from within. */
void store_flush(struct store *store);

int64_t store_last_row(const struct store *store);
struct store_counts {
	uint64_t writes, commits, failures;
	uint64_t cache_bytes; /* SQLite's pages in memory: at most some 2 MiB */
};
void store_counts(const struct store *store, struct store_counts *counts);
/* Sentence about the last failure; "" where there was none. */
const char *store_why(const struct store *store);
