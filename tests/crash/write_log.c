/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/write_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct noted_file { /* ours, then the real one's own */
	sqlite3_file base;
	sqlite3_file *real;
	enum write_file file;
	bool noted;
};

static sqlite3_vfs vfs, *real_vfs;
static struct write_note *notes;
static size_t note_cnt, note_room;

static void *grow(void *memory, size_t len)
{
	void *grown = realloc(memory, len);

	if (!grown) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	return grown;
}

static void note(enum write_file file, enum write_kind kind, uint64_t off, const void *bytes,
		 size_t len)
{
	struct write_note *n;

	if (note_cnt == note_room) {
		note_room = note_room ? 2 * note_room : 256;
		notes = grow(notes, note_room * sizeof(*notes));
	}
	n = &notes[note_cnt++];
	*n = (struct write_note){.file = file, .kind = kind, .off = off, .len = len};
	if (len) {
		n->bytes = grow(NULL, len);
		memcpy(n->bytes, bytes, len);
	}
}

#define REAL(file) (((struct noted_file *)(file))->real)

static int on_close(sqlite3_file *file)
{
	return REAL(file)->pMethods->xClose(REAL(file));
}

static int on_read(sqlite3_file *file, void *buffer, int len, sqlite3_int64 off)
{
	return REAL(file)->pMethods->xRead(REAL(file), buffer, len, off);
}

static int on_write(sqlite3_file *file, const void *bytes, int len, sqlite3_int64 off)
{
	struct noted_file *f = (struct noted_file *)file;

	if (f->noted)
		note(f->file, WRITE_BYTES, (uint64_t)off, bytes, (size_t)len);
	return f->real->pMethods->xWrite(f->real, bytes, len, off);
}

static int on_truncate(sqlite3_file *file, sqlite3_int64 len)
{
	struct noted_file *f = (struct noted_file *)file;

	if (f->noted)
		note(f->file, WRITE_TRUNCATE, (uint64_t)len, NULL, 0);
	return f->real->pMethods->xTruncate(f->real, len);
}

static int on_sync(sqlite3_file *file, int flags)
{
	struct noted_file *f = (struct noted_file *)file;

	if (f->noted)
		note(f->file, WRITE_SYNC, 0, NULL, 0);
	return f->real->pMethods->xSync(f->real, flags);
}

static int on_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return REAL(file)->pMethods->xFileSize(REAL(file), size);
}

static int on_lock(sqlite3_file *file, int level)
{
	return REAL(file)->pMethods->xLock(REAL(file), level);
}

static int on_unlock(sqlite3_file *file, int level)
{
	return REAL(file)->pMethods->xUnlock(REAL(file), level);
}

static int on_check_lock(sqlite3_file *file, int *out)
{
	return REAL(file)->pMethods->xCheckReservedLock(REAL(file), out);
}

static int on_control(sqlite3_file *file, int op, void *arg)
{
	return REAL(file)->pMethods->xFileControl(REAL(file), op, arg);
}

static int on_sector_size(sqlite3_file *file)
{
	return REAL(file)->pMethods->xSectorSize(REAL(file));
}

static int on_characteristics(sqlite3_file *file)
{
	return REAL(file)->pMethods->xDeviceCharacteristics(REAL(file));
}

static int on_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **out)
{
	return REAL(file)->pMethods->xShmMap(REAL(file), page, size, extend, out);
}

static int on_shm_lock(sqlite3_file *file, int off, int n, int flags)
{
	return REAL(file)->pMethods->xShmLock(REAL(file), off, n, flags);
}

static void on_shm_barrier(sqlite3_file *file)
{
	REAL(file)->pMethods->xShmBarrier(REAL(file));
}

static int on_shm_unmap(sqlite3_file *file, int delete_it)
{
	return REAL(file)->pMethods->xShmUnmap(REAL(file), delete_it);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2, /* no memory-mapped writes past us */
	.xClose = on_close,
	.xRead = on_read,
	.xWrite = on_write,
	.xTruncate = on_truncate,
	.xSync = on_sync,
	.xFileSize = on_size,
	.xLock = on_lock,
	.xUnlock = on_unlock,
	.xCheckReservedLock = on_check_lock,
	.xFileControl = on_control,
	.xSectorSize = on_sector_size,
	.xDeviceCharacteristics = on_characteristics,
	.xShmMap = on_shm_map,
	.xShmLock = on_shm_lock,
	.xShmBarrier = on_shm_barrier,
	.xShmUnmap = on_shm_unmap,
};

static enum write_file file_of(int flags)
{
	if (flags & SQLITE_OPEN_WAL)
		return WRITE_WAL;
	return flags & SQLITE_OPEN_MAIN_JOURNAL ? WRITE_JOURNAL : WRITE_DATABASE;
}

static int on_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *out)
{
	struct noted_file *f = (struct noted_file *)file;
	int rc;

	f->real = (sqlite3_file *)(f + 1);
	f->file = file_of(flags);
	f->noted = flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL);
	rc = real_vfs->xOpen(real_vfs, name, f->real, flags, out);
	f->base.pMethods = f->real->pMethods ? &methods : NULL;
	return rc;
}

/* What a file's name has behind the database's. */
static const char *const file_end[] = {
	[WRITE_DATABASE] = "", [WRITE_WAL] = "-wal", [WRITE_JOURNAL] = "-journal"};

static int on_delete(sqlite3_vfs *self, const char *name, int sync_dir)
{
	const char *end = strrchr(name, '-');

	for (enum write_file file = WRITE_WAL; end && file < WRITE_FILE_CNT; file++)
		if (strcmp(end, file_end[file]) == 0)
			note(file, WRITE_DELETE, 0, NULL, 0);
	return real_vfs->xDelete(real_vfs, name, sync_dir);
}

void write_log_begin(void)
{
	real_vfs = sqlite3_vfs_find(NULL);
	vfs = *real_vfs;
	vfs.zName = "write-log";
	vfs.pNext = NULL;
	vfs.szOsFile = (int)sizeof(struct noted_file) + real_vfs->szOsFile;
	vfs.xOpen = on_open;
	vfs.xDelete = on_delete;
	sqlite3_vfs_register(&vfs, 1);
}

void write_log_end(void)
{
	sqlite3_vfs_unregister(&vfs);
	sqlite3_vfs_register(real_vfs, 1);
}

void write_log_free(void)
{
	for (size_t i = 0; i < note_cnt; i++)
		free(notes[i].bytes);
	free(notes);
	notes = NULL;
	note_cnt = note_room = 0;
}

size_t write_log_cnt(void)
{
	return note_cnt;
}

const struct write_note *write_log_at(size_t idx)
{
	return &notes[idx];
}

/* ---- images ---- */

static void image_resize(struct write_image *image, size_t len)
{
	if (len > image->room) {
		image->room = 2 * len;
		image->bytes = grow(image->bytes, image->room);
	}
	if (len > image->len)
		memset(image->bytes + image->len, 0, len - image->len);
	image->len = len;
	image->there = true;
}

void write_images_copy(struct write_images *to, const struct write_images *from)
{
	for (unsigned i = 0; i < WRITE_FILE_CNT; i++) {
		const struct write_image *image = &from->file[i];

		to->file[i].len = 0;
		image_resize(&to->file[i], image->len);
		if (image->len)
			memcpy(to->file[i].bytes, image->bytes, image->len);
		to->file[i].there = image->there;
	}
}

void write_images_free(struct write_images *images)
{
	for (unsigned i = 0; i < WRITE_FILE_CNT; i++)
		free(images->file[i].bytes);
	memset(images, 0, sizeof(*images));
}

void write_images_apply(struct write_images *images, const struct write_note *n, size_t cut)
{
	struct write_image *image = &images->file[n->file];
	size_t len = n->len < cut ? n->len : cut;

	switch (n->kind) {
	case WRITE_BYTES:
		if (n->off + len > image->len)
			image_resize(image, n->off + len);
		memcpy(image->bytes + n->off, n->bytes, len);
		break;
	case WRITE_TRUNCATE:
		image_resize(image, n->off);
		break;
	case WRITE_DELETE:
		image->len = 0;
		image->there = false;
		break;
	case WRITE_SYNC:
		break;
	}
}

static int store_one(const struct write_image *image, const char *path)
{
	int fd, err = 0;

	unlink(path);
	if (!image->there)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (image->len && write(fd, image->bytes, image->len) != (ssize_t)image->len)
		err = -EIO;
	close(fd);
	return err;
}

int write_images_store(const struct write_images *images, const char *path)
{
	char side[4096];
	int err = 0;

	for (enum write_file file = WRITE_DATABASE; !err && file < WRITE_FILE_CNT; file++) {
		snprintf(side, sizeof(side), "%s%s", path, file_end[file]);
		err = store_one(&images->file[file], side);
	}
	snprintf(side, sizeof(side), "%s-shm", path);
	unlink(side);
	return err;
}
