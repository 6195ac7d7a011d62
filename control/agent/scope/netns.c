// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/privilege/threads.h"

#define PORT_CNT     65536
#define RESERVED_MAX 16384 /* text of ip_local_reserved_ports */

/* One call at a time: what the caller asks for, and the answer. */
struct netns {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int (*work)(void *arg); /* NULL: nothing is asked for */
	void *arg;
	int result;
	bool ends;
};

/* Enters the namespace, for good: the first answer is whether it could. */
static void *netns_thread(void *arg)
{
	struct netns *netns = arg;

	pthread_mutex_lock(&netns->lock);
	netns->result = setns(netns->fd, CLONE_NEWNET) ? -errno : 0;
	netns->work = NULL;
	pthread_cond_broadcast(&netns->changed);
	while (!netns->ends) {
		if (netns->work) {
			netns->result = netns->work(netns->arg);
			netns->work = NULL;
			pthread_cond_broadcast(&netns->changed);
		}
		pthread_cond_wait(&netns->changed, &netns->lock);
	}
	pthread_mutex_unlock(&netns->lock);
	return NULL;
}

/* With the lock: until what was asked for is done. */
static int answer_await(struct netns *netns)
{
	while (netns->work)
		pthread_cond_wait(&netns->changed, &netns->lock);
	return netns->result;
}

int netns_run(struct netns *netns, int (*work)(void *arg), void *arg)
{
	int result;

	if (!netns)
		return work(arg);
	pthread_mutex_lock(&netns->lock);
	netns->work = work;
	netns->arg = arg;
	pthread_cond_broadcast(&netns->changed);
	result = answer_await(netns);
	pthread_mutex_unlock(&netns->lock);
	return result;
}

static int nothing(void *arg)
{
	return 0;
}

static int thread_start(struct netns *netns)
{
	sigset_t blocked, before;
	int result;

	sigfillset(&blocked); /* the daemon's signals are for its own thread */
	sigdelset(&blocked, PRIVILEGE_SIGNAL);
	netns->work = nothing; /* until it is there */
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	result = -pthread_create(&netns->thread, NULL, netns_thread, netns);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result)
		return result;
	pthread_mutex_lock(&netns->lock);
	result = answer_await(netns);
	netns->ends = result != 0;
	pthread_cond_broadcast(&netns->changed);
	pthread_mutex_unlock(&netns->lock);
	if (result)
		pthread_join(netns->thread, NULL);
	return result;
}

/* Without its thread. */
static void netns_free(struct netns *netns)
{
	pthread_cond_destroy(&netns->changed);
	pthread_mutex_destroy(&netns->lock);
	close(netns->fd);
	free(netns);
}

void netns_close(struct netns *netns)
{
	if (!netns)
		return;
	pthread_mutex_lock(&netns->lock);
	netns->ends = true;
	pthread_cond_broadcast(&netns->changed);
	pthread_mutex_unlock(&netns->lock);
	pthread_join(netns->thread, NULL);
	netns_free(netns);
}

static int netns_start(struct netns **out, int fd)
{
	struct netns *netns = calloc(1, sizeof(*netns));
	int result;

	if (!netns) {
		close(fd);
		return -ENOMEM;
	}
	netns->fd = fd;
	pthread_mutex_init(&netns->lock, NULL);
	pthread_cond_init(&netns->changed, NULL);
	result = thread_start(netns);
	if (result)
		netns_free(netns);
	else
		*out = netns;
	return result;
}

int netns_open(const struct fan_config *config, struct netns **out, char why[1024])
{
	const char *path = config->receiver_netns;
	int fd, result;

	*out = NULL;
	if (!path[0])
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	result = fd < 0 ? -errno : netns_start(out, fd);
	if (!result)
		return 0;
	snprintf(why, 1024,
		 "network.receiver_netns: cannot %s %s: %s; make it (ip netns add NAME makes "
		 "/run/netns/NAME), or set it to \"\" for fanwired's own",
		 fd < 0 ? "open" : "enter", path, strerror(-result));
	return result;
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

int netns_check_ports(const struct fan_config *config, struct netns *netns, char why[1024])
{
	unsigned first = config->port_first, last = config->port_last;
	struct port_sysctls sysctls;
	int result = netns_run(netns, port_sysctls_read, &sysctls);

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
		 first, last, sysctls.low, sysctls.high, netns ? "nsenter --net=" : "",
		 netns ? config->receiver_netns : "", netns ? " " : "", sysctls.reserved,
		 sysctls.reserved[0] ? "," : "", first, last);
	return -EINVAL;
}
