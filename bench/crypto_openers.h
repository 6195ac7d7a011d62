/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three ways to open a sealed publish, each with the key schedules of all sessions made beforehand:
 * ipsec-mb by the dataplane's own function (dataplane/open.h), OpenSSL's EVP, libsodium.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define KEY_LEN 32

struct opener {
	const char *name;
	/* Expands the keys, sessions * KEY_LEN bytes; NULL where the library or the CPU cannot. */
	void *(*create)(const uint8_t *keys, uint32_t sessions);
	void (*destroy)(void *opener, uint32_t sessions);
	/* Opens in place what wire holds, a publish of payload_len bytes; false if it is forged. */
	bool (*open)(void *opener, uint32_t session, uint8_t *wire, uint16_t payload_len,
		     uint64_t sequence);
};

/* By name, as told on the command line; NULL if there is none. */
const struct opener *opener_find(const char *name);
/* The library's version. */
const char *opener_version(const struct opener *opener);
