/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Test vectors out of docs/wire-format.md: fenced blocks "```vector NAME" with lines
 * "FIELD = HEX". A missing block or field, or bad hex, aborts the test. One test process each.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct bytes {
	uint8_t at[2048];
	size_t len;
};

/* The field of a vector. */
struct bytes vector_bytes(const char *vector, const char *field);
/* The same as a big-endian integer of at most 8 bytes. */
uint64_t vector_number(const char *vector, const char *field);
