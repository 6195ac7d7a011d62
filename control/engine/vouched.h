/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Vouched connections: of a user, at an address and port that an administrator vouches for, within
 * scope.vouched. No socket of ours, no token, no challenge, no lease: they last until they are
 * removed or their user is revoked. The database has a row of each, the registry region its
 * record; neither a user nor a registration of the heap stands for it, so that millions of them
 * cost a restart nothing.
 *
 * A change is durable, then made in the region, then answered. What falls between is made up for at
 * the next start (vouched_open). One batch is under way at a time; others wait for it.
 * Event-loop thread only.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/engine/engine.h"
#include "control/messages.h"

#define VOUCHED_LINES_MAX 16384		     /* of one batch */
#define VOUCHED_BODY_MAX  (4u * 1024 * 1024) /* bytes of one batch */

struct registry_connection;
struct vouched;

/*
 * After the registrations: takes up what the region holds; makes up for what a crash cut off;
 * begins to load all of the database where the region is another one. `why`: a damaged database.
 */
int vouched_open(struct vouched **vouched, struct engine *engine, char why[1024]);
void vouched_close(struct vouched *vouched);
/* Goes on with what waits for the dataplane to let go of something. */
void vouched_tick(struct vouched *vouched, struct moment now);

/* What became of a request, for its answer. */
struct vouched_answer {
	int status;	   /* of HTTP */
	const char *error; /* NULL: done */
	char message[400];
	uint64_t batch;
	uint32_t added, replaced, unchanged, removed;
	uint32_t waiting; /* of the replaced: in the table once the dataplane has let go */
	bool more;	  /* of a removal: there are more; ask again */
};
typedef void (*vouched_done)(void *arg, const struct vouched_answer *answer);

/* Lines as vouch_line.h reads them, all or none. The body is the caller's until `done`. */
void vouched_import(struct vouched *vouched, char *body, size_t len, uint32_t uid,
		    vouched_done done, void *arg);
/* Which to remove: one of the four. */
struct vouched_selection {
	uint64_t id;	  /* or 0 */
	const char *user; /* or NULL */
	uint64_t batch;	  /* or 0 */
	uint64_t row;	  /* or 0; also one that is damaged */
};
void vouched_remove(struct vouched *vouched, const struct vouched_selection *selection,
		    uint32_t uid, vouched_done done, void *arg);

/*
 * A revocation: the rows go in the turn's transaction, with the user's new generation; then, once
 * that is durable and before the registry ends them, their places begin to rest.
 */
int vouched_revoke_rows(struct vouched *vouched, const uint8_t handle[16]);
/* Also where it failed (status): each revoke_rows once. Returns how many there were. */
unsigned vouched_on_revoked(struct vouched *vouched, const uint8_t handle[16], int status);
/* The registry has ended them. */
void vouched_revoke_done(struct vouched *vouched);

/*
 * Registrations that name a place of their own, not of this host's scoped sockets: theirs while
 * they stand (has_place does not look at them), and resting once they leave.
 */
bool vouched_has_place(struct vouched *vouched, const struct message_address *place);
void vouched_rest_place(struct vouched *vouched, const struct message_address *place, uint64_t id);

/* The registry let go of a record: true where it was a vouched one. */
bool vouched_on_free(struct vouched *vouched, uint64_t id);

/* Array of those after a row, or of a user; *next: what to go on after, or 0. */
json_t *vouched_list(struct vouched *vouched, const char *user, uint64_t after, unsigned limit,
		     uint64_t *next);
/* Name of the user of a vouched record, or null. */
json_t *vouched_user(struct vouched *vouched, const struct registry_connection *connection);

struct vouched_status {
	uint64_t total;	  /* in the table */
	uint32_t waiting; /* durable changes that wait for the dataplane to let go of something */
	bool loading;
	uint64_t loaded, to_load;
	const char *failed; /* why loading ended before its time, or "" */
};
bool vouched_is_loading(const struct vouched *vouched);
/* For limits: those that are not loaded yet included. NULL: none. */
uint32_t vouched_count(const struct vouched *vouched);
void vouched_status(const struct vouched *vouched, struct vouched_status *status);
