/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What SQLite does to its files, in order: a VFS between it and the kernel notes each write, each
 * truncation, each sync and each deletion of a database, its -wal and the -journal that it has
 * until the -wal takes over. From the notes the files can be made as they stood after any of them:
 * as a crash of the process leaves them, or one of the machine. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum write_file { WRITE_DATABASE, WRITE_WAL, WRITE_JOURNAL, WRITE_FILE_CNT };
enum write_kind { WRITE_BYTES, WRITE_TRUNCATE, WRITE_SYNC, WRITE_DELETE };

struct write_note {
	enum write_file file;
	enum write_kind kind;
	uint64_t off; /* of bytes; of a truncation the length */
	size_t len;
	uint8_t *bytes;
};

/* Registers the VFS as SQLite's default, and notes from then on. */
void write_log_begin(void);
/* The former VFS is the default again; the notes stay. */
void write_log_end(void);
void write_log_free(void);
size_t write_log_cnt(void);
const struct write_note *write_log_at(size_t idx);

/* A file's bytes as the notes make it. */
struct write_image {
	uint8_t *bytes;
	size_t len, room;
	bool there;
};
struct write_images {
	struct write_image file[WRITE_FILE_CNT];
};
void write_images_copy(struct write_images *to, const struct write_images *from);
void write_images_free(struct write_images *images);
/* `cut`: of bytes, how many of them arrive; more than there are: all. */
void write_images_apply(struct write_images *images, const struct write_note *note, size_t cut);
/* As path, path-wal and path-journal; a file that is not there is removed, and so is path-shm. 0 or
 * -errno. */
int write_images_store(const struct write_images *images, const char *path);
