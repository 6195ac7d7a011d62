/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two secrets that everything else derives from, in state_dir/keys (0600), made at the first
 * start: the master key (filter tags) and the token key (signatures of tokens and grants).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/handle.h"
#include "control/engine/row_mac.h"

#define KEYS_ID_LEN 16

struct keys {
	uint8_t master[FAN_KEY_LEN];
	uint8_t token[FAN_KEY_LEN];
	bool fresh; /* there was no file: drawn just now, and not in a file yet */
};

/*
 * Loads `path`, or draws new keys where it is not there. A file that is not ours alone, or is
 * damaged, is refused: -EPERM, -EPROTO; `why` says what to do.
 */
int keys_load(struct keys *keys, const char *path, char why[512]);
/*
 * Writes fresh keys (temporary file, fsync, rename, fsync of the directory), when the database that
 * goes with them is on disk: keys without a database mean that it was lost.
 */
int keys_save(struct keys *keys, const char *path, char why[512]);
/* Of the checksums in the database's rows (row_mac.h). */
void keys_row_key(const struct keys *keys, uint8_t key[ROW_MAC_KEY_LEN]);
/* Names the keys, and tells nothing of them: the database says whose it is. */
void keys_id(const struct keys *keys, uint8_t id[KEYS_ID_LEN]);
