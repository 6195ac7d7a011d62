/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both regions of a small site as bytes, to be damaged; and what must hold of a table whatever was
 * done to it. Without Criterion: fuzz targets and stress programs use it too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config/config.h"
#include "common/shm/table.h"
#include "common/wire/wire.h"

#define IMAGE_USERS 8

struct image {
	struct fan_config config;    /* its region_dir is a folder of our own in /dev/shm */
	uint8_t *bytes[2], *work[2]; /* registry, state: as they were made; to be damaged */
	size_t len[2];
	char path[2][2 * FAN_PATH_MAX];
};

/* Makes the folder, a registry with users, threads, a session, and a state region. Aborts where it
 * cannot: nothing of it is under test. */
void image_make(struct image *image);
void image_remove(struct image *image);
/* Work is what was made again. */
void image_reset(struct image *image);
/* The files become the first `len` bytes of work. */
void image_write(const struct image *image, unsigned which, size_t len);

/* The handle of a user of the image. */
void image_handle(uint8_t handle[FAN_HANDLE_LEN], unsigned user);

/*
 * Endpoints that a lookup of the image's users and channels finds under another user's handle. What
 * a worker would compare before it sends is left out of it: each is counted.
 */
unsigned image_foreign(const struct fan_table *table);
/* The same of every group that a bucket names: for a table that was swept and accepted. */
unsigned image_foreign_anywhere(const struct fan_table *table);
