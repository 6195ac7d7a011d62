/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libfanwire: publish events to a user, subscribe to one's own. The only installed header.
 *
 * A publisher or subscription belongs to one thread at a time; different ones are independent.
 * The library starts no thread and installs no signal handler. Functions return 0 (or a count) or
 * -errno; fan_error() then has a sentence that says what was wrong and what to do.
 */
#ifndef FANWIRE_H
#define FANWIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FAN_API __attribute__((visibility("default")))

/* Sentence about the last failure in this thread; never NULL; valid until the next call. */
FAN_API const char *fan_error(void);

/* ---- Publishing ------------------------------------------------------------------------------ */

struct fan_publisher;

/* How to prove who publishes: a credential (name and secret), or a grant (signed, short-lived). */
struct fan_credential {
	const char *name;
	const char *secret;
	const char *grant; /* instead of name and secret */
};

/*
 * What became of an event. For a fragmented event: its last fragment's place, the least `sent`; 0
 * where the stream began anew between two fragments, since nobody then has the whole event.
 */
struct fan_receipt {
	uint64_t epoch;	    /* of the stream; 0 where the user has no such group */
	uint64_t sequence;  /* in the stream; 0 likewise */
	uint32_t attempted; /* connections of the group */
	uint32_t sent;	    /* of these, sent to; 0 for an offline user */
};

struct fan_event_spec {
	const char *user;    /* name, 1..255 bytes */
	const char *thread;  /* name of a thread, or NULL */
	uint64_t connection; /* a connection id, or 0; at most one of thread and connection */
	uint16_t kind;	     /* the application's own */
	const void *payload;
	size_t payload_len; /* 0..1 MiB; larger than one datagram: fragmented */
};

/*
 * Opens a session through `client_socket` (NULL: $FANWIRE_CLIENT_SOCKET, else
 * /run/fanwire/client.sock). The caller owns *publisher and closes it. -EACCES wrong credential,
 * -ENOENT or -ECONNREFUSED no daemon there, -EAGAIN too many sessions.
 */
FAN_API int fan_publisher_open(struct fan_publisher **publisher, const char *client_socket,
			       const struct fan_credential *credential);

/*
 * Publishes and waits for the acknowledgement, retransmitting, at most timeout_ms (0: 5,000).
 * -ETIMEDOUT not acknowledged: it may or may not have been delivered; -EDQUOT likewise, and the
 * engine says why: the publisher is over its budget, and slowed down; -EMSGSIZE; -EPERM the
 * session may name only its own user; -EINVAL a name of 0 or over 255 bytes; -EIO interrupted by
 * a crash of the dataplane: unknown; -ENETDOWN delivery is stopped; -EPIPE the session has ended.
 */
FAN_API int fan_publish(struct fan_publisher *publisher, const struct fan_event_spec *event,
			struct fan_receipt *receipt, int timeout_ms);

/*
 * Pipelined form: fan_publish_start() sends and returns a ticket > 0 (or -EAGAIN: the window is
 * full, call fan_publisher_step()); step() receives acknowledgements and retransmits what is due,
 * waiting at most timeout_ms, and calls on_receipt for each finished event, status 0 or -errno.
 * Returns the number of events still in flight.
 */
typedef void (*fan_on_receipt)(void *arg, int64_t ticket, int status,
			       const struct fan_receipt *receipt);
FAN_API int64_t fan_publish_start(struct fan_publisher *publisher,
				  const struct fan_event_spec *event);
FAN_API int fan_publisher_step(struct fan_publisher *publisher, int timeout_ms,
			       fan_on_receipt on_receipt, void *arg);

/* Descriptor that is readable when fan_publisher_step() has something to do. Owned by the
 * publisher. */
FAN_API int fan_publisher_fd(const struct fan_publisher *publisher);
/* The UDP socket itself, for tests and packet tools: reading from it steals acknowledgements. */
FAN_API int fan_publisher_socket(const struct fan_publisher *publisher);
FAN_API void fan_publisher_close(struct fan_publisher *publisher);

/* Opens, publishes one event, closes: the one-shot way in, the same fan-out. */
FAN_API int fan_publish_once(const char *client_socket, const struct fan_credential *credential,
			     const struct fan_event_spec *event, struct fan_receipt *receipt,
			     int timeout_ms);

/* ---- Subscribing ----------------------------------------------------------------------------- */

struct fan_subscription;

/*
 * What to do about events that were missed: the network dropped them, or this process was too slow
 * for its socket. Whatever cannot be had is told (FAN_EVENT_LOST), before anything that follows it.
 */
enum fan_policy {
	FAN_CATCH_UP = 0,   /* ask for them again, and hold back what follows until they are here */
	FAN_LATEST = 1,	    /* do without them: never behind by more than the socket holds */
	FAN_DISCONNECT = 2, /* leave: LOST, what was there already, then ENDED with "slow" */
};

/* A place in a channel's stream: that of the last event that the application has dealt with. */
struct fan_cursor {
	const char *thread; /* name of a thread that is joined; NULL: by `channel` */
	uint64_t channel;   /* as in an event; 0: the channel that reaches all connections */
	uint64_t epoch;
	uint64_t sequence;
	uint64_t unfinished; /* as that event had it */
};

struct fan_subscribe_options {
	const char *token;	    /* signed token that names the user */
	const char *const *threads; /* names of threads to join, or NULL */
	size_t thread_cnt;
	int single;	     /* not 0: make the group that reaches this connection alone */
	uint64_t connection; /* wanted id (62 bits), or 0 to be given one */
	int family;	     /* 4, 6 or 0 for the host's first */
	int timeout_ms;	     /* until the registration is active; 0: 5,000 */
	int policy;	     /* enum fan_policy */
	/*
	 * Where to go on, at most one a channel; without one a channel begins with what is
	 * published from now on. What came since comes first, in order, marked as recovered, as far
	 * as the engine still has it; the rest is told as lost. Of another epoch, all of the
	 * cursor's is lost, and the present epoch comes from its beginning.
	 */
	const struct fan_cursor *cursors;
	size_t cursor_cnt;
};

enum fan_event_type {
	FAN_EVENT_DATA = 1, /* an event */
	/*
	 * Sequences lost_first..lost_last of (channel, epoch) cannot be had. UINT64_MAX as the
	 * last: the epoch has ended, and nobody can say how far it went.
	 */
	FAN_EVENT_LOST = 2,
	FAN_EVENT_ENDED = 3, /* the registration has ended; `payload` says why (text) */
};

struct fan_event {
	enum fan_event_type type;
	uint64_t channel;   /* wire number: kind in the top bits */
	const char *thread; /* name of the thread, where it is one that was joined; else NULL */
	uint64_t epoch;
	uint64_t sequence; /* of the last fragment */
	uint64_t lost_first, lost_last;
	uint64_t time_ns; /* since the Unix epoch, engine's clock */
	uint16_t kind;
	uint64_t publisher;  /* session id */
	const void *payload; /* valid until the next fan_receive() on this subscription */
	size_t payload_len;
	int recovered; /* not 0: it, or a fragment of it, was sent again from the engine's log */
	/*
	 * The lowest sequence of what is here already, but not yet told: fragments of events whose
	 * last one has not come. 0: none; above the cursor it says nothing. A cursor has to have
	 * it, or these events would be cut where one goes on, and told as lost. A cursor's sequence
	 * is the highest that was given: a loss of such fragments is told late, below others.
	 */
	uint64_t unfinished;
};

/* What came of the datagrams of a subscription; a fragmented event has several. */
struct fan_subscription_counts {
	uint64_t opened;     /* sealed deliveries that opened */
	uint64_t failed;     /* that did not: altered on their way, unsealed, or of unknown keys */
	uint64_t duplicates; /* that were there already */
	uint64_t requests;   /* ranges asked for again */
	uint64_t repaired;   /* datagrams that came by it */
	uint64_t lost;	     /* sequences told as lost; an epoch's unknown end counts as one */
};

/*
 * Registers and waits until the registration is active. -EINVAL options that make no sense, -EACCES
 * the token was refused (fan_error() says why), -EEXIST the id is another user's, -EDQUOT a limit,
 * -EAGAIN no port or no room, -ETIMEDOUT the challenge never came.
 */
FAN_API int fan_subscribe(struct fan_subscription **subscription, const char *client_socket,
			  const struct fan_subscribe_options *options);

/*
 * The next event, in the order of its channel and each once: 1 and *event, 0 when none came within
 * timeout_ms (0: do not wait; -1: for ever), or -errno. It also renews the lease and, after a
 * restart of fanwired, re-attaches: call it whenever fan_subscription_fd() is readable. After
 * FAN_EVENT_ENDED it returns -ENOTCONN.
 */
FAN_API int fan_receive(struct fan_subscription *subscription, struct fan_event *event,
			int timeout_ms);

/* Descriptor to poll for reading. Owned by the subscription. */
FAN_API int fan_subscription_fd(const struct fan_subscription *subscription);
/* The scoped UDP socket itself, for tests and packet tools: reading from it steals events. */
FAN_API int fan_subscription_socket(const struct fan_subscription *subscription);
FAN_API uint64_t fan_subscription_id(const struct fan_subscription *subscription);
/* 1, or 0 while fanwired is away and the subscription waits to attach again: events still come. */
FAN_API int fan_subscription_attached(const struct fan_subscription *subscription);
FAN_API const char *fan_subscription_user(const struct fan_subscription *subscription);
FAN_API void fan_subscription_counts(const struct fan_subscription *subscription,
				     struct fan_subscription_counts *counts);
/* A fresh token for the same user, used at the next renewal; the library copies it. */
FAN_API int fan_subscription_set_token(struct fan_subscription *subscription, const char *token);
FAN_API void fan_subscription_close(struct fan_subscription *subscription);

#ifdef __cplusplus
}
#endif
#endif
