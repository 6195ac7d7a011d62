/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A publisher session inside: its events, cut into datagrams, and the window of datagrams that are
 * not yet answered. session.c has the session, publisher.c the events, window.c the datagrams,
 * recovery.c which of them are to be sent again, and how many at a time.
 *
 * The engine accepts strictly in the order of publisher sequences, so the window is resent from its
 * gap; what was accepted but whose result went astray is asked for alone. One thread at a time.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/clock.h"
#include "client/fanwire.h"
#include "client/seal.h"
#include "client/uplink.h"
#include "common/wire/wire.h"

/* Datagrams not yet answered; well under the 1,024 results that the engine keeps a session. */
#define PUBLISHER_WINDOW 256
#define PUBLISHER_EVENTS 256  /* events started and not yet reported */
#define ACK_HISTORY	 1024 /* counters behind the highest that are told apart */

struct publisher_datagram { /* of publisher sequence s: slot s % PUBLISHER_WINDOW */
	int64_t ticket;
	uint64_t sent_ns;
	uint32_t sent_cnt; /* times sent; copies that went together are one */
	uint32_t len;
	uint8_t in_flight; /* copies on their way */
	bool vague;	   /* its answer may be to an earlier time it was sent: Karn */
	bool done;	   /* its result is known */
	uint8_t *packet;
};

struct publisher_event { /* of ticket t: slot t % PUBLISHER_EVENTS */
	int64_t ticket;	 /* 0: free */
	bool finished;
	bool abandoned; /* nobody waits for it any more */
	int status;
	uint32_t unresolved; /* fragments without a result */
	bool any_resolved;
	uint64_t epoch; /* of the fragment whose result came first */
	struct fan_receipt receipt;
};

struct publisher_cut { /* the event that is being cut into datagrams; ticket 0: none */
	int64_t ticket;
	uint8_t *payload; /* our copy, where it did not fit the window at once */
	const uint8_t *data;
	size_t len, off;
	uint32_t fragments_left;
	struct fan_publish header;
};

/* How fast to send, and when to send again. */
struct recovery {
	uint32_t congestion; /* datagrams that may be in flight */
	uint32_t threshold;  /* slow start below, one a round trip above */
	uint32_t congestion_part;
	uint64_t reduced_at;	     /* next, when it was reduced last: once a flight */
	uint64_t rtt_ns, rtt_var_ns; /* rtt 0: none measured yet */
	uint64_t margin_ns;	     /* least, from there to a time-out */
	unsigned backoff;	     /* time-outs since the round trip was measured last */
	bool gap_told;		     /* the engine has dropped what was behind accepted + 1 */
	unsigned stalls;	     /* times sent again since anything was accepted */
	uint32_t copies;	     /* of each datagram that is not accepted yet */
	uint32_t run, run_mean;	     /* accepted between two gaps: since the last; on average */
};

struct fan_publisher {
	struct uplink uplink;
	char *name, *secret, *grant; /* of the credential: to attach with */
	int udp;
	int epoll_fd;
	struct clock_timer timer;
	struct sockaddr_in6 engine;
	socklen_t engine_len;
	uint64_t session;
	uint32_t payload_limit;
	struct seal seal;
	bool ended; /* by the engine: nothing can be published any more */
	char ended_why[256];

	struct publisher_event events[PUBLISHER_EVENTS];
	int64_t ticket_next;   /* to give out, from 1 */
	int64_t ticket_first;  /* oldest that may still be in use */
	uint32_t active_cnt;   /* events without a result, not abandoned */
	uint32_t finished_cnt; /* events with a result that is not yet reported */
	struct publisher_cut cut;

	struct publisher_datagram window[PUBLISHER_WINDOW];
	uint8_t *packets; /* PUBLISHER_WINDOW of packet_len */
	size_t packet_len;
	uint64_t base;	    /* lowest publisher sequence without a result */
	uint64_t next;	    /* next publisher sequence to give */
	uint64_t send_from; /* nothing below needs sending now */
	uint64_t accepted;  /* the engine's cumulative acknowledgement */
	uint32_t in_flight_cnt;
	struct recovery recovery;
	bool held;		/* over budget: one datagram asks whether there is room again */
	uint64_t held_until_ns; /* and that not before; 0: it may */
	uint64_t left_ns;	/* when the caller left the library; 0: he is in it */
	uint64_t neglected_ns;	/* what was sent by then tells nothing about the round trip */
	int send_error;		/* of the last send that failed, for the sentence */

	uint64_t ack_highest;
	uint64_t ack_seen[ACK_HISTORY / 64]; /* by counter % ACK_HISTORY */
};

/* window.c */
int window_init(struct fan_publisher *publisher);
void window_fini(struct fan_publisher *publisher);
/* Cuts and seals as much as the window holds, and sends what may be in flight. 0 or -EIO. */
int window_pump(struct fan_publisher *publisher, uint64_t now_ns);
/* Takes in the acknowledgements that have come. */
void window_receive(struct fan_publisher *publisher, uint64_t now_ns);
/* The caller is back: after a while of neglect, answers have waited for him and not for the net. */
void window_enter(struct fan_publisher *publisher, uint64_t now_ns);
/* When something is due next: recovery_expire(), or window_pump() of what was held back. */
uint64_t window_deadline(const struct fan_publisher *publisher);
/* Forgets all datagrams: the session has ended. */
void window_forget(struct fan_publisher *publisher);
/* These copies count as lost: window_pump() sends it again. */
void window_lose(struct fan_publisher *publisher, uint64_t sequence);
static inline struct publisher_datagram *window_at(const struct fan_publisher *publisher,
						   uint64_t sequence)
{
	return (struct publisher_datagram *)&publisher->window[sequence % PUBLISHER_WINDOW];
}

/* recovery.c */
void recovery_init(struct recovery *recovery);
/* A result for a datagram in flight; before it counts as done. */
void recovery_on_result(struct fan_publisher *publisher, const struct publisher_datagram *datagram,
			uint64_t now_ns);
/* A result for a datagram that has one. */
void recovery_on_repeated(struct fan_publisher *publisher,
			  const struct publisher_datagram *datagram);
/* The engine's cumulative number; whether it was told because something came behind a gap. */
void recovery_on_accepted(struct fan_publisher *publisher, uint64_t accepted, bool gap);
/* After the acknowledgements that were there: gives up what they show to be lost. */
void recovery_judge(struct fan_publisher *publisher, uint64_t now_ns);
/* Gives up what is overdue. */
void recovery_expire(struct fan_publisher *publisher, uint64_t now_ns);
/* When recovery_expire() is due next. */
uint64_t recovery_deadline(const struct fan_publisher *publisher);

/* session.c */
/* Everything that is due: acknowledgements, the client socket, retransmission, sending. 0 or -EIO.
 */
int session_service(struct fan_publisher *publisher);
/* Nothing can be published any more; events in flight finish with -EPIPE. */
void session_end(struct fan_publisher *publisher, const char *why);

/* publisher.c */
/* Every event in flight finishes with `status`. */
void publisher_fail(struct fan_publisher *publisher, int status);
/* The result of one datagram of an event. */
void publisher_resolve(struct fan_publisher *publisher, int64_t ticket, bool last_fragment,
		       const struct fan_result *result);
