/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What churn's threads share. A stay is one user with his connections. It belongs to the thread
 * that publishes and receives while it is LIVE, and to one of the comers while it is AWAY.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/fanwire.h"
#include "tests/prove/places.h"

#define STAY_CONNECTIONS 16
#define STAYS_MAX	 4096

enum stay_state { STAY_AWAY, STAY_LIVE };

/* What a thread saw; sums are made when all have ended. */
struct tally {
	uint64_t deliveries, raw, foreign, damaged, lost, ended;
	uint64_t comings, refused, revoked, unconfirmed, accepted_after, kept;
};

struct stay {
	_Atomic int state; /* released by whoever hands it over */
	bool resident, library, again, revoke;
	uint32_t user, cnt;
	struct fan_subscription *subscriptions[STAY_CONNECTIONS];
	uint16_t ports[STAY_CONNECTIONS];
	char name[32];
	uint8_t handle[16];
};

struct churn {
	const char *client_socket, *control_socket;
	struct place *places;
	uint16_t port_first;
	uint32_t user_cnt;
	_Atomic uint32_t next_user, next_resident;
	_Atomic bool stop, still; /* still: what ended stays open until the end */
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct stay *queue[STAYS_MAX]; /* AWAY, for the comers */
	uint32_t queue_first, queue_cnt;
	struct grave *graves;  /* ended sockets that are still open */
	_Atomic bool *revoked; /* by user */
};

/* Judges a datagram that the socket of a connection of this stay accepted. */
void stay_judge_raw(const struct stay *stay, struct tally *tally, const uint8_t *packet,
		    size_t len);
/* Judges all that such a socket holds. */
void stay_drain_raw(const struct stay *stay, struct tally *tally, int fd);

void comers_put(struct churn *c, struct stay *stay);
void *comer_run(void *churn);  /* a thread; its result is a tally of its own */
void *graves_run(void *churn); /* likewise */
