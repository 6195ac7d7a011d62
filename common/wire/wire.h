/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wire format: every datagram that Fanwire sends or accepts.
 *
 * docs/wire-format.md states it byte by byte and is normative; this header mirrors it. All fields
 * are big-endian and unaligned on the wire, so nothing here is a struct laid over a packet: encode
 * and decode go through the functions below, which touch only bytes that they have checked.
 *
 * Pure functions, no state: any thread may call them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAN_WIRE_VERSION 1

/* Fixed lengths, in bytes. */
#define FAN_HANDLE_LEN		16
#define FAN_TAG_LEN		16  /* AES-256-GCM tag */
#define FAN_DELIVERY_LEN	100 /* header of everything that is sent to a subscriber */
#define FAN_DELIVERY_HANDLE_OFF 8
#define FAN_PUBLISH_LEN		48 /* header of a publish, before payload and tag */
#define FAN_ACK_LEN		24 /* header of an acknowledgement, before the sealed body and tag */
#define FAN_ACK_RESULT_LEN	40
#define FAN_ACK_RESULT_MAX	28 /* results in one acknowledgement: 24 + 8 + 28*40 + 16 = 1168 */
#define FAN_ECHO_LEN		40
#define FAN_REPLAY_LEN		80
#define FAN_SEALED_HEADER_LEN	76 /* of a delivery header, what the seal covers: bytes 0..75 */

/* Largest payload of one datagram: 1280 (the least IPv6 MTU) - 40 - 8 - FAN_DELIVERY_LEN. */
#define FAN_PAYLOAD_DEFAULT 1132
#define FAN_PAYLOAD_MAX	    8832	  /* jumbo: 9000 - 40 - 8 - 100, rounded down to 64 */
#define FAN_EVENT_MAX	    (1024 * 1024) /* a fragmented event, all fragments together */

/* Types. 0x1x go to a subscriber and carry the delivery header; the others are told by type too. */
enum fan_type {
	FAN_TYPE_PUBLISH = 0x01,   /* publisher -> engine */
	FAN_TYPE_ACK = 0x02,	   /* engine -> publisher */
	FAN_TYPE_ECHO = 0x03,	   /* subscriber -> engine, answers a challenge */
	FAN_TYPE_REPLAY = 0x04,	   /* subscriber -> engine: asks for a range of a stream again */
	FAN_TYPE_DELIVERY = 0x10,  /* engine -> subscriber */
	FAN_TYPE_CHALLENGE = 0x11, /* engine -> subscriber; epoch = salt, sequence = proof */
	FAN_TYPE_STATUS = 0x12, /* engine -> subscriber: (epoch, sequence) is the tail of a group */
	FAN_TYPE_LOST = 0x13,	/* engine -> subscriber: sequence .. publisher_sequence is gone */
};

/* Flags of a publish and of a delivery. Unknown flags are refused. */
#define FAN_FLAG_BEGIN	0x01 /* first fragment of an event (an unfragmented one: both) */
#define FAN_FLAG_END	0x02 /* last fragment */
#define FAN_FLAG_REPLAY 0x04 /* delivery only: sent again from the event log */

/* Channels: 64 bits, the kind in the two top bits. */
#define FAN_CHANNEL_KIND_SHIFT 62
#define FAN_CHANNEL_ALL	       UINT64_C(0)
#define FAN_CHANNEL_THREAD     (UINT64_C(1) << FAN_CHANNEL_KIND_SHIFT) /* | hash of the name */
#define FAN_CHANNEL_SINGLE     (UINT64_C(2) << FAN_CHANNEL_KIND_SHIFT) /* | connection id */
#define FAN_CHANNEL_KIND_MASK  (UINT64_C(3) << FAN_CHANNEL_KIND_SHIFT)
#define FAN_CONNECTION_ID_MASK (~FAN_CHANNEL_KIND_MASK) /* ids: 1 .. 2^62-1 */

/* AES-256-GCM nonce, 12 bytes: direction (4, big-endian), counter (8, big-endian). */
#define FAN_NONCE_LEN	      12
#define FAN_DIRECTION_PUBLISH 1u /* counter = publisher sequence, from 1 */
#define FAN_DIRECTION_ACK     2u /* counter = the acknowledgement's own, from 1 */
#define FAN_DIRECTION_DELIVER 3u /* counter = the event's sequence in its stream */

/* What became of one publish. */
enum fan_result_status {
	FAN_RESULT_OK = 0,	    /* sequenced and fanned out; sent may be 0 */
	FAN_RESULT_NO_GROUP = 1,    /* no such group: all other fields are zero */
	FAN_RESULT_SCOPE = 2,	    /* a one-user publisher named another user; nothing was done */
	FAN_RESULT_TOO_LARGE = 3,   /* payload over the site's limit; nothing was done */
	FAN_RESULT_INTERRUPTED = 4, /* the dataplane died while it worked on this: unknown */
	FAN_RESULT_EXPIRED = 5,	    /* older than the results that are kept (1,024): unknown */
	FAN_RESULT_CHANNEL = 6,	    /* channel of an unknown kind; nothing was done */
	FAN_RESULT_UNATTENDED = 7,  /* delivery is stopped: fanwired has been away too long */
};

/* Why a datagram was refused by decode; also the name of a counter. */
enum fan_wire_error {
	FAN_WIRE_OK = 0,
	FAN_WIRE_SHORT, /* shorter than its header, or than its header says */
	FAN_WIRE_LONG,	/* trailing bytes */
	FAN_WIRE_VERSION_UNKNOWN,
	FAN_WIRE_TYPE_UNKNOWN, /* unknown, or not the type that this decoder reads */
	FAN_WIRE_FLAGS_UNKNOWN,
	FAN_WIRE_LENGTH, /* a length or count over its limit */
};

/*
 * Everything sent to a subscriber. Layout, offset: field
 *   0 version u8, 1 type u8, 2 flags u8, 3 key_generation u8, 4 payload_len u16, 6 kind u16,
 *   8 handle[16], 24 channel u64, 32 epoch u64, 40 sequence u64, 48 time_ns u64,
 *   56 user_generation u32, 60 session u64, 68 publisher_sequence u64,
 *   76 seal_tag[16], 92 filter_tag[8] = SipHash-2-4(tag key, bytes 0..91), its 8 bytes as
 *   SipHash outputs them (little-endian integer); 100 payload[payload_len].
 * Challenge: no payload; channel = SINGLE|connection id; epoch = salt; sequence = proof;
 * kind, session, publisher_sequence = 0. Status: no payload. Lost: no payload; the range that
 * cannot be had is sequence (first) .. publisher_sequence (last) of the epoch's stream.
 *
 * A sealed delivery: the payload is ciphertext of the same length; AES-256-GCM under the stream's
 * key (handle.h), nonce {DELIVER, sequence}, additional data bytes 0..75 with FAN_FLAG_REPLAY
 * cleared, tag in seal_tag. An unsealed one (seal = off): seal_tag is zero.
 */
struct fan_delivery {
	uint8_t type;
	uint8_t flags;
	uint8_t key_generation;
	uint16_t payload_len; /* bytes */
	uint16_t kind;
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t channel;
	uint64_t epoch;
	uint64_t sequence;
	uint64_t time_ns; /* since the Unix epoch, engine's clock when it was sequenced */
	uint32_t user_generation;
	uint64_t session;
	uint64_t publisher_sequence;
	uint8_t seal_tag[FAN_TAG_LEN];
	uint8_t filter_tag[8];
};

/*
 * A publish. 0 version, 1 type, 2 flags, 3 zero, 4 payload_len u16, 6 kind u16, 8 session u64,
 * 16 publisher_sequence u64, 24 handle[16], 40 channel u64, 48 ciphertext[payload_len],
 * then tag[16]. Sealed with AES-256-GCM: key of the session, nonce {PUBLISH, publisher_sequence},
 * additional data bytes 0..47.
 */
struct fan_publish {
	uint8_t flags;
	uint16_t payload_len;
	uint16_t kind;
	uint64_t session;
	uint64_t publisher_sequence;
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t channel;
};

#define FAN_ACK_OVER_BUDGET 0x01 /* what follows the cumulative number was held back */

/*
 * An acknowledgement. 0 version, 1 type, 2 count u8, 3 flags u8, 4 wait_ms u32, 8 session u64,
 * 16 counter u64, 24 sealed body, then tag[16]. Body: cumulative u64 (highest contiguous publisher
 * sequence), then count results of 40 bytes: publisher_sequence u64, epoch u64, sequence u64,
 * attempted u32, sent u32, status u16, 6 zero bytes. Nonce {ACK, counter}; additional data
 * bytes 0..23.
 */
struct fan_ack {
	uint8_t count;
	uint8_t flags;	  /* FAN_ACK_OVER_BUDGET or 0 */
	uint32_t wait_ms; /* with OVER_BUDGET: until when the budget has room again; else 0 */
	uint64_t session;
	uint64_t counter;
};

struct fan_result {
	uint64_t publisher_sequence;
	uint64_t epoch;
	uint64_t sequence;
	uint32_t attempted; /* connections of the group */
	uint32_t sent;	    /* of these, handed to the port */
	uint16_t status;    /* enum fan_result_status */
};

/*
 * Answer to a challenge. 0 version, 1 type, 2 zero u16, 4 zero u32, 8 connection u64, 16 salt u64,
 * 24 proof u64, 32 zero u64. Sent from the very address and port that was challenged.
 */
struct fan_echo {
	uint64_t connection;
	uint64_t salt;
	uint64_t proof;
};

/*
 * Request for replay. 0 version, 1 type, 2 zero u16, 4 zero u32, 8 handle[16], 24 connection u64,
 * 32 channel u64, 40 epoch u64, 48 first u64, 56 last u64, 64 counter u64, 72 tag[8] =
 * SipHash-2-4(replay key of the connection, bytes 0..71), as SipHash outputs it. last >= first >=
 * 1; last = UINT64_MAX: up to the tail, as far as it is then. counter: grows with each request of
 * the connection; a duplicate or an old one is not answered again.
 */
struct fan_replay {
	uint8_t handle[FAN_HANDLE_LEN];
	uint64_t connection;
	uint64_t channel;
	uint64_t epoch;
	uint64_t first, last;
	uint64_t counter;
};

/* Type byte of a datagram, or 0 where it is empty or of another version (*error says which). */
uint8_t fan_wire_type(const uint8_t *packet, size_t len, enum fan_wire_error *error);

/*
 * Encoders write the fixed header and return its length; `packet` must hold it (FAN_*_LEN).
 * Payload, ciphertext and tags are the caller's. fan_delivery_encode() writes seal_tag and
 * filter_tag as given.
 */
size_t fan_delivery_encode(uint8_t *packet, const struct fan_delivery *delivery);
size_t fan_publish_encode(uint8_t *packet, const struct fan_publish *publish);
size_t fan_ack_encode(uint8_t *packet, const struct fan_ack *ack);
size_t fan_result_encode(uint8_t *body, const struct fan_result *result);
size_t fan_echo_encode(uint8_t *packet, const struct fan_echo *echo);
/* Its tag included, under the connection's replay key. */
size_t fan_replay_encode(uint8_t *packet, const struct fan_replay *replay, const uint8_t key[16]);

/*
 * Checked decoders: `len` is the whole UDP payload; lengths inside must account for every byte.
 * They check form only: tags are checked by fan_filter_tag(), by the AEAD, and by the kernel.
 * On an error *out is untouched.
 */
enum fan_wire_error fan_delivery_decode(const uint8_t *packet, size_t len,
					struct fan_delivery *out);
enum fan_wire_error fan_publish_decode(const uint8_t *packet, size_t len, struct fan_publish *out);
enum fan_wire_error fan_ack_decode(const uint8_t *packet, size_t len, struct fan_ack *out);
enum fan_wire_error fan_echo_decode(const uint8_t *packet, size_t len, struct fan_echo *out);
/* Form only; then fan_replay_tag_ok(). -> LENGTH where the range is empty or begins at 0. */
enum fan_wire_error fan_replay_decode(const uint8_t *packet, size_t len, struct fan_replay *out);
bool fan_replay_tag_ok(const uint8_t *packet, const uint8_t key[16]);
/* Body of an opened acknowledgement: 8 + count * FAN_ACK_RESULT_LEN bytes, idx < count. */
void fan_result_decode(const uint8_t *body, unsigned idx, struct fan_result *out);

/* Nonce for a direction and counter; see FAN_DIRECTION_*. */
void fan_nonce(uint8_t nonce[FAN_NONCE_LEN], uint32_t direction, uint64_t counter);

/* What the seal of a delivery covers besides its payload: its header as it was first sent. */
void fan_sealed_header(uint8_t header[FAN_SEALED_HEADER_LEN], const uint8_t *packet);

/* SipHash-2-4 of bytes 0..91 of a delivery header, into bytes 92..99. key: 16 bytes. */
void fan_filter_tag(uint8_t *packet, const uint8_t key[16]);
bool fan_filter_tag_ok(const uint8_t *packet, const uint8_t key[16]);

/* True where the two top bits name a known kind and, for ALL, the rest is zero. */
bool fan_channel_ok(uint64_t channel);

/* Name of an error, for messages and counters; never NULL. */
const char *fan_wire_error_name(enum fan_wire_error error);
const char *fan_result_status_name(uint16_t status);
