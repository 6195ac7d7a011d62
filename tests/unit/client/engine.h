/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The other side of the library in its unit tests: client.sock answered by a thread, and the
 * engine's UDP socket, which the test itself drives, so that it decides what gets lost, late or
 * forged.
 */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/fanwire.h"
#include "client/seal.h"
#include "common/wire/handle.h"
#include "common/wire/wire.h"

#define ENGINE_LIMIT   64 /* payload bytes of one datagram: small, so that much is fragmented */
#define ENGINE_SESSION UINT64_C(0x0123456789abcdef)
#define ENGINE_ID      UINT64_C(0x11)
#define ENGINE_TIME_NS 1000000 /* its clock, when it says where streams stand */

struct engine {
	char dir[64], path[96];
	int listener, udp;
	struct sockaddr_in udp_address;
	struct sockaddr_in peer; /* the library's UDP socket */
	int given;		 /* our copy of the descriptor that was passed last */
	int client;		 /* the accepted connection; -1: none */
	pthread_t thread;
	pthread_mutex_t lock;
	atomic_bool stop;

	/* what the daemon does; set before the library connects */
	const char *refuse; /* error name of the next answer, or NULL */
	bool no_challenge;  /* active without one */
	bool loses_active;  /* breaks the connection instead of telling it */
	unsigned attach_ms; /* until an attach is answered */
	int lease_s;
	bool seals;	   /* deliveries are sealed, and what is missing can be asked for */
	const char *tails; /* of the active event and of renewals: JSON, or NULL */

	/* what it saw */
	atomic_uint opens, attaches, attached_same, renews, echoes;

	struct seal seal;
	uint64_t ack_counter;
	uint64_t replay_counter; /* of the last request */
	uint64_t accepted;	 /* publisher sequences, strictly in order */
};

struct engine_publish {
	struct fan_publish header;
	uint8_t payload[ENGINE_LIMIT];
};

void engine_start(struct engine *engine);
void engine_stop(struct engine *engine);
/* Breaks the connection as a restart of fanwired does. */
void engine_hang_up(struct engine *engine);
/* Sends an object to the connected client. */
void engine_say(struct engine *engine, const char *json);
/* Waits up to 2 s until a counter is at least `least`. */
bool engine_saw(atomic_uint *counter, unsigned least);

/* Next publish within timeout_ms, opened and checked: false if none came. */
bool engine_recv(struct engine *engine, struct engine_publish *publish, int timeout_ms);
/* Sends an acknowledgement; `spoil` changes the first result's status on the way. */
void engine_ack(struct engine *engine, uint64_t cumulative, const struct fan_result *results,
		unsigned cnt, bool spoil);
/* What follows is held back: the publisher is over its budget. */
void engine_hold_back(struct engine *engine, uint64_t cumulative, uint32_t wait_ms);
/* Acknowledgement sent as `counter`, whatever was used before. */
void engine_ack_as(struct engine *engine, uint64_t counter, uint64_t cumulative,
		   const struct fan_result *results, unsigned cnt);
/* The result that a plain engine gives: sequence 1000 + publisher sequence, 3 attempted, 2 sent. */
struct fan_result engine_result(uint64_t publisher_sequence);

/* A user key of the engine's, as text: 64 hex digits. Generation 1 is given with the grant. */
void engine_key(char text[2 * FAN_KEY_LEN + 1], uint8_t generation);
/* Next request for replay within timeout_ms, its tag checked: false if none came. */
bool engine_asked(struct engine *engine, struct fan_replay *replay, int timeout_ms);

/*
 * Sends a delivery header, as given, and payload to the library's socket. An engine that seals
 * seals it, under the header's key generation; unless that is 0.
 */
void engine_deliver(struct engine *engine, const struct fan_delivery *delivery,
		    const void *payload);
/* A delivery to alice: unfragmented, epoch 7, session 5, each sequence a nanosecond later. */
struct fan_delivery engine_delivery(uint64_t sequence, size_t payload_len);
