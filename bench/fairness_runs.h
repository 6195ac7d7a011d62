/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What other users notice of one that is pressed on. Many users with few connections each get
 * events by a schedule that waits for nobody (Poisson arrivals); beside them, nothing, or one user
 * with very many connections whose publisher always has events under way, or a publisher that
 * floods one user at the rate of a line. The latency of each of the others' events is counted from
 * its arrival in the receive queue to the moment that the port takes its last copy.
 */
#pragma once

#include "bench/histogram.h"
#include "bench/ingress.h"

enum fairness_case { FAIRNESS_WITHOUT, FAIRNESS_LARGE_USER, FAIRNESS_FLOOD, FAIRNESS_CASE_CNT };
extern const char *const fairness_case_names[FAIRNESS_CASE_CNT];

struct fairness_options {
	uint32_t users;	      /* the others, and the one that is flooded */
	uint32_t fanout;      /* connections of each of these */
	uint32_t large;	      /* connections of the large user */
	uint32_t large_ahead; /* its events that are under way at any time */
	double rate;	      /* the others' events a second */
	double flood_rate;    /* publishes a second */
};

struct fairness_run {
	struct histogram latency; /* of the others' events, in cycles */
	uint64_t cycles;	  /* of the timed part */
	double cpu_share;	  /* of the time, that the worker's CPU was the worker's */
	uint64_t others;	  /* events that arrived */
	uint64_t unfinished;	  /* of them, some copy of which was never seen */
	uint64_t overflowed;	  /* datagrams that found the queue full */
	uint64_t resent;	  /* times that a publisher of the others had to go back */
	uint64_t pressed_sent;	  /* datagrams of the one that presses */
	uint64_t pressed_copies;  /* copies for its user */
};

struct fairness;

/* Takes a rig that is open, with fairness_sessions() sessions. NULL: out of memory. */
struct fairness *fairness_create(struct rig *rig, const struct fairness_options *options);
void fairness_destroy(struct fairness *f);
unsigned fairness_sessions(void);

/* Every event once, so that all streams have begun and no page is new. 0, or -errno with `why`. */
int fairness_warm(struct fairness *f, char why[256]);

/* About ms milliseconds of one case. 0, or -errno with `why`. Main thread. */
int fairness_measure(struct fairness *f, enum fairness_case which, unsigned ms,
		     struct fairness_run *run, char why[256]);
