/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A receiving host and an engine beside it, for measuring what the kernel's wall costs: network
 * namespaces of this process's own, joined by veth, scoped sockets made by the agent's own
 * functions, and a port guard that is attached only while it is measured (it acts on the whole
 * machine). All of it ends with the process. Root; one thread.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/agent/scope/guard.h"
#include "control/agent/scope/scope_maps.h"

#define FILTER_SOCKETS_MAX 1024
#define FILTER_PACKET_MAX  1500

enum filter_case { CASE_NONE, CASE_ACCEPT, CASE_FILTER, CASE_GUARD, CASE_BOTH, CASE_CNT };

struct filter_host {
	struct fan_config config;
	struct scope_maps *maps;
	struct guard guard;
	bool guarded;
	enum filter_case kind;
	bool loopback;	     /* sender and receiver in one namespace */
	bool offload;	     /* veth: UDP checksums as from a NIC that verifies them */
	unsigned scopes;     /* entries of the map, the measured sockets' included */
	unsigned socket_cnt; /* receiving ones, each of a user of its own */
	unsigned payload_len;
	int accept_fd; /* the program that accepts everything, or -1 */
	int sender;    /* the engine's: raw frames on veth, a UDP socket on loopback */
	int stranger;  /* in the port range, without scope: what the guard must refuse */
	int fds[FILTER_SOCKETS_MAX];
	struct sockaddr_in names[FILTER_SOCKETS_MAX];
	size_t packet_len;
	uint8_t packets[FILTER_SOCKETS_MAX][FILTER_PACKET_MAX];
	size_t frame_len;
	uint8_t frames[FILTER_SOCKETS_MAX][FILTER_PACKET_MAX]; /* the same, from Ethernet on */
};

/*
 * Fills in the rest from kind, loopback, scopes, socket_cnt, payload_len and the port range of
 * config. -errno, and `why` says what is wrong.
 */
int filter_host_open(struct filter_host *host, char why[256]);
void filter_host_close(struct filter_host *host);

static inline bool filter_host_has_filter(const struct filter_host *host)
{
	return host->kind == CASE_FILTER || host->kind == CASE_BOTH;
}

static inline bool filter_host_has_guard(const struct filter_host *host)
{
	return host->kind == CASE_GUARD || host->kind == CASE_BOTH;
}

/* Frame of the engine that carries the packet to a receiver; its length. */
size_t filter_host_frame(const struct filter_host *host, uint8_t *frame,
			 const struct sockaddr_in *to, const uint8_t *packet);
/* Scope of user number `user`. */
void filter_host_scope(struct scope *scope, unsigned user);

/* Attaches the guard where the case has one, and shows by forged and stray packets what acts. */
int filter_host_start(struct filter_host *host, char why[256]);
void filter_host_stop(struct filter_host *host);
