/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Users that Fanwire has met: name, handle, generation; a cache of the database's table. It holds
 * all that were revoked, all that are in use, and some more; the rest is looked up on demand, so
 * that a start does not depend on how many there are. A user's row is durable before its first
 * grant. Never-revoked users without a connection are forgotten when room is needed; revoked ones
 * never, for their generation counts. A user that an administrator vouches for needs no row.
 * Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"

struct store;
struct users;

struct registration;

struct user {
	struct user *next; /* of its hash chain */
	uint8_t handle[FAN_HANDLE_LEN];
	uint32_t generation;		    /* from 1; durable */
	uint32_t next_generation;	    /* of a revocation that is being written */
	struct registration *registrations; /* the registrations' own list */
	uint32_t connections; /* registrations; the registrations' own count, pins the user */
	uint32_t recorded;    /* of these, in the registry */
	uint32_t pins;	      /* of unfinished writes */
	bool durable;
	uint8_t name_len; /* bytes */
	char name[FAN_NAME_MAX + 1];
};

/* Loads those that were revoked. `max`: users that were never revoked. */
int users_open(struct users **users, struct store *store, uint32_t max, char why[1024]);
void users_close(struct users *users);

/* NULL: never met, or forgotten. Pinned by nobody: good until the next find or get. */
struct user *users_find(struct users *users, const uint8_t handle[FAN_HANDLE_LEN]);
/* 1 of one that was never revoked, met or not. Does not ask the database. */
uint32_t users_generation(const struct users *users, const uint8_t handle[FAN_HANDLE_LEN]);
/*
 * The user of a name, added where it is new (look at ->durable). -EINVAL a bad name; -EEXIST
 * another name has this handle; -EDQUOT max users are connected; or the store's error.
 */
int users_get(struct users *users, const char *name, size_t name_len, struct user **user);
/*
 * Counts the generation up. Once that is durable, or failed, calls back; user->generation is the
 * new one from then on. -EOVERFLOW after 2^32 - 1 revocations.
 */
typedef void (*users_on_revoked)(void *arg, struct user *user, int status);
int users_revoke(struct users *users, struct user *user, users_on_revoked done, void *arg);
/* Rows in the database. */
uint32_t users_count(struct users *users);
