/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-crypto: what it costs to open a sealed publish.
 *
 * Sealed publishes lie in a store; a burst of them is copied to the buffers that a port would have
 * filled, outside the timed part, and is then opened in place. Sessions take turns, so that with
 * many of them each publish finds another key schedule.
 */
#include <errno.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "bench/crypto_openers.h"
#include "bench/step.h"
#include "common/wire/wire.h"

#define BURST	 64
#define ROOM	 2048 /* bytes for a publish, as in a packet buffer */
#define STORED	 4096 /* publishes sealed beforehand, at least one a session */
#define SESSIONS 65536

struct bench {
	const struct opener *opener;
	void *keys;
	uint32_t sessions, stored, next;
	uint16_t payload_len;
	uint8_t *store, *burst;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t cycles_now(void)
{
	unsigned cpu;

	_mm_lfence();
	return __rdtscp(&cpu);
}

static size_t wire_len(const struct bench *b)
{
	return FAN_PUBLISH_LEN + (size_t)b->payload_len + FAN_TAG_LEN;
}

/* The sequence that the publish at an index of the store was sealed with. */
static uint64_t sequence_of(const struct bench *b, uint32_t idx)
{
	return idx / b->sessions + 1;
}

/* ---- the store ---- */

static void publish_seal(struct bench *b, uint32_t idx, const uint8_t *key)
{
	uint8_t *wire = b->store + (size_t)idx * ROOM, *payload = wire + FAN_PUBLISH_LEN;
	uint8_t nonce[FAN_NONCE_LEN];
	struct fan_publish publish = {
		.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
		.payload_len = b->payload_len,
		.session = idx % b->sessions,
		.publisher_sequence = sequence_of(b, idx),
	};

	memset(publish.handle, 'u', sizeof(publish.handle));
	fan_publish_encode(wire, &publish);
	memset(payload, 'x', b->payload_len);
	fan_nonce(nonce, FAN_DIRECTION_PUBLISH, publish.publisher_sequence);
	crypto_aead_aes256gcm_encrypt_detached(payload, payload + b->payload_len, NULL, payload,
					       b->payload_len, wire, FAN_PUBLISH_LEN, NULL, nonce,
					       key);
}

static int store_make(struct bench *b)
{
	uint8_t *keys = malloc((size_t)b->sessions * KEY_LEN);

	b->stored = (STORED + b->sessions - 1) / b->sessions * b->sessions;
	b->store = aligned_alloc(64, (size_t)b->stored * ROOM);
	b->burst = aligned_alloc(64, (size_t)BURST * ROOM);
	if (!keys || !b->store || !b->burst) {
		free(keys);
		return -ENOMEM;
	}
	randombytes_buf(keys, (size_t)b->sessions * KEY_LEN);
	for (uint32_t i = 0; i < b->stored; i++)
		publish_seal(b, i, keys + (size_t)(i % b->sessions) * KEY_LEN);
	b->keys = b->opener->create(keys, b->sessions);
	free(keys);
	return b->keys ? 0 : -ENOTSUP;
}

/* Does it open what is right, to the right bytes, and refuse what is forged? */
static bool opener_sound(struct bench *b)
{
	uint8_t *wire = b->burst;
	bool ok;

	memcpy(wire, b->store, wire_len(b));
	ok = b->opener->open(b->keys, 0, wire, b->payload_len, 1);
	for (uint16_t i = 0; i < b->payload_len; i++)
		ok = ok && wire[FAN_PUBLISH_LEN + i] == 'x';
	memcpy(wire, b->store, wire_len(b));
	wire[8] ^= 1;
	return ok && !b->opener->open(b->keys, 0, wire, b->payload_len, 1);
}

/* ---- a run ---- */

/* Fills the burst's buffers; the index of the first. */
static uint32_t burst_fill(struct bench *b)
{
	uint32_t first = b->next;

	for (unsigned i = 0; i < BURST; i++) {
		memcpy(b->burst + i * ROOM, b->store + (size_t)b->next * ROOM, wire_len(b));
		b->next = (b->next + 1) % b->stored;
	}
	return first;
}

static uint64_t burst_open(struct bench *b, uint32_t first, bool *ok)
{
	uint64_t start = cycles_now();
	uint32_t idx = first;

	for (unsigned i = 0; i < BURST; i++) {
		*ok &= b->opener->open(b->keys, idx % b->sessions, b->burst + i * ROOM,
				       b->payload_len, sequence_of(b, idx));
		if (++idx == b->stored)
			idx = 0;
	}
	return cycles_now() - start;
}

static int run(void *context, unsigned ms, json_t *figures, char *why, size_t why_size)
{
	struct bench *b = context;
	uint64_t start_ns = now_ns(), start = cycles_now(), opened = 0, cycles = 0;
	double hz;
	bool ok = true;

	do {
		for (unsigned i = 0; i < 16; i++) {
			uint32_t first = burst_fill(b);

			cycles += burst_open(b, first, &ok);
			opened += BURST;
		}
	} while (now_ns() - start_ns < (uint64_t)ms * 1000000);
	hz = (double)(cycles_now() - start) / (double)(now_ns() - start_ns) * 1e9;
	if (!ok) {
		snprintf(why, why_size, "%s did not open a publish that was sealed for it",
			 b->opener->name);
		return -EBADMSG;
	}
	json_object_set_new(figures, "opened", json_integer((json_int_t)opened));
	json_object_set_new(figures, "opens_per_s", json_real(hz / ((double)cycles / opened)));
	json_object_set_new(figures, "cycles_per_open", json_real((double)cycles / opened));
	json_object_set_new(figures, "ns_per_open", json_real((double)cycles / opened / hz * 1e9));
	return 0;
}

/* ---- options ---- */

static const char help[] =
	"usage: fanwire-bench-crypto [OPTION]...\n"
	"  --with NAME     ipsec-mb (what the dataplane does), openssl or libsodium\n"
	"  --payload N     bytes of an event, 0..1132 (128)\n"
	"  --sessions N    publisher sessions in turn, 1..65536 (4)\n"
	"Then, on standard input: run MS, quit.\n";

static int number_parse(const char *text, unsigned long least, unsigned long most, uint32_t *value)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text == '\0' || *end || number < least || number > most)
		return -EINVAL;
	*value = (uint32_t)number;
	return 0;
}

static int options_parse(struct bench *b, int argc, char **argv)
{
	static const struct option table[] = {
		{"with", required_argument, NULL, 'w'},
		{"payload", required_argument, NULL, 'p'},
		{"sessions", required_argument, NULL, 's'},
		{NULL, 0, NULL, 0},
	};
	uint32_t payload = b->payload_len;
	int option, err = 0;

	while (!err && (option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (option == 'w')
			err = (b->opener = opener_find(optarg)) ? 0 : -EINVAL;
		else if (option == 'p')
			err = number_parse(optarg, 0, FAN_PAYLOAD_DEFAULT, &payload);
		else if (option == 's')
			err = number_parse(optarg, 1, SESSIONS, &b->sessions);
		else
			err = -EINVAL;
	}
	b->payload_len = (uint16_t)payload;
	return optind == argc ? err : -EINVAL;
}

static int serve(struct bench *b)
{
	json_t *settings, *versions;

	settings = json_pack("{s:s, s:I, s:I, s:I, s:I}", "with", b->opener->name, "payload_bytes",
			     (json_int_t)b->payload_len, "sessions", (json_int_t)b->sessions,
			     "burst", (json_int_t)BURST, "publishes_stored", (json_int_t)b->stored);
	versions = json_pack("{s:s}", b->opener->name, opener_version(b->opener));
	return step_serve(settings, versions, run, b);
}

int main(int argc, char **argv)
{
	struct bench b = {.opener = opener_find("ipsec-mb"), .sessions = 4, .payload_len = 128};
	int err, status;

	if (options_parse(&b, argc, argv)) {
		fputs(help, stderr);
		return step_fail("fanwire-bench-crypto: options that it does not know; see above");
	}
	if (sodium_init() < 0 || !crypto_aead_aes256gcm_is_available())
		return step_fail(
			"this CPU has no AES instructions, which the dataplane needs, too");
	err = store_make(&b);
	if (err)
		return step_fail("%s could not be set up for %u sessions: %s", b.opener->name,
				 b.sessions, strerror(-err));
	if (opener_sound(&b))
		status = serve(&b);
	else
		status = step_fail("%s opens what is forged, or not what is right", b.opener->name);
	b.opener->destroy(b.keys, b.sessions);
	free(b.store);
	free(b.burst);
	return status;
}
