/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One line of an administrator's import: a JSON object
 *   {"user":"NAME","address":"192.0.2.7","port":5000,"id":"16 hex digits"}
 * in any order of its members; id may be left out. Pure function. The plain form, without escapes
 * and beyond ASCII, is read in place; any other by jansson, which also says what is wrong.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/config/config.h"

struct vouch_line {
	const char *user; /* UTF-8 within the line's bytes, not terminated */
	uint8_t user_len;
	struct fan_address address;
	uint16_t port;
	uint64_t id; /* 0: none given */
};

/* 0, or -EINVAL with a sentence in `why`. The line's bytes may be rewritten. */
int vouch_line_read(char *line, size_t len, struct vouch_line *out, char why[256]);
