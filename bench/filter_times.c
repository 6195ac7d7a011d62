// SPDX-License-Identifier: BSD-3-Clause
#include "bench/filter_times.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/agent/scope/scoped_socket.h"
#include "port_guard.skel.h"

#define COOKIES 64 /* a kernel hands them out to each CPU in blocks */
#define TRIES	20
#define PREFIX	(14 + 8) /* taken for an Ethernet header and stripped; then the UDP header */

const char *const program_names[PROGRAM_CNT] = {"filter", "guard_ingress", "guard_egress"};

static struct program_time time_of(int fd)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	struct program_time time = {0, 0};

	if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len))
		time = (struct program_time){info.run_cnt, info.run_time_ns};
	return time;
}

void program_times(const struct filter_host *host, struct program_time times[PROGRAM_CNT])
{
	memset(times, 0, PROGRAM_CNT * sizeof(*times));
	if (host->kind == CASE_ACCEPT)
		times[PROGRAM_FILTER] = time_of(host->accept_fd);
	if (filter_host_has_filter(host))
		times[PROGRAM_FILTER] = time_of(scope_filter_fd(host->maps));
	if (!host->guarded)
		return;
	times[PROGRAM_INGRESS] = time_of(bpf_program__fd(host->guard.skel->progs.guard_ingress));
	times[PROGRAM_EGRESS] = time_of(bpf_program__fd(host->guard.skel->progs.guard_egress));
}

static uint64_t next_cookie(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t cookie = 0;

	if (fd < 0 || socket_cookie(fd, &cookie))
		cookie = 0;
	close(fd);
	return cookie + 1;
}

/*
 * The kernel makes a socket of its own for the test, with one of the next cookies of this CPU: all
 * of these are given the scope for the time of the test.
 */
int program_test_run(struct filter_host *host, unsigned repeat)
{
	uint8_t frame[PREFIX + FILTER_PACKET_MAX] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame,
		    .data_size_in = (uint32_t)(PREFIX + host->packet_len), .repeat = (int)repeat);
	struct scope scope;
	uint64_t first;
	int result;

	memcpy(frame + PREFIX, host->packets[0], host->packet_len);
	filter_host_scope(&scope, 0);
	for (unsigned tries = 0; tries < TRIES; tries++) {
		first = next_cookie();
		for (unsigned i = 0; i < COOKIES; i++)
			scope_set(host->maps, first + i, &scope);
		result = bpf_prog_test_run_opts(scope_filter_fd(host->maps), &opts) ? -errno : 0;
		for (unsigned i = 0; i < COOKIES; i++)
			scope_del(host->maps, first + i);
		if (result)
			return result;
		if (opts.retval == 0xffffffff)
			return (int)opts.duration;
	}
	return -EAGAIN;
}
