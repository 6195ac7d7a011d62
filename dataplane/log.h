/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The worker's event log (common/shm/log.h): every event of its groups is in it before the first
 * copy leaves, and what is sent again is read from it. Each worker writes and reads its own part,
 * on its lcore; nothing here is shared but the heads, which fanwired reads.
 */
#pragma once

#include "dataplane/worker.h"

#define LOG_RECORD_MAX                                                                     \
	RTE_ALIGN_CEIL(sizeof(struct fan_log_record) + FAN_DELIVERY_LEN + FAN_PAYLOAD_MAX, \
		       FAN_LOG_ALIGN)
#define LOG_SHARES   8192 /* users are counted by their handle's hash */
#define LOG_SHARE_OF 16	  /* of ring 0 is one user's share, unless the configuration says */

/* Why a position gives no record. */
enum log_get { LOG_FOUND, LOG_GONE, LOG_TORN };

struct log_ring {
	uint8_t *bytes;
	uint64_t size, head;
	uint64_t at; /* head % size */
};

/* What a user, or those who share his place, logged in ring 0: in units of FAN_LOG_ALIGN. */
struct log_share {
	uint32_t window; /* times that ring 0 has been filled; cnt is of it, last of the one before
			  */
	uint32_t cnt, last;
};

struct log {
	struct log_ring rings[FAN_LOG_RINGS];
	uint32_t share_max; /* units; of both windows together */
	struct log_share shares[LOG_SHARES];
};

/*
 * Divides the log among those workers that own groups. Where it was divided otherwise, what it held
 * is void. Main lcore, after the port is started and before any worker is made.
 */
void log_init(struct plane *plane);
/* This worker's part of it, with what a predecessor left in it; 0 or -ENOMEM. */
int log_open(struct worker *w);
void log_close(struct worker *w);

/* Asks for the group's last record: the next one refers to it. */
void log_prefetch(const struct worker *w, const struct fan_group_state *state);

/* Position of the group's last record, 0 where there is none (any more). */
uint64_t log_tail(const struct worker *w, const struct fan_group_state *state);
/*
 * The record at a position: its head is of the group and has a sequence below `before`. Its image
 * may still be torn: log_check() tells. LOG_GONE: overwritten since, or there never was one.
 */
enum log_get log_get(const struct worker *w, uint64_t position, uint64_t incarnation,
		     uint64_t before, const struct fan_log_record **record);
/* Whether the whole record is as it was written, and is of this group and stream. */
bool log_check(const struct worker *w, const struct fan_log_record *record,
	       const struct fan_group *group, uint64_t epoch);
/* Whether a record that lies within the ring is as it was written. */
bool log_is_whole(const struct fan_log_record *record);
/* Charges each user with what a predecessor logged of his: how many records; log_share.c. */
unsigned log_shares_count(struct worker *w);
static inline struct log_share *log_share_of(const struct worker *w,
					     const uint8_t handle[FAN_HANDLE_LEN])
{
	uint64_t hash = fan_table_hash(w->plane->table.seed, handle, 0);

	return &w->log->shares[hash >> 40 & (LOG_SHARES - 1)];
}
static inline const uint8_t *log_image(const struct fan_log_record *record)
{
	return (const uint8_t *)(record + 1);
}
