/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The audit: who did what, and what was kept from whom. Kept are the newest 100,000 registrations,
 * ends, tokens and grants; and apart from these the newest 20,000 each of foreign drops, of
 * requests for another user's connection, and of all the rest, so that nobody can wash out what
 * administrators did. Those requests are counted, not written one by one.
 * Event-loop thread only.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct store;
struct audit;

#define AUDIT_ROUTINE_MAX 100000
#define AUDIT_OTHER_MAX	  20000
#define AUDIT_NO_UID	  UINT32_MAX

struct audit_record {
	const char *event;		 /* the name of docs/openapi.yaml */
	const uint8_t *victim, *foreign; /* handles, or NULL */
	const char *source;		 /* address, or NULL */
	const char *user;		 /* name, or NULL */
	uint64_t connection;		 /* id, or 0 */
	uint64_t cnt;			 /* of what is aggregated, or 0 */
	uint32_t uid;			 /* of the caller, or AUDIT_NO_UID */
	const char *detail;		 /* or NULL */
};

/*
 * Prepares its statements in the store, which finalises them. Call once a store. Where the table
 * cannot be used `why` says so.
 */
int audit_open(struct store *store, struct audit **audit, char why[1024]);
void audit_close(struct audit *audit);
/* Adds a record to the turn's transaction. 0 or the store's error, which it has logged. */
int audit_add(struct audit *audit, const struct audit_record *record);
/*
 * Array of records with row > after, newest last: the newest `limit` where after is 0. Only those
 * of `event` unless that is NULL.
 */
json_t *audit_list(struct audit *audit, const char *event, uint64_t after, unsigned limit);
