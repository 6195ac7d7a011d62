// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PORT_CNT     65536
#define RESERVED_MAX 16384 /* text of ip_local_reserved_ports */

struct call {
	int netns_fd;
	int (*work)(void *arg);
	void *arg;
	int result;
};

static void *call_run(void *arg)
{
	struct call *call = arg;

	call->result = setns(call->netns_fd, CLONE_NEWNET) ? -errno : call->work(call->arg);
	return NULL;
}

int netns_run(int netns_fd, int (*work)(void *arg), void *arg)
{
	struct call call = {netns_fd, work, arg, 0};
	sigset_t all, before;
	pthread_t thread;
	int result;

	if (netns_fd < 0)
		return work(arg);
	sigfillset(&all); /* the daemon's signals are for its own thread */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	result = -pthread_create(&thread, NULL, call_run, &call);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result)
		return result;
	pthread_join(thread, NULL);
	return call.result;
}

int netns_open(const struct fan_config *config, int *fd, char why[1024])
{
	const char *path = config->receiver_netns;

	*fd = -1;
	if (!path[0])
		return 0;
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	snprintf(why, 1024,
		 "network.receiver_netns: cannot open %s: %s; make it (ip netns add NAME makes "
		 "/run/netns/NAME), or set it to \"\" for fanwired's own",
		 path, strerror(errno));
	return -errno;
}

struct port_sysctls {
	unsigned low, high;
	char reserved[RESERVED_MAX];
};

/* Text of a sysctl of this thread's network namespace, without its newline. */
static int sysctl_read(const char *path, char *text, size_t text_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got;

	if (fd < 0)
		return -errno;
	while (len + 1 < text_len && (got = read(fd, text + len, text_len - 1 - len)) > 0)
		len += (size_t)got;
	close(fd);
	text[len] = 0;
	text[strcspn(text, "\n")] = 0;
	return len + 1 == text_len ? -EFBIG : 0;
}

static int port_sysctls_read(void *arg)
{
	struct port_sysctls *sysctls = arg;
	char range[64];
	int result;

	result = sysctl_read("/proc/sys/net/ipv4/ip_local_port_range", range, sizeof(range));
	if (result)
		return result;
	if (sscanf(range, "%u %u", &sysctls->low, &sysctls->high) != 2)
		return -EPROTO;
	return sysctl_read("/proc/sys/net/ipv4/ip_local_reserved_ports", sysctls->reserved,
			   sizeof(sysctls->reserved));
}

/* Whether every port of first..last lies in the comma-separated ranges of `reserved`. */
static bool all_reserved(const char *reserved, unsigned first, unsigned last)
{
	unsigned char is_reserved[PORT_CNT] = {0};
	unsigned low, high;
	int used;

	while (sscanf(reserved, "%u%n", &low, &used) == 1) {
		reserved += used;
		high = low;
		if (sscanf(reserved, "-%u%n", &high, &used) == 1)
			reserved += used;
		for (unsigned port = low; port <= high && port < PORT_CNT; port++)
			is_reserved[port] = 1;
		reserved += *reserved == ',';
	}
	for (unsigned port = first; port <= last; port++)
		if (!is_reserved[port])
			return false;
	return true;
}

int netns_check_ports(const struct fan_config *config, int netns_fd, char why[1024])
{
	unsigned first = config->port_first, last = config->port_last;
	struct port_sysctls sysctls;
	int result = netns_run(netns_fd, port_sysctls_read, &sysctls);

	if (result) {
		snprintf(why, 1024,
			 "cannot read net.ipv4.ip_local_port_range of the receivers' network "
			 "namespace: %s; is /proc mounted?",
			 strerror(-result));
		return result;
	}
	if (last < sysctls.low || first > sysctls.high ||
	    all_reserved(sysctls.reserved, first, last))
		return 0;
	snprintf(why, 1024,
		 "ports %u-%u may be handed to any program: they lie within "
		 "net.ipv4.ip_local_port_range (%u %u) of the receivers' network namespace and are "
		 "not reserved there; run: %s%s%ssysctl -w "
		 "net.ipv4.ip_local_reserved_ports=%.300s%s%u-%u",
		 first, last, sysctls.low, sysctls.high,
		 netns_fd < 0 ? "" : "nsenter --net=", netns_fd < 0 ? "" : config->receiver_netns,
		 netns_fd < 0 ? "" : " ", sysctls.reserved, sysctls.reserved[0] ? "," : "", first,
		 last);
	return -EINVAL;
}
