/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state region: what the dataplane knows. Written by the dataplane only; fanwired maps it
 * read-only. Geometry follows the registry region that it was created for.
 *
 * W: each worker its own fan_worker_state, the state of groups and sessions that it owns.
 * R: fanwired (status, quiescence, reports).
 */
#pragma once

#include <stdint.h>

#include "common/counters.h"
#include "common/shm/log.h"
#include "common/shm/region.h"

#define FAN_STATE_FILE	 "state"
#define FAN_WORKERS_MAX	 16
#define FAN_REPORT_CNT	 1024 /* a worker; power of two */
#define FAN_RESULTS_KEPT 1024 /* a session; power of two */
#define FAN_LOG_RINGS	 2    /* a worker; common/shm/log.h */

/* Report to fanwired. */
enum fan_report_type {
	FAN_REPORT_ECHO = 1, /* the challenged address answered; the proof was right */
};
struct fan_report {
	uint32_t type;
	uint32_t pad;
	uint64_t connection;
	uint64_t salt;
	uint64_t pad2;
};
_Static_assert(sizeof(struct fan_report) == 32, "report");

/*
 * quiescent: odd while the worker runs its loop, advanced by 2 (seq_cst) once a loop at a point
 * where it holds no reference into the registry region; even (or the region's lock released):
 * the worker holds none and a reclaimer need not wait. A reclaimer unlinks, makes a seq_cst
 * fence, reads the words, and may reuse once every odd word has changed.
 */
struct fan_worker_state {
	uint64_t quiescent;
	uint64_t heartbeat_ns; /* CLOCK_MONOTONIC, about each 10 ms */
	uint64_t loops;	       /* iterations, and those that found work */
	uint64_t busy_loops;
	uint64_t log_head[FAN_LOG_RINGS]; /* __atomic: bytes ever logged; common/shm/log.h */
	uint8_t pad[16];
	uint64_t counters[FAN_COUNTER_CNT_MAX]; /* __atomic relaxed, one writer; enum fan_counter */
	uint32_t report_head __attribute__((aligned(64)));
	struct fan_report reports[FAN_REPORT_CNT] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct fan_worker_state) % 64 == 0, "worker state ends on a line");

/* Record of a group, at the group's index. Valid while incarnation equals the group's. */
struct fan_group_state {
	uint64_t incarnation;
	uint64_t epoch;	   /* stream epoch, random, not 0 */
	uint64_t sequence; /* last one given, stored before the first copy leaves */
	uint32_t copies;   /* sent since the incarnation began, modulo 2^32 */
	uint32_t log_tail; /* place of the last record, fan_log_place(); 0: none */
};
_Static_assert(sizeof(struct fan_group_state) == 32, "two group states a line");

/* Result of one publish; slot = publisher_sequence & (FAN_RESULTS_KEPT - 1). */
enum fan_result_phase {
	FAN_RESULT_PHASE_EMPTY = 0,
	FAN_RESULT_PHASE_PENDING = 1, /* accepted; work is under way in that run */
	FAN_RESULT_PHASE_DONE = 2,
	FAN_RESULT_PHASE_LOGGED = 3, /* in the log at (epoch, sequence); sent: ~fan_state.run */
};
struct fan_result_record {
	uint64_t epoch; /* of the stream; while PENDING: fan_state.run that accepted it */
	uint64_t sequence;
	uint32_t attempted;
	uint32_t sent;
	uint32_t publisher_sequence_low;
	uint16_t status; /* enum fan_result_status */
	uint8_t phase;	 /* enum fan_result_phase */
	uint8_t pad;
};
_Static_assert(sizeof(struct fan_result_record) == 32, "result record");

/* State of a publisher session, at its slot. Valid while session equals the registry's id. */
struct fan_session_state {
	uint64_t session;
	uint64_t accepted;    /* highest contiguous publisher sequence; 0 at the start */
	uint64_t ack_counter; /* last one reserved; stored before an acknowledgement is sealed */
	uint64_t over_budget; /* __atomic: publishes held back since its budget was spent */
	uint8_t pad[32];
	struct fan_result_record results[FAN_RESULTS_KEPT];
};
_Static_assert(sizeof(struct fan_session_state) == 64 + 32 * FAN_RESULTS_KEPT, "session state");

struct fan_state {
	struct fan_region_header header;
	uint64_t registry_epoch; /* creation epoch of the registry region that this belongs to */
	uint64_t workers_off;
	uint64_t groups_off;
	uint64_t sessions_off;
	uint64_t logs_off;
	uint64_t log_bytes; /* of all workers together */
	uint32_t group_cnt;
	uint32_t session_cnt;
	uint32_t worker_cnt;  /* of the present run; __atomic */
	uint32_t run;	      /* starts of the dataplane on this region, from 1 */
	uint32_t log_workers; /* among how many log_bytes are divided */
	uint32_t seal;	      /* whether its events are sealed: all of them, or none */
	uint32_t request_tail
		__attribute__((aligned(64))); /* consumer of the registry's requests */
	uint32_t pid;
	uint8_t port_name[48]; /* of the DPDK port, for status */
};
_Static_assert(sizeof(struct fan_state) == 256, "state root");
