/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's filter and the C code that judges in its place, on the same bytes: one verdict, for
 * one reason. And what passes has the form that the library takes, but for what the library alone
 * looks at (flags, and a payload where there may be none or too much).
 *
 * The first byte says what is made right before both judge, so that all of the way is reached:
 * bits 0-1 the tag (0 as it stands, 1 under the present key, 2 under the previous one), bit 2 the
 * user, bit 3 the generations, bit 4 version, type and length. Needs root: the program that runs is
 * the real one, in this kernel.
 */
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/bypass/scope.h"
#include "tests/unit/bpf/host.h"

#define WINDOW	   2048 /* cookies that have the scope: each run takes one of this CPU's */
#define FILLER	   14	/* taken for an Ethernet header and stripped */
#define PREFIX	   (FILLER + 8)
#define PACKET_MAX 1400
#define TRIES	   20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct host host;
static struct scope scope;
static struct bypass_scope mirror; /* the same scope, as the C code has it */
static uint64_t window;		   /* first cookie that is scoped; 0: none is */

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void stay_on_one_cpu(void)
{
	cpu_set_t set;

	require(sched_getaffinity(0, sizeof(set), &set) == 0);
	for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set) && kept++)
			CPU_CLR(cpu, &set);
	require(sched_setaffinity(0, sizeof(set), &set) == 0);
}

static void prepare(void)
{
	if (host.maps)
		return;
	host_init(&host, 24450, 24499);
	host.config.port_guard = false;
	host.config.max_connections = 2 * WINDOW;
	host_open(&host);
	host_scope(&scope, "bob");
	scope.key_generation = 2;
	scope.previous_key_generation = 1;
	memset(scope.tag_key, 0x5a, sizeof(scope.tag_key));
	memcpy(mirror.handle, scope.handle, FAN_HANDLE_LEN);
	mirror.user_generation = scope.user_generation;
	mirror.key_generation = scope.key_generation;
	mirror.previous_key_generation = scope.previous_key_generation;
	memcpy(mirror.tag_key, scope.tag_key, FAN_TAG_KEY_LEN);
	memcpy(mirror.previous_tag_key, scope.previous_tag_key, FAN_TAG_KEY_LEN);
	stay_on_one_cpu();
}

/* The next cookies of this CPU get the scope. */
static void move_window(void)
{
	int fd = host_udp(4, NULL, 0);
	uint64_t cookie;

	require(socket_cookie(fd, &cookie) == 0);
	close(fd);
	for (unsigned i = 0; window && i < WINDOW; i++)
		scope_del(host.maps, window + i);
	window = cookie + 1;
	for (unsigned i = 0; i < WINDOW; i++)
		require(scope_set(host.maps, window + i, &scope) == 0);
}

static enum scope_verdict run_filter(const uint8_t *frame, size_t len)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
		    .repeat = 1);

	for (unsigned i = 0; i < TRIES; i++) {
		struct tally before = host_tally(&host), after;
		unsigned verdict = 0;

		require(bpf_prog_test_run_opts(scope_filter_fd(host.maps), &opts) == 0);
		after = host_tally(&host);
		while (verdict < SCOPE_VERDICT_CNT &&
		       after.verdicts[verdict] == before.verdicts[verdict])
			verdict++;
		require(verdict < SCOPE_VERDICT_CNT);
		require(opts.retval == (verdict == SCOPE_ACCEPTED ? UINT32_MAX : 0));
		if (verdict != SCOPE_DROP_NO_SCOPE)
			return (enum scope_verdict)verdict;
		move_window();
	}
	abort(); /* no run met its scope */
}

/* Both enumerations name the same reasons in the same order. */
_Static_assert(BYPASS_VERDICT_CNT - BYPASS_DROP_SHORT == SCOPE_VERDICT_CNT - SCOPE_DROP_SHORT, "");
_Static_assert(BYPASS_DROP_TAG - BYPASS_DROP_SHORT == SCOPE_DROP_TAG - SCOPE_DROP_SHORT, "");

static enum scope_verdict run_mirror(const uint8_t *packet, size_t len)
{
	struct bypass_case one = {&mirror, packet, len, BYPASS_ACCEPTED};

	bypass_judge(&one, 1);
	return one.verdict == BYPASS_ACCEPTED
		       ? SCOPE_ACCEPTED
		       : (enum scope_verdict)(one.verdict - BYPASS_DROP_SHORT + SCOPE_DROP_SHORT);
}

static void mend(uint8_t mode, uint8_t *packet, size_t len)
{
	if (len < FAN_DELIVERY_LEN)
		return;
	if (mode & 16) {
		packet[0] = FAN_WIRE_VERSION;
		packet[1] = (uint8_t)(FAN_TYPE_DELIVERY + packet[1] % 4);
		packet[4] = (uint8_t)((len - FAN_DELIVERY_LEN) >> 8);
		packet[5] = (uint8_t)(len - FAN_DELIVERY_LEN);
	}
	if (mode & 4)
		memcpy(packet + FAN_DELIVERY_HANDLE_OFF, mirror.handle, FAN_HANDLE_LEN);
	if (mode & 8) {
		memset(packet + 56, 0, 4);
		packet[59] = (uint8_t)mirror.user_generation;
		packet[3] = (uint8_t)(1 + packet[3] % 2);
	}
	if ((mode & 3) == 1)
		fan_filter_tag(packet, mirror.tag_key);
	else if ((mode & 3) == 2)
		fan_filter_tag(packet, mirror.previous_tag_key);
}

/* What the decoder of the library says of bytes that the filter let pass, or dropped by form. */
static void check_decoder(const uint8_t *packet, size_t len, enum scope_verdict verdict)
{
	struct fan_delivery delivery;
	enum fan_wire_error error = fan_delivery_decode(packet, len, &delivery);
	bool form_ok = verdict == SCOPE_ACCEPTED || verdict >= SCOPE_DROP_FOREIGN_USER;

	if (error == FAN_WIRE_OK)
		require(form_ok);
	else if (form_ok)
		require(error == FAN_WIRE_FLAGS_UNKNOWN || error == FAN_WIRE_LENGTH);
	if (verdict == SCOPE_ACCEPTED && error == FAN_WIRE_OK) {
		require(memcmp(delivery.handle, mirror.handle, FAN_HANDLE_LEN) == 0);
		require(fan_filter_tag_ok(packet, delivery.key_generation == mirror.key_generation
							  ? mirror.tag_key
							  : mirror.previous_tag_key));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t frame[PREFIX + PACKET_MAX] = {0};
	uint8_t *packet = frame + PREFIX;
	enum scope_verdict verdict;

	prepare();
	if (!len || len > PACKET_MAX)
		return 0;
	memcpy(packet, data + 1, len - 1);
	mend(data[0], packet, len - 1);
	verdict = run_filter(frame, PREFIX + len - 1);
	require(run_mirror(packet, len - 1) == verdict);
	check_decoder(packet, len - 1, verdict);
	return 0;
}
