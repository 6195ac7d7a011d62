/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The real pipeline on a port made of rings: a test puts frames in and looks at the frames that
 * come out. Sealing and opening are OpenSSL's, checksums are added up by hand: nothing is checked
 * with the code under test. One instance a process (Criterion runs each test in its own).
 */
#pragma once

#include "dataplane/worker.h"
#include "tests/unit/dataplane/region_fixture.h"

#define TEST_ENGINE_PORT    7400
#define TEST_PUBLISHER_PORT 25600 /* of session slot s: + s */

struct pipeline {
	struct plane plane;
	struct region_fixture regions;
	struct rte_ring *rx[2], *tx[2];
	char dir[64];
	bool launched;
};

/* What a test publishes. Zero means: session slot 0, IPv4, user "alice", channel ALL. */
struct publish_spec {
	uint32_t slot;
	uint8_t family;
	uint64_t sequence;
	const char *user;
	uint64_t channel;
	uint16_t kind;
	const char *payload;
	uint16_t payload_len;
	uint16_t source_port; /* 0: the session's */
	uint64_t session;     /* 0: pipeline_session(slot) */
};

/* A frame that came out, taken apart. */
struct frame {
	uint8_t bytes[2048];
	uint16_t len;
	uint8_t family;
	uint8_t source[16], target[16];
	uint16_t source_port, target_port;
	const uint8_t *wire;
	uint16_t wire_len;
};

extern const uint8_t engine4[16], engine6[16], receiver4[16], receiver6[16];

/* How packet buffers are kept, by DPDK's name; before pipeline_open(). */
extern const char *pipeline_pool_ops;
/* Regions with next hop 0 (IPv4) and 1 (IPv6), sessions in slots 0 and 1 (IPv4), 2 and 3 (IPv6). */
void pipeline_open(struct pipeline *p, unsigned workers);
/* Fails the test where a packet buffer leaked. */
void pipeline_close(struct pipeline *p);
/* The dataplane dies without a word and is started again on the same regions. */
void pipeline_restart(struct pipeline *p);
/* The same, and the state region is made anew: fanwired opens the sessions again. */
void pipeline_restart_anew(struct pipeline *p);
/* On a registry region in dir that another wrote; without sessions. Ends with pipeline_kill(). */
void pipeline_open_on(struct pipeline *p, const char *dir, unsigned workers);
/* The two halves of a restart: in between the registry may be another. */
void pipeline_kill(struct pipeline *p);
void pipeline_start(struct pipeline *p);
uint64_t pipeline_session(uint32_t slot);

/* A sealed publish as a frame; returns its length. */
uint16_t publish_make(uint8_t frame[2048], const struct publish_spec *spec);
/* A UDP datagram to the engine as a frame; returns its length. */
uint16_t datagram_make(uint8_t frame[2048], uint8_t family, uint16_t source_port,
		       const uint8_t *wire, uint16_t wire_len);
/* Runs worker 0 over one frame, or over several at once. */
void feed(struct pipeline *p, const uint8_t *frame, uint16_t len);
void publish(struct pipeline *p, const struct publish_spec *spec);
void publish_many(struct pipeline *p, const struct publish_spec *specs, unsigned cnt);
/* One burst of worker 0 and no more: what is longer than its share is under way then. */
void publish_burst(struct pipeline *p, const struct publish_spec *specs, unsigned cnt);

/* Next frame that left; false: none. Fails the test where a checksum or length is wrong. */
bool take(struct pipeline *p, struct frame *frame);
/* Takes f->bytes apart; fails the test where a checksum or length is wrong. */
void frame_check(struct frame *f);
/* How many frames left, all of them thrown away. */
unsigned take_all(struct pipeline *p);
/* Opens an acknowledgement; fails the test where it is not sealed rightly. Returns its count. */
unsigned ack_open(const struct frame *frame, uint32_t slot, uint64_t *cumulative,
		  struct fan_result results[FAN_ACK_RESULT_MAX]);
uint64_t counter(const struct pipeline *p, enum fan_counter idx);
