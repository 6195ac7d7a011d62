// SPDX-License-Identifier: BSD-3-Clause
/*
 * fanwire-bench-filter: what the scope filter and the port guard add to the way of a delivery from
 * the wire into the receiver's hands. One process is one case; the cases run in turn.
 *
 * One thread on one CPU sends a burst with sendmmsg() and takes it with recvmmsg(). Over loopback
 * and veth the receive path runs in the sender's own softirq, so the time from burst to burst is
 * all the CPU time that a delivery costs, sending, receive path and receiving together, and the
 * difference between cases is what a program adds. A second sender's turn to a device that throws
 * everything away tells the share of sending.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench/filter_host.h"
#include "bench/filter_times.h"
#include "bench/step.h"

#define STEP	      64 /* datagrams between two looks at the clock */
#define WARM_UP_MS    20
#define TEST_REPEAT   100000
#define STATS_STEPS   200
#define RECEIVE_TRIES 1000

static const char *const case_names[CASE_CNT] = {"none", "accept", "filter", "guard", "both"};

struct bench {
	struct filter_host host;
	unsigned burst; /* datagrams that one socket gets of a step */
	unsigned next;	/* socket of the next burst */
	struct mmsghdr out[STEP], in[STEP];
	struct iovec out_iov[STEP], in_iov[STEP];
	uint8_t bytes[STEP][FILTER_PACKET_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC_RAW, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void messages_init(struct bench *bench)
{
	for (unsigned i = 0; i < STEP; i++) {
		bench->in_iov[i] = (struct iovec){bench->bytes[i], FILTER_PACKET_MAX};
		bench->in[i].msg_hdr.msg_iov = &bench->in_iov[i];
		bench->in[i].msg_hdr.msg_iovlen = 1;
		bench->out[i].msg_hdr.msg_iov = &bench->out_iov[i];
		bench->out[i].msg_hdr.msg_iovlen = 1;
	}
}

/* Takes `cnt` datagrams from the socket; those that came. */
static unsigned take(struct bench *bench, int fd, unsigned cnt)
{
	unsigned taken = 0;
	int got;

	for (unsigned tries = 0; taken < cnt && tries < RECEIVE_TRIES; tries++) {
		got = recvmmsg(fd, bench->in, cnt - taken, MSG_DONTWAIT, NULL);
		for (int i = 0; i < got; i++)
			taken += bench->in[i].msg_len == bench->host.packet_len;
	}
	return taken;
}

/* Sends a step and takes it. 0, or -errno: a step that does not come back whole is a failure. */
static int step(struct bench *bench, char why[256])
{
	struct filter_host *host = &bench->host;
	unsigned first = bench->next, taken = 0, sent = 0;

	for (unsigned i = 0; i < STEP; i++) {
		unsigned idx = (first + i / bench->burst) % host->socket_cnt;

		if (host->loopback) {
			bench->out_iov[i] = (struct iovec){host->packets[idx], host->packet_len};
			bench->out[i].msg_hdr.msg_name = &host->names[idx];
			bench->out[i].msg_hdr.msg_namelen = sizeof(host->names[idx]);
		} else {
			bench->out_iov[i] = (struct iovec){host->frames[idx], host->frame_len};
		}
	}
	while (sent < STEP) {
		int result = sendmmsg(host->sender, bench->out + sent, STEP - sent, 0);

		if (result < 0)
			return snprintf(why, 256, "sendmmsg: %s", strerror(errno)), -errno;
		sent += (unsigned)result;
	}
	for (unsigned i = 0; i < STEP; i += bench->burst)
		taken += take(bench, host->fds[(first + i / bench->burst) % host->socket_cnt],
			      bench->burst);
	bench->next = (first + STEP / bench->burst) % host->socket_cnt;
	if (taken == STEP)
		return 0;
	snprintf(why, 256, "of %u deliveries %u arrived; nothing may be lost here", STEP, taken);
	return -EIO;
}

/* Steps for about `ms`; nanoseconds a delivery, or negative. */
static double timed(struct bench *bench, unsigned ms, char why[256])
{
	uint64_t start = now_ns(), end = start + ms * UINT64_C(1000000), now = start, steps = 0;

	while (now < end) {
		if (step(bench, why))
			return -1;
		steps++;
		now = now_ns();
	}
	return (double)(now - start) / (double)(steps * STEP);
}

/* What the kernel's statistics say of each program: a part of its own, since they cost time. */
static int kernel_times(struct bench *bench, json_t *figures, char why[256])
{
	struct program_time before[PROGRAM_CNT], after[PROGRAM_CNT];
	int stats_fd = bpf_enable_stats(BPF_STATS_RUN_TIME), result = 0;
	char name[64];

	if (stats_fd < 0)
		return snprintf(why, 256, "bpf_enable_stats: %s", strerror(errno)), -errno;
	program_times(&bench->host, before);
	for (unsigned i = 0; i < STATS_STEPS && !result; i++)
		result = step(bench, why);
	program_times(&bench->host, after);
	close(stats_fd);
	for (unsigned i = 0; i < PROGRAM_CNT && !result; i++) {
		uint64_t runs = after[i].runs - before[i].runs;

		if (!runs)
			continue;
		snprintf(name, sizeof(name), "%s_stats_ns", program_names[i]);
		json_object_set_new(figures, name,
				    json_real((double)(after[i].ns - before[i].ns) / (double)runs));
	}
	return result;
}

static int test_time(struct bench *bench, json_t *figures, char why[256])
{
	int ns;

	if (!filter_host_has_filter(&bench->host))
		return 0;
	ns = program_test_run(&bench->host, TEST_REPEAT);
	if (ns < 0)
		return snprintf(why, 256, "BPF_PROG_TEST_RUN: %s", strerror(-ns)), ns;
	json_object_set_new(figures, "filter_test_run_ns", json_integer(ns));
	return 0;
}

static int run_started(struct bench *bench, unsigned ms, json_t *figures, char *why)
{
	double ns = timed(bench, WARM_UP_MS, why);
	int result;

	if (ns >= 0)
		ns = timed(bench, ms, why);
	if (ns < 0)
		return -EIO;
	json_object_set_new(figures, "delivery_ns", json_real(ns));
	json_object_set_new(figures, "deliveries_per_second", json_real(1e9 / ns));
	result = kernel_times(bench, figures, why);
	return result ? result : test_time(bench, figures, why);
}

static int run(void *context, unsigned ms, json_t *figures, char *why, size_t why_size)
{
	struct bench *bench = context;
	int result = filter_host_start(&bench->host, why);

	if (result)
		return result;
	result = run_started(bench, ms, figures, why);
	filter_host_stop(&bench->host);
	return result;
}

/* Number of an option's argument within least..most, or the end of the program. */
static unsigned number(const char *option, const char *text, unsigned long least,
		       unsigned long most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!*text || *end || value < least || value > most)
		exit(step_fail("--%s %s: a number from %lu to %lu is needed", option, text, least,
			       most));
	return (unsigned)value;
}

static void usage(void)
{
	puts("usage: fanwire-bench-filter [--case none|accept|filter|guard|both] [--link "
	     "veth|loopback]\n"
	     "       [--sockets N] [--burst N] [--payload BYTES] [--scopes N] [--port FIRST]\n"
	     "Driven line by line: `run MS`, `quit`. docs/benchmarks.md says what it measures.");
	exit(0);
}

static void case_set(struct filter_host *host, const char *name)
{
	for (host->kind = 0; host->kind < CASE_CNT; host->kind++)
		if (!strcmp(case_names[host->kind], name))
			return;
	exit(step_fail("--case %s: none, accept, filter, guard or both is needed", name));
}

static void options_read(struct bench *bench, int argc, char **argv)
{
	static const struct option options[] = {
		{"case", 1, NULL, 'c'},	 {"link", 1, NULL, 'l'},     {"sockets", 1, NULL, 's'},
		{"burst", 1, NULL, 'b'}, {"payload", 1, NULL, 'p'},  {"scopes", 1, NULL, 'n'},
		{"port", 1, NULL, 'P'},	 {"checksum", 1, NULL, 'k'}, {"help", 0, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct filter_host *host = &bench->host;
	int option, idx = 0;

	while ((option = getopt_long(argc, argv, "", options, &idx)) != -1) {
		const char *name = options[idx].name;

		switch (option) {
		case 'c':
			case_set(host, optarg);
			break;
		case 'l':
			host->loopback = !strcmp(optarg, "loopback");
			break;
		case 'k':
			host->offload = strcmp(optarg, "software") != 0;
			break;
		case 's':
			host->socket_cnt = number(name, optarg, 1, FILTER_SOCKETS_MAX);
			break;
		case 'b':
			bench->burst = number(name, optarg, 1, STEP);
			break;
		case 'p':
			host->payload_len = number(name, optarg, 1, 1100);
			break;
		case 'n':
			host->scopes = number(name, optarg, 1, 1000000);
			break;
		case 'P':
			host->config.port_first = (uint16_t)number(name, optarg, 1024, 64000);
			break;
		default:
			usage();
		}
	}
	if (STEP % bench->burst)
		exit(step_fail("--burst %u: a divisor of %d is needed", bench->burst, STEP));
}

static json_t *settings_of(const struct bench *bench)
{
	const struct filter_host *host = &bench->host;

	return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i}", "case", case_names[host->kind], "link",
			 host->loopback ? "loopback" : "veth", "sockets", host->socket_cnt, "burst",
			 bench->burst, "payload_bytes", host->payload_len, "scopes", host->scopes);
}

int main(int argc, char **argv)
{
	static struct bench bench = {.burst = 32,
				     .host = {.kind = CASE_BOTH,
					      .offload = true,
					      .scopes = 60000,
					      .socket_cnt = 1,
					      .payload_len = 128,
					      .config.port_first = 24500}};
	struct utsname kernel;
	char why[256] = "";
	int status;

	options_read(&bench, argc, argv);
	if (sodium_init() < 0 || uname(&kernel))
		return step_fail("libsodium or uname() does not work on this machine");
	if (filter_host_open(&bench.host, why)) {
		status = step_fail("%s", why);
	} else {
		messages_init(&bench);
		status = step_serve(settings_of(&bench),
				    json_pack("{s:s}", "kernel", kernel.release), run, &bench);
	}
	filter_host_close(&bench.host);
	return status;
}
