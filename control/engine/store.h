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

struct event_base;
struct sqlite3;
struct sqlite3_stmt;
struct store;

/*
 * Opens or creates `path` and checks it whole. Refused with a sentence in `why`: damaged, not ours,
 * another schema's, not writable.
 */
int store_open(struct store **store, struct event_base *base, const char *path, char why[1024]);
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

/* status 0 once all earlier writes are durable, or -errno: none of this turn's happened. */
typedef void (*store_done)(void *arg, int status);
void store_on_durable(struct store *store, store_done done, void *arg);
/* Commits now, and calls back from within. */
void store_flush(struct store *store);

int64_t store_last_row(const struct store *store);
struct store_counts {
	uint64_t writes, commits, failures;
};
void store_counts(const struct store *store, struct store_counts *counts);
/* Sentence about the last failure; "" where there was none. */
const char *store_why(const struct store *store);
