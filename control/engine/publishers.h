/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishers' credentials: a name, a scope (any user, or one), the salted hash of a secret that is
 * shown once. A cache of the database's table, whole. Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"

#define PUBLISHER_SECRET_LEN 64 /* hex digits of 32 random bytes */

struct store;
struct publishers;

struct publisher {
	struct publisher *next;
	uint64_t id;	    /* row: never given twice */
	uint64_t created_s; /* Unix time */
	bool durable;	    /* a credential counts from then on */
	bool removing;
	char name[FAN_NAME_MAX + 1];
	char user[FAN_NAME_MAX + 1]; /* "": any user */
	uint8_t salt[16];
	uint8_t hash[32];
};

int publishers_open(struct publishers **publishers, struct store *store, uint32_t max,
		    char why[1024]);
void publishers_close(struct publishers *publishers);
const struct publisher *publishers_first(const struct publishers *publishers);
const struct publisher *publishers_find(const struct publishers *publishers, const char *name);

/* The publisher that the secret belongs to, or NULL; takes as long for an unknown name. */
const struct publisher *publishers_check(const struct publishers *publishers, const char *name,
					 const char *secret);
/*
 * Adds one; `secret` gets what to show. Gone again if it cannot be made durable. -EEXIST the name
 * is taken; -EDQUOT max publishers; or the store's error.
 */
int publishers_add(struct publishers *publishers, const char *name, const char *user,
		   uint64_t now_s, char secret[PUBLISHER_SECRET_LEN + 1]);
/* Calls back with status 0 once it is durably gone (the pointer is freed afterwards). -ENOENT. */
typedef void (*publishers_on_removed)(void *arg, const struct publisher *publisher, int status);
int publishers_remove(struct publishers *publishers, const char *name, publishers_on_removed done,
		      void *arg);
