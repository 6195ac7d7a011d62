/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libfanwire-bypass: subscriptions that receive over a DPDK memif link to the dataplane instead of
 * a scoped kernel socket. All of fanwire.h holds, but for how a subscription is opened; link a
 * program with this library or with libfanwire, not with both.
 *
 * No kernel filter stands before such a receiver: the library itself checks each datagram's user,
 * generations and filter tag against what fanwired granted, and a process that does not use it, or
 * alters it, can read whatever the dataplane sends over its link. docs/security.md says what that
 * means. Addresses must lie inside a prefix that the administrator vouches for (scope.vouched).
 *
 * A link and its subscriptions belong to one thread. They are polled: fan_receive() looks at the
 * link, and sleeps at most 50 microseconds at a time; fan_subscription_fd() tells of time and of
 * fanwired, not of events. There is no descriptor to attach with after a restart of fanwired: the
 * registration then ends (FAN_EVENT_ENDED), and the program subscribes again.
 */
#ifndef FANWIRE_BYPASS_H
#define FANWIRE_BYPASS_H

#include "fanwire.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fan_bypass;

struct fan_bypass_options {
	const char *socket;  /* path of the memif's socket */
	int server;	     /* not 0: listen there; 0: connect to who listens */
	const char *address; /* IPv4 or IPv6 address of this end */
	uint16_t port_first; /* UDP ports, a subscription each; 0: 20000 */
	uint16_t port_last;  /* 0: 23999 */
	unsigned ring_size;  /* slots of a ring, a power of two up to 16384; 0: 4096 */
	unsigned memory_mb;  /* for DPDK; 0: 128 */
	int huge_pages;	     /* not 0: take it from huge pages */
	int eal_runs;	     /* not 0: the program has started DPDK's environment itself */
};

/* What became of the frames that came over the link. */
struct fan_bypass_counts {
	uint64_t received;     /* frames */
	uint64_t accepted;     /* for a subscription, and judged right */
	uint64_t not_ours;     /* no UDP datagram for an address and port of ours */
	uint64_t malformed;    /* headers that do not fit the frame */
	uint64_t super_packet; /* in several buffers */
	uint64_t short_header; /* and so on, as the kernel's filter counts them */
	uint64_t length;
	uint64_t version;
	uint64_t type;
	uint64_t foreign_user;
	uint64_t user_generation;
	uint64_t key_generation;
	uint64_t tag;
	uint64_t queue_full; /* its subscription is not read fast enough */
};

/*
 * Opens the link; the other end may come later. The caller owns *bypass. -EINVAL options that make
 * no sense, -ENOMEM, -EIO DPDK did not start (its messages say why).
 */
FAN_API int fan_bypass_open(struct fan_bypass **bypass, const struct fan_bypass_options *options);
/* As fan_subscribe(), over this link; `family` is the link's. -EAGAIN: every port is taken. */
FAN_API int fan_bypass_subscribe(struct fan_subscription **subscription, struct fan_bypass *bypass,
				 const char *client_socket,
				 const struct fan_subscribe_options *options);
/*
 * Looks at the link once, without waiting; which subscriptions have datagrams waiting (call
 * fan_receive() with timeout 0 on each until it returns 0), at most `max` of them. Returns how many
 * there are. So one thread serves many subscriptions; each still wants its fan_receive() now and
 * then, for its lease. From the first call on, this alone looks at the link, and fan_receive() with
 * a time to wait.
 */
FAN_API unsigned fan_bypass_poll(struct fan_bypass *bypass, struct fan_subscription **ready,
				 unsigned max);
FAN_API void fan_bypass_counts(const struct fan_bypass *bypass, struct fan_bypass_counts *counts);
/* Close its subscriptions first. */
FAN_API void fan_bypass_close(struct fan_bypass *bypass);

#ifdef __cplusplus
}
#endif
#endif
