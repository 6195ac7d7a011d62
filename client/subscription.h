/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A subscription inside. subscription.c has its life (registration, lease, re-attachment), grant.c
 * what it asks fanwired for and is granted, receive.c what comes in, whatever brings it
 * (transport.h), stream.h the order of it. One thread at a time.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "client/reassembly.h"
#include "client/stream.h"
#include "client/transport.h"
#include "client/unseal.h"
#include "client/uplink.h"
#include "common/wire/handle.h"

#define RECEIVE_BATCH 64

/* Datagrams that have come, whole; the transport's memory, where seals are opened in place. */
struct receive_batch {
	uint8_t *packets[RECEIVE_BATCH];
	uint32_t lens[RECEIVE_BATCH];
	unsigned cnt, next;
	uint64_t filled_ns; /* one look at the clock does for all of it */
	bool looked;	    /* for keys that it needs */
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
	uint32_t lease_s;
	uint64_t renew_ns;   /* next renewal */
	uint64_t renewed_ns; /* the last one */
	uint64_t asked_ns;   /* when the request was sent whose answer comes next */
	unsigned asked_cnt;  /* requests that are not answered yet */
	uint64_t served_ns;  /* when fanwired's socket was last looked at */
	bool active;
	bool ended, ended_told;
	char ended_why[256];

	bool seal; /* what is not sealed, or does not open, has not come */
	struct unseal unseal;
	uint8_t replay_key[FAN_TAG_KEY_LEN];
	uint64_t replay_counter; /* of the last request; grows also over processes that attach */

	struct stream *streams; /* fixed once registered: ALL, threads, single */
	size_t stream_cnt;
	size_t room;		      /* that is left to hold back what came early */
	size_t settle_at, settle_end; /* streams in which something may follow now */
	struct stream_held *given;    /* of these, what the application has now, and whose it is */
	struct stream *given_by;
	struct receive_batch batch;
	struct reassembly reassembly;
	struct fan_event held; /* an event that waits until the losses before it are told */
	uint64_t held_first;   /* sequence of its first fragment */
	bool holds;
	unsigned finishing; /* how far receive_finish() is */
	struct fan_subscription_counts counts;
};

/* fan_subscribe() by another way than a scoped socket; link: the transport's own, which it closes.
 */
int subscription_open(struct fan_subscription **subscription, const char *client_socket,
		      const struct fan_subscribe_options *options,
		      const struct transport *transport, void *link);
/* The registration is over, or we leave it. */
void subscription_end(struct fan_subscription *subscription, const char *reason, const char *text);
/* Renews soon: fanwired's word is needed. However often it is called, at most each 2 s. */
void subscription_hasten(struct fan_subscription *subscription);
/* Takes in what fanwired has said by now. */
void subscription_listen(struct fan_subscription *subscription, uint64_t now_ns);

/* grant.c */
json_t *grant_request(const struct fan_subscribe_options *options);
json_t *grant_attach_request(const struct fan_subscription *subscription);
/* Streams for all channels that the options name. 0 or -errno with fan_error(). */
int grant_make_streams(struct fan_subscription *subscription,
		       const struct fan_subscribe_options *options);
/* Takes in the answer to the request. As above. */
int grant_take(struct fan_subscription *subscription, const struct fan_subscribe_options *options,
	       const json_t *answer);
/* Keys, and whether deliveries are sealed, where a message has them. */
void grant_take_keys(struct fan_subscription *subscription, const json_t *message);
/* Tails of streams likewise; first: it is the message that made us active. */
void grant_take_tails(struct fan_subscription *subscription, const json_t *message, bool first,
		      uint64_t now_ns);

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
/*
 * What only time tells: what is missing is asked for, or lost; assemblies are given up. empty: the
 * socket is, so that nothing of it can be in there.
 */
void receive_expire(struct fan_subscription *subscription, uint64_t now_ns, bool empty);
/* When that is due next; 0: something can be had without waiting. */
uint64_t receive_deadline(const struct fan_subscription *subscription);
/* The registration has ended, and the socket is empty: true while there is more to tell of. */
bool receive_finish(struct fan_subscription *subscription);
void receive_fini(struct fan_subscription *subscription);
