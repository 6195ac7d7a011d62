/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two secrets that everything else derives from, in state_dir/keys (0600), made at the first
 * start: the master key (filter tags) and the token key (signatures of tokens and grants).
 */
#pragma once

#include <stdint.h>

#include "common/wire/handle.h"

struct keys {
	uint8_t master[FAN_KEY_LEN];
	uint8_t token[FAN_KEY_LEN];
};

/*
 * Loads `path`, or makes it (temporary file, fsync, rename, fsync of the directory). A file that is
 * not ours alone, or is damaged, is refused: -EPERM, -EPROTO; `why` says what to do.
 */
int keys_load(struct keys *keys, const char *path, char why[512]);
