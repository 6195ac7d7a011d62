/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A subscription inside. subscription.c has the registration (grant, lease, re-attachment),
 * receive.c what comes in, whatever brings it (transport.h). One thread at a time.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "client/reassembly.h"
#include "client/transport.h"
#include "client/uplink.h"
#include "common/wire/handle.h"

#define RECEIVE_BATCH  64
#define STREAM_HISTORY 8 /* former epochs of a channel that are still known as old */

/* One channel that the connection stands in, and where we are in its stream. */
struct stream {
	uint64_t channel;
	char *thread; /* name, or NULL */
	bool joined;  /* something was seen: epoch and cursor hold */
	uint64_t epoch;
	uint64_t cursor;      /* highest sequence taken in or given up */
	uint64_t tail;	      /* of a status that is ahead of the cursor */
	uint64_t tail_due_ns; /* when what is missing up to the tail counts as lost */
	uint64_t old_epochs[STREAM_HISTORY];
	unsigned old_cnt;
};

/* Datagrams that have come, whole; the transport's memory. */
struct receive_batch {
	const uint8_t *packets[RECEIVE_BATCH];
	uint32_t lens[RECEIVE_BATCH];
	unsigned cnt, next;
	uint64_t filled_ns; /* one look at the clock does for all of it */
};

struct fan_subscription {
	const struct transport *transport;
	void *link; /* the transport's own */
	struct uplink uplink;
	char *token;
	bool token_fresh; /* not yet sent */
	int udp;	  /* scoped socket; -1 where there is none */
	int epoll_fd;
	struct clock_timer timer;
	struct sockaddr_in6 engine;
	socklen_t engine_len;
	uint64_t id;
	char user[FAN_NAME_MAX + 1];
	uint8_t handle[FAN_HANDLE_LEN];
	bool single; /* has a group of its own */
	uint32_t lease_s;
	uint64_t renew_ns;  /* next renewal */
	uint64_t served_ns; /* when fanwired's socket was last looked at */
	bool active;
	bool ended, ended_told;
	char ended_why[256];

	struct stream *streams; /* fixed once registered: ALL, threads, single */
	size_t stream_cnt;
	struct receive_batch batch;
	struct reassembly reassembly;
	struct fan_event held; /* an event that waits until the losses before it are told */
	bool holds;
};

/* fan_subscribe() by another way than a scoped socket; link: the transport's own, which it closes.
 */
int subscription_open(struct fan_subscription **subscription, const char *client_socket,
		      const struct fan_subscribe_options *options,
		      const struct transport *transport, void *link);

/* receive.c */
/* Answers challenges at the head of what has come; stops before the first event. */
void receive_challenges(struct fan_subscription *subscription);
enum receive_outcome {
	RECEIVE_EMPTY, /* the socket has nothing more */
	RECEIVE_EVENT, /* *event, or a loss */
	RECEIVE_MORE,  /* a batch without any event: see to the lease, then come again */
	RECEIVE_NO_MEMORY,
};
/* The next event or loss of what has come. */
enum receive_outcome receive_next(struct fan_subscription *subscription, struct fan_event *event);
/* What only time tells: tails that never came, assemblies given up. */
void receive_expire(struct fan_subscription *subscription, uint64_t now_ns);
/* When that is due next; 0: something can be had without waiting. */
uint64_t receive_deadline(const struct fan_subscription *subscription);
