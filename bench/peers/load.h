/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The load of an end-to-end run: one thread that publishes and has every receiving socket, so that
 * publishing and receiving cost the same whatever delivers in between. What carries the events is a
 * transport; all of them share the loop (load.c), and all UDP ones the way to receive
 * (receivers.c).
 *
 * Each event starts with a mark that says whose it is, its number among that user's events, and
 * when it was due. A receiving socket sees a user's events in order, so a number that is skipped is
 * a loss.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "bench/histogram.h"

#define LOAD_PAYLOAD_MAX 1100
#define LOAD_BATCH	 32 /* events between two looks at the receiving sockets */

struct load_mark {
	uint32_t user;
	uint32_t number; /* of the user's events, from 1 */
	uint64_t due_ns; /* CLOCK_MONOTONIC */
};

struct load_options {
	const char *transport;
	const char *client_socket, *publisher, *secret, *tokens; /* fanwire */
	const char *address;					 /* of the server, or the broker */
	const char *receive_address;				 /* of the receiving sockets, UDP */
	unsigned port, receive_port;
	unsigned users, fanout, payload;
	unsigned window; /* copies that may be on their way */
	unsigned rate;	 /* events/s, open loop; 0: as fast as the window lets */
	bool poisson;	 /* events of many that know nothing of each other; else evenly spaced */
};

struct load_receiver {	 /* receiver i is of user i / fanout */
	uint32_t number; /* the last event that it had, or that was given up */
};

struct load_user {
	uint32_t number; /* the last event that was published */
};

/* Copies of one event that are still to come: for the time of the last of them. */
struct load_event {
	uint32_t number;
	uint32_t seen;
};
#define LOAD_EVENTS 64 /* of a user, followed at once */

struct load_counts {
	uint64_t published;
	uint64_t received; /* copies */
	uint64_t lost;
};

struct load;

struct transport {
	const char *name;
	/* 0, or -errno with a sentence in load->why. */
	int (*open)(struct load *load);
	/* Takes one event; it may be sent by the next flush only. False: no room now. */
	bool (*publish)(struct load *load, const struct load_mark *mark);
	void (*flush)(struct load *load);
	/* Takes in what has come, without waiting: load_take() for each copy. */
	void (*receive)(struct load *load);
	void (*close)(struct load *load);
};

struct load {
	struct load_options options;
	const struct transport *transport;
	void *state; /* the transport's */
	struct load_user *users;
	struct load_receiver *receivers;
	struct load_event *events; /* LOAD_EVENTS of each user */
	unsigned receiver_cnt;
	struct load_counts counts;
	struct histogram *copies; /* ns from when an event was due to each copy */
	struct histogram *last;	  /* to the last of them */
	uint8_t payload[LOAD_PAYLOAD_MAX];
	uint64_t now_ns; /* when what is being taken in was received */
	uint64_t random;
	double due_ns; /* since the run began: when the next event is due, open loop */
	char why[512];
};

static inline uint64_t load_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* A copy has come to the receiver. */
void load_take(struct load *load, unsigned receiver, const void *payload, size_t len);
/* -errno, with the sentence where load_run() finds it. */
int load_error(struct load *load, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Copies that the receiver has not had yet. */
static inline uint32_t load_missing(const struct load *load, unsigned receiver)
{
	return load->users[receiver / load->options.fanout].number -
	       load->receivers[receiver].number;
}

/* Those of this program; NULL ends them. */
extern const struct transport *const load_transports[];
extern const struct transport transport_udp, transport_fanwire, transport_redis, transport_nats,
	transport_mqtt;
