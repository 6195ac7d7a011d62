// SPDX-License-Identifier: BSD-3-Clause
/*
 * What the scope filter returns, by BPF_PROG_TEST_RUN: nothing or everything, never a part. The
 * test socket that the kernel makes for a run has the next cookie of this CPU, so a window of
 * cookies is scoped before each run; a run that missed it (another socket came between) is
 * repeated.
 */
#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/bpf/host.h"

#define WINDOW	   32
#define TRIES	   50
#define FILLER	   14		/* taken for an Ethernet header and stripped */
#define PREFIX	   (FILLER + 8) /* then the UDP header */
#define PACKET_MAX 2048

static struct host host;

static void setup(void)
{
	cpu_set_t first;

	host_init(&host, 24050, 24099);
	host.config.port_guard = false;
	host.config.max_connections = 4096;
	host_open(&host);
	sched_getaffinity(0, sizeof(first), &first);
	for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &first) && kept++)
			CPU_CLR(cpu, &first);
	}
	cr_assert_eq(sched_setaffinity(0, sizeof(first), &first), 0);
}

static void teardown(void)
{
	host_fini(&host);
}

TestSuite(verdict, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t next_cookie(void)
{
	int fd = host_udp(4, NULL, 0);
	uint64_t cookie;

	cr_assert_eq(socket_cookie(fd, &cookie), 0);
	close(fd);
	return cookie + 1;
}

/* Return value of one run over frame, with `scope` in force for the run's socket. */
static uint32_t run(const uint8_t *frame, size_t len, const struct scope *scope,
		    enum scope_verdict *verdict)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
		    .repeat = 1);

	for (int i = 0; i < TRIES; i++) {
		uint64_t cookie = next_cookie();
		struct tally before, after;

		for (unsigned c = 0; c < WINDOW; c++)
			cr_assert_eq(scope_set(host.maps, cookie + c, scope), 0);
		*verdict = SCOPE_DROP_NO_SCOPE;
		before = host_tally(&host);
		cr_assert_eq(bpf_prog_test_run_opts(scope_filter_fd(host.maps), &opts), 0);
		after = host_tally(&host);
		for (unsigned c = 0; c < WINDOW; c++)
			scope_del(host.maps, cookie + c);
		for (unsigned v = 0; v < SCOPE_VERDICT_CNT; v++)
			if (after.verdicts[v] != before.verdicts[v])
				*verdict = (enum scope_verdict)v;
		if (*verdict != SCOPE_DROP_NO_SCOPE)
			return opts.retval;
	}
	return 1; /* no run met its scope; nothing that the filter returns */
}

static void expect(const uint8_t *frame, size_t len, const char *user, enum scope_verdict expected)
{
	enum scope_verdict verdict = SCOPE_DROP_NO_SCOPE;
	struct scope scope;
	uint32_t value;

	host_scope(&scope, user);
	value = run(frame, len, &scope, &verdict);
	cr_assert_eq(verdict, expected, "verdict %u, not %u", verdict, expected);
	cr_assert_eq(value, expected == SCOPE_ACCEPTED ? 0xffffffff : 0, "returned %#x", value);
}

Test(verdict, is_nothing_or_everything)
{
	uint8_t frame[PACKET_MAX] = {0};
	uint8_t *packet = frame + PREFIX;
	size_t len = PREFIX + host_packet(packet, "bob", 20);

	expect(frame, len, "bob", SCOPE_ACCEPTED);
	expect(frame, len, "alice", SCOPE_DROP_FOREIGN_USER);
	expect(frame, len - 1, "bob", SCOPE_DROP_LENGTH);
	expect(frame, len + 1, "bob", SCOPE_DROP_LENGTH);
	expect(frame, PREFIX + 99, "bob", SCOPE_DROP_SHORT);
	packet[0] = 2;
	expect(frame, len, "bob", SCOPE_DROP_VERSION);
	packet[0] = 1;
	packet[1] = FAN_TYPE_PUBLISH;
	expect(frame, len, "bob", SCOPE_DROP_TYPE);
	packet[1] = FAN_TYPE_DELIVERY;
	packet[3] = 9;
	expect(frame, len, "bob", SCOPE_DROP_KEY_GENERATION);
	packet[3] = 1;
	packet[56] = 9;
	expect(frame, len, "bob", SCOPE_DROP_USER_GENERATION);
	packet[56] = 0;
	packet[92] ^= 1;
	expect(frame, len, "bob", SCOPE_DROP_TAG);
	packet[92] ^= 1;
	expect(frame, len, "bob", SCOPE_ACCEPTED);
}

Test(verdict, every_bit_flip_of_a_valid_header_returns_nothing)
{
	uint8_t frame[PACKET_MAX] = {0};
	size_t len = PREFIX + host_packet(frame + PREFIX, "bob", 20);
	enum scope_verdict verdict = SCOPE_DROP_NO_SCOPE;
	struct scope scope;

	host_scope(&scope, "bob");
	for (unsigned bit = 0; bit < FAN_DELIVERY_LEN * 8; bit++) {
		frame[PREFIX + bit / 8] ^= (uint8_t)(1 << (bit % 8));
		cr_assert_eq(run(frame, len, &scope, &verdict), 0, "bit %u passed", bit);
		cr_assert_neq(verdict, SCOPE_ACCEPTED);
		frame[PREFIX + bit / 8] ^= (uint8_t)(1 << (bit % 8));
	}
	expect(frame, len, "bob", SCOPE_ACCEPTED);
}

Test(verdict, a_socket_whose_cookie_is_unknown_gets_nothing)
{
	uint8_t frame[PACKET_MAX] = {0};
	size_t len = PREFIX + host_packet(frame + PREFIX, "bob", 20);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len);
	struct tally before = host_tally(&host);

	cr_assert_eq(bpf_prog_test_run_opts(scope_filter_fd(host.maps), &opts), 0);
	cr_assert_eq(opts.retval, 0);
	host_expect_verdict(&host, &before, SCOPE_DROP_NO_SCOPE, 1);
}
