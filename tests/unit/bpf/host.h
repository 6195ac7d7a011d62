/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receiving host for one test: network and mount namespaces of the test process's own, which the
 * kernel takes away with it however it ends: addresses, bpffs, pins and guard included.
 * Needs root and a real kernel.
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "common/wire/handle.h"
#include "control/agent/scope/scoped_socket.h"

#define ENGINE4	    "198.18.0.1"
#define ENGINE6	    "fd00:f1::1"
#define RECEIVER4   "198.18.0.2"
#define RECEIVER6   "fd00:f1::2"
#define ELSEWHERE4  "198.18.0.9"
#define ELSEWHERE6  "fd00:f1::9"
#define ENGINE_PORT 7400
#define HOST_DIR    "/mnt" /* a tmpfs of the test's own stands there */

union name { /* of a socket */
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

struct host {
	struct fan_config config;
	struct scope_maps *maps;
};

/* Namespaces and configuration; scope_maps is opened by host_open(). Failure fails the test. */
void host_init(struct host *host, uint16_t port_first, uint16_t port_last);
void host_open(struct host *host);
void host_fini(struct host *host);

/* Runs a shell command that must succeed. */
void host_run(const char *command);
void host_sysctl(const char *path, const char *value);

/* Scope of the user `name`, generation 1, key generation 1, keys derived from a constant. */
void host_scope(struct scope *scope, const char *name);
/* A scoped socket of that user on the receiver address of the family (4 or 6). */
struct scoped_socket host_scoped(struct host *host, int family, uint16_t port, const char *user);

/* A UDP socket, bound to address:port unless address is NULL. */
int host_udp(int family, const char *address, uint16_t port);
union name host_name(const char *address, uint16_t port, socklen_t *len);
int host_send(int fd, const char *address, uint16_t port, const void *bytes, size_t len);
uint16_t host_port(int fd);
/* Bytes received within 200 ms, or -1. */
ssize_t host_receive(int fd, void *bytes, size_t len);

/* A delivery to `user` with payload_len bytes, tagged; returns its length. */
size_t host_packet(uint8_t *packet, const char *user, size_t payload_len);
/* The same from a header of the caller's; the tag key is that of user, generations 1 and 1. */
size_t host_packet_of(uint8_t *packet, const struct fan_delivery *delivery, const char *user);
void host_delivery(struct fan_delivery *delivery, const char *user, size_t payload_len);

/* Counters now; and waiting (2 s) until one rose by `rise` since. Others must not have moved. */
struct tally {
	uint64_t verdicts[SCOPE_VERDICT_CNT];
	uint64_t guards[GUARD_VERDICT_CNT];
};
struct tally host_tally(struct host *host);
void host_expect_verdict(struct host *host, const struct tally *before, enum scope_verdict verdict,
			 uint64_t rise);
void host_expect_guard(struct host *host, const struct tally *before, enum guard_verdict verdict,
		       uint64_t rise);
