/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the engine and the agent of fanwired say to each other. On one machine they are one process
 * and the messages go through an in-process queue (control/link.h); a remote agent will carry the
 * same messages over TLS. So: values only, no pointer, no descriptor, no shared state besides them.
 *
 * Agent -> engine: REGISTER, BOUND, ATTACH, DETACH, RENEW, END, SESSION_OPEN, SESSION_ATTACH,
 * SESSION_DETACH, SESSION_END, FOREIGN_DROP, AGENT_STATUS, MARKED. Engine -> agent: HOLD, HELLO,
 * GRANT, REFUSE, ACTIVE, ATTACHED, RENEWED, KEYS, ENDED, REUSABLE, SESSION_GRANT, SESSION_ATTACHED,
 * SESSION_ENDED, MARK. Messages of one direction arrive in the order in which they were sent.
 *
 * `ref` is the agent's own number for a client's request; an answer repeats it.
 *
 * Subscribe: client -> agent; REGISTER (token) -> engine checks token, limits, id; GRANT (id,
 * handle, keys) -> agent makes, scopes, filters, locks, binds the socket; BOUND (address, port,
 * cookie) -> engine records it PENDING and has it challenged, or, in a vouched prefix, activates at
 * once; agent passes the descriptor to the client when it has sent BOUND; ACTIVE once it is in the
 * table. A socket that could not be made: END(reason) instead of BOUND. Publisher: the agent makes
 * a plain socket first; SESSION_OPEN (credential, address) -> SESSION_GRANT (id, key) or REFUSE.
 * Start: before anything else the engine sends one HOLD for each connection in the registry region
 * (id, u.bound: address, cookie, handle), so that the agent gives its port to nobody else; `end` is
 * set where the connection is ENDING already: its port rests until REUSABLE. Then HELLO: all are
 * told. The agent serves no client before it; scopes that no connection owns are deleted reattach_s
 * later.
 * Coming back: ATTACH -> ATTACHED or REFUSE (of this id and ref). Where the client has left before
 * ATTACHED came, the agent answers DETACH: the registration is as if nobody had asked, and has
 * reattach_s again; a try that was given up ends nothing. Sessions likewise.
 * End, by either side: the engine takes it out of the table and sends ENDED; the agent removes the
 * scope at once on ENDED (or before it sends END) and quarantines the port until REUSABLE.
 * END repeats in `ref` the ref of the REGISTER or ATTACH that made its client the holder. An END of
 * another ref than the present holder's is late (the id was replaced meanwhile): the engine ignores
 * it.
 * Each BOUND is followed by exactly one REUSABLE of its id and ref, after its ENDED, when nothing
 * can reach the address any more; each HOLD by one of its id and ref 0.
 * KEYS: a rotation begins or ends: the scope of a connection that the agent was told of (GRANT,
 * HOLD) and its client get these keys from here on, in place of the ones before. MARK is answered
 * with MARKED of the same ref when all messages before it have been acted upon.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"

#define MESSAGE_TOKEN_MAX   4096
#define MESSAGE_THREADS_MAX 64
#define MESSAGE_REASON_MAX  256
#define MESSAGE_TAILS_MAX   (MESSAGE_THREADS_MAX + 2) /* all, single */

enum message_type {
	/* agent -> engine */
	MESSAGE_REGISTER = 1,
	MESSAGE_BOUND,
	MESSAGE_ATTACH,
	MESSAGE_DETACH, /* the client left before it was told ATTACHED */
	MESSAGE_RENEW,
	MESSAGE_END,
	MESSAGE_SESSION_OPEN,
	MESSAGE_SESSION_ATTACH,
	MESSAGE_SESSION_DETACH,
	MESSAGE_SESSION_END,
	MESSAGE_FOREIGN_DROP,
	MESSAGE_AGENT_STATUS, /* a wall fell (error WALL_FAILED, reason) or all stand again (NONE)
			       */
	MESSAGE_MARKED,
	/* engine -> agent */
	MESSAGE_HELLO = 64,
	MESSAGE_GRANT,
	MESSAGE_REFUSE,
	MESSAGE_ACTIVE,
	MESSAGE_ATTACHED,
	MESSAGE_RENEWED,
	MESSAGE_ENDED,
	MESSAGE_REUSABLE, /* nothing can reach the address of this BOUND or HOLD any more */
	MESSAGE_SESSION_GRANT,
	MESSAGE_SESSION_ATTACHED,
	MESSAGE_SESSION_ENDED,
	MESSAGE_HOLD, /* at start, before HELLO: this connection has this address and cookie */
	MESSAGE_MARK,
	MESSAGE_KEYS,
};

/* Machine-readable error, also the `error` of client.sock. Text table in control/messages.c. */
enum message_error {
	MESSAGE_ERROR_NONE = 0,
	MESSAGE_ERROR_BAD_REQUEST,	  /* "bad_request" */
	MESSAGE_ERROR_TOKEN_INVALID,	  /* "token_invalid": form, signature or algorithm */
	MESSAGE_ERROR_TOKEN_EXPIRED,	  /* "token_expired" */
	MESSAGE_ERROR_TOKEN_AUDIENCE,	  /* "token_audience" */
	MESSAGE_ERROR_TOKEN_USER,	  /* "token_user": another user than the connection's */
	MESSAGE_ERROR_CONNECTION_FOREIGN, /* "connection_foreign": the id is another user's */
	MESSAGE_ERROR_CONNECTION_UNKNOWN, /* "connection_unknown": nothing to attach to */
	MESSAGE_ERROR_LIMIT_USER,	  /* "limit_user": too many connections of this user */
	MESSAGE_ERROR_LIMIT_OVERALL,	  /* "limit_overall": table, groups or connections full */
	MESSAGE_ERROR_HANDLE_TAKEN,	  /* "handle_taken": another name has this handle */
	MESSAGE_ERROR_NO_PORT,	    /* "no_port": every address and port is in use or resting */
	MESSAGE_ERROR_SOCKET,	    /* "socket": the host could not make the socket */
	MESSAGE_ERROR_WALL_FAILED,  /* "wall_failed": a wall has failed; nothing is granted */
	MESSAGE_ERROR_CREDENTIAL,   /* "credential": unknown publisher or wrong secret */
	MESSAGE_ERROR_NO_DATAPLANE, /* "no_dataplane": the dataplane is not running */
	MESSAGE_ERROR_BUSY,	    /* "busy": try again in a moment */
	MESSAGE_ERROR_INTERNAL,	    /* "internal" */
	MESSAGE_ERROR_CNT
};
const char *message_error_name(enum message_error error);

/* Why a registration ended; `reason` of client.sock's "ended" and of audit records. */
enum message_end {
	MESSAGE_END_NONE = 0,
	MESSAGE_END_CLOSED,	  /* "closed": the subscriber closed its connection or died */
	MESSAGE_END_LEASE,	  /* "lease": not renewed */
	MESSAGE_END_TOKEN,	  /* "token": its token expired */
	MESSAGE_END_REPLACED,	  /* "replaced": same user registered the same id again */
	MESSAGE_END_REVOKED,	  /* "revoked" */
	MESSAGE_END_DISCONNECTED, /* "disconnected": by an administrator */
	MESSAGE_END_CHALLENGE,	  /* "challenge": the address did not answer */
	MESSAGE_END_ABSENT,	  /* "absent": not back in time after a restart of fanwired */
	MESSAGE_END_SOCKET,	  /* "socket": the socket could not be made or bound */
	MESSAGE_END_ENGINE, /* "engine": the engine lost its state (session of an old dataplane) */
	MESSAGE_END_CNT
};
const char *message_end_name(enum message_end end);

struct message_address {
	uint8_t bytes[16]; /* IPv6 or v4-mapped */
	uint16_t port;	   /* host byte order */
	uint8_t family;	   /* 4 or 6 */
};

struct message_scope { /* what the kernel filter of a socket must know */
	uint8_t handle[FAN_HANDLE_LEN];
	uint32_t user_generation;
	uint8_t key_generation;
	uint8_t previous_key_generation;
	uint8_t tag_key[FAN_TAG_KEY_LEN];
	uint8_t previous_tag_key[FAN_TAG_KEY_LEN];
};

/* What a subscriber opens its events and signs its requests for replay with. */
struct message_keys {
	struct {
		uint8_t generation;
		uint8_t key[FAN_KEY_LEN]; /* fan_user_key() */
	} key[2];			  /* of the generation in force, then of the other one */
	uint8_t cnt;			  /* 2 during a rotation */
	bool seal;			  /* deliveries are sealed */
	uint8_t replay_key[FAN_TAG_KEY_LEN];
};

/* Where a stream stands. epoch 0, sequence 0: it has no event yet. */
struct message_tail {
	uint64_t channel, epoch, sequence;
};
struct message_tails {
	uint64_t time_ns; /* CLOCK_REALTIME, before they were read */
	uint16_t cnt;
	struct message_tail tail[MESSAGE_TAILS_MAX];
};

struct message {
	enum message_type type;
	uint64_t ref;
	uint64_t id; /* connection or session */
	enum message_error error;
	enum message_end end;
	char reason[MESSAGE_REASON_MAX]; /* sentence for a person: what was wrong, what to do */
	union {
		struct { /* REGISTER, RENEW (token may be ""), ATTACH */
			char token[MESSAGE_TOKEN_MAX];
			char threads[MESSAGE_THREADS_MAX][FAN_NAME_MAX + 1];
			uint16_t thread_cnt;
			bool single;
			uint64_t cookie; /* ATTACH: of the descriptor that was sent back */
			uint8_t handle[FAN_HANDLE_LEN]; /* ATTACH: owner in the scope map */
			struct message_address
				address; /* REGISTER of a receiver without a socket of ours, which
					    bypasses the kernel: where it is; else family 0 */
			uint32_t uid;	 /* of the peer, SO_PEERCRED */
			uint32_t pid;
		} client;
		struct { /* BOUND, HOLD */
			struct message_address address;
			uint64_t cookie;
			uint8_t handle[FAN_HANDLE_LEN]; /* HOLD only: the user, its port's last one
							 */
		} bound;
		struct { /* GRANT, ATTACHED, RENEWED, KEYS (scope and keys alone) */
			char user[FAN_NAME_MAX + 1];
			struct message_scope scope;
			uint32_t generation;
			uint32_t lease_s;
			struct message_keys keys;	/* RENEWED: none */
			struct message_address address; /* ATTACHED */
			struct message_tails tails;	/* ATTACHED, RENEWED */
		} grant;
		struct {			    /* ACTIVE */
			struct message_tails tails; /* from before it was in the table */
		} active;
		struct { /* SESSION_OPEN, SESSION_ATTACH: name and secret, or grant (a token) */
			char name[FAN_NAME_MAX + 1];
			char secret[128];
			char token[MESSAGE_TOKEN_MAX];
			struct message_address
				address; /* of the socket that the agent made for it */
			uint32_t uid;
		} session_open;
		struct {			  /* SESSION_GRANT, SESSION_ATTACHED */
			uint8_t key[FAN_KEY_LEN]; /* SESSION_GRANT only */
			bool one_user;
			char user[FAN_NAME_MAX + 1];
		} session;
		struct { /* FOREIGN_DROP */
			uint8_t victim[FAN_HANDLE_LEN];
			uint8_t foreign[FAN_HANDLE_LEN];
			uint8_t source[16];
			uint64_t cnt; /* since the last message */
		} foreign;
	} u;
};

/* Bytes of a message that its type uses; behind them a received one need not be readable. */
size_t message_len(enum message_type type);
