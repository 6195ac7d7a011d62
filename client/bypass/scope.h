/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel's scope filter does for a socket (bpf/scope_filter.bpf.c), for a receiver that
 * has no kernel before it: the same checks in the same order. Pure functions; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/wire/handle.h"

struct bypass_scope {
	uint8_t handle[FAN_HANDLE_LEN];
	uint32_t user_generation;
	uint8_t key_generation;
	uint8_t previous_key_generation; /* equal to the present one: there is none */
	uint8_t tag_key[FAN_TAG_KEY_LEN];
	uint8_t previous_tag_key[FAN_TAG_KEY_LEN];
};

enum bypass_verdict {
	BYPASS_ACCEPTED,
	BYPASS_DROP_SHORT,
	BYPASS_DROP_LENGTH,
	BYPASS_DROP_VERSION,
	BYPASS_DROP_TYPE,
	BYPASS_DROP_FOREIGN_USER,
	BYPASS_DROP_USER_GENERATION,
	BYPASS_DROP_KEY_GENERATION,
	BYPASS_DROP_TAG,
	BYPASS_VERDICT_CNT
};

/* One datagram's UDP payload, and for whom it would be. */
struct bypass_case {
	const struct bypass_scope *scope;
	const uint8_t *packet;
	size_t len;
	enum bypass_verdict verdict; /* of bypass_judge() */
};

/* Judges cnt datagrams, each by its own scope. */
void bypass_judge(struct bypass_case *cases, unsigned cnt);
