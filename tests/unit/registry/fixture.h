/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the registry's tests share: a registry in a directory of its own, a state region whose
 * workers are driven by hand, and a check of everything that must hold in a table.
 */
#pragma once

#include "common/shm/ring.h"
#include "common/wire/handle.h"
#include "common/wire/wire.h"
#include "control/registry/internal.h"

#define SECOND_NS UINT64_C(1000000000)

struct fixture {
	struct fan_config config;
	struct registry *r;
	char why[1024];
	struct fan_region state; /* base NULL: no dataplane */
	uint64_t now_ns;
	uint32_t nexthop;
};

/* Directory and configuration; nothing is open yet. */
void fixture_init(struct fixture *f);
void fixture_fini(struct fixture *f);
/* Opens the registry, or asserts. */
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);

/* A dataplane: its state region, locked, all words even. */
void dataplane_start(struct fixture *f);
/* As the kernel does when it dies: the lock goes. The file stays. */
void dataplane_kill(struct fixture *f);
void dataplane_remove_file(struct fixture *f);
struct fan_worker_state *worker(struct fixture *f, unsigned idx);
void worker_enter(struct fixture *f, unsigned idx); /* its word becomes odd */
void worker_pass(struct fixture *f, unsigned idx);  /* a quiescent point */

/* Housekeeping, `after_ns` later. */
void keep(struct fixture *f, uint64_t after_ns);

void user_handle(uint8_t handle[16], unsigned user);
void thread_channels(uint64_t *channels, unsigned cnt);
/* Threads of a user that all hash into one bucket, so that its chain overflows. */
void crowded_channels(const struct fixture *f, unsigned user, uint64_t *channels, unsigned cnt);
struct registry_user_keys user_keys(unsigned user);
/* Roots of a key generation, made of its number. */
void roots_give(struct fixture *f, uint8_t generation);
/* Asserts that every group in use has the tag key of the generation in force. */
void tag_keys_check(const struct fixture *f);
struct registry_connection connection_spec(const struct fixture *f, unsigned user);
/* Adds and activates, or asserts. Returns the id; *generation may be NULL. */
uint64_t connect_user(struct fixture *f, unsigned user, const uint64_t *channels, unsigned cnt,
		      uint32_t *generation);
int try_connect(struct fixture *f, unsigned user, const uint64_t *channels, unsigned cnt,
		uint64_t *id);
void disconnect(struct fixture *f, uint64_t id);
/* Endpoints of (user, channel); -1 where there is no group. */
int endpoint_cnt(const struct fixture *f, unsigned user, uint64_t channel);
struct registry_counts counts_of(const struct fixture *f);
/* The connection, or asserts. */
struct registry_connection connection_of(const struct fixture *f, uint64_t id);
bool connection_there(const struct fixture *f, uint64_t id);

/* Asserts all invariants of the table and of the books. */
void table_check(const struct fixture *f);
/* Ends every connection, lets everything rest out, and asserts that nothing is left or lost. */
void drain_and_check(struct fixture *f);
