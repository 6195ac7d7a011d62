/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/rest_log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "common/privilege/privilege.h"

#define MAGIC UINT64_C(0x3130545345524e46)

struct entry {
	uint64_t released_ns; /* 0: not resting; written last */
	uint8_t handle[16];
};

struct file {
	uint64_t magic;
	uint32_t cnt, pad;
	uint8_t pool[16]; /* hash of addresses and range: idx means the same */
	struct entry entries[];
};

struct rest_log {
	struct file *file;
	size_t len;
	uint32_t cnt;
};

static void hash_pool(uint8_t pool[16], const struct fan_config *config)
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, 16);
	for (unsigned i = 0; i < config->receiver_address_cnt; i++)
		crypto_generichash_update(&state, config->receiver_address[i].bytes, 16);
	crypto_generichash_update(&state, (const uint8_t *)&config->port_first, 2);
	crypto_generichash_update(&state, (const uint8_t *)&config->port_last, 2);
	crypto_generichash_final(&state, pool, 16);
}

static int map(struct rest_log *log, int fd)
{
	struct stat file;

	if (fstat(fd, &file))
		return -errno;
	if (!S_ISREG(file.st_mode))
		return -EEXIST;
	/* Of another size: emptied first, so that nothing old is read under a new meaning. */
	if ((size_t)file.st_size != log->len && ftruncate(fd, 0))
		return -errno;
	if (posix_fallocate(fd, 0, (off_t)log->len)) /* no SIGBUS later on a full disk */
		return -ENOSPC;
	log->file = mmap(NULL, log->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (log->file == MAP_FAILED) {
		log->file = NULL;
		return -errno;
	}
	return 0;
}

static void check(struct rest_log *log, const struct fan_config *config)
{
	struct file *file = log->file;
	uint8_t pool[16];

	hash_pool(pool, config);
	if (file->magic == MAGIC && file->cnt == log->cnt && !memcmp(file->pool, pool, 16))
		return;
	memset(file, 0, log->len);
	memcpy(file->pool, pool, sizeof(pool));
	file->cnt = log->cnt;
	file->magic = MAGIC;
}

int rest_log_open(struct rest_log **out, const struct fan_config *config, char why[1024])
{
	struct rest_log *log = calloc(1, sizeof(*log));
	char path[FAN_PATH_MAX + 8];
	int err = -ENOMEM, fd;
	uint64_t before;

	snprintf(path, sizeof(path), "%s/ports", config->run_dir);
	before = privilege_raise(PRIVILEGE(CAP_DAC_OVERRIDE)); /* run_dir is root's */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	privilege_lower(before);
	if (!log || fd < 0) {
		err = fd < 0 ? -errno : -ENOMEM;
		goto fail;
	}
	log->cnt = config->receiver_address_cnt * (config->port_last - config->port_first + 1U);
	log->len = sizeof(struct file) + log->cnt * sizeof(struct entry);
	err = map(log, fd);
	if (err)
		goto fail;
	close(fd);
	check(log, config);
	*out = log;
	return 0;
fail:
	snprintf(why, 1024,
		 "cannot keep the resting ports in %s: %s; instance.run_dir must exist, be "
		 "writable and have room",
		 path, strerror(-err));
	if (fd >= 0)
		close(fd);
	free(log);
	return err;
}

void rest_log_close(struct rest_log *log)
{
	if (!log)
		return;
	munmap(log->file, log->len);
	free(log);
}

void rest_log_add(struct rest_log *log, uint32_t idx, const uint8_t handle[16], uint64_t now_ns)
{
	struct entry *entry = &log->file->entries[idx];

	memcpy(entry->handle, handle, sizeof(entry->handle));
	/* The process may die between the two stores: then the entry says nothing yet. */
	__atomic_store_n(&entry->released_ns, now_ns, __ATOMIC_RELEASE);
}

void rest_log_del(struct rest_log *log, uint32_t idx)
{
	__atomic_store_n(&log->file->entries[idx].released_ns, 0, __ATOMIC_RELEASE);
}

static int by_time(const void *a, const void *b, void *arg)
{
	const struct entry *entries = arg;
	uint64_t one = entries[*(const uint32_t *)a].released_ns;
	uint64_t other = entries[*(const uint32_t *)b].released_ns;

	return one < other ? -1 : one > other;
}

int rest_log_each(const struct rest_log *log, uint64_t now_ns, uint64_t quarantine_ns,
		  rest_log_on_rest on_rest, void *arg)
{
	const struct entry *entries = log->file->entries;
	uint32_t *idx = calloc(log->cnt, sizeof(*idx)), cnt = 0;

	if (!idx)
		return -ENOMEM;
	for (uint32_t i = 0; i < log->cnt; i++) {
		uint64_t then = entries[i].released_ns;

		/* Of a later time: the clock began anew with the boot, and so did all sockets. */
		if (then && then <= now_ns && now_ns - then < quarantine_ns)
			idx[cnt++] = i;
	}
	qsort_r(idx, cnt, sizeof(*idx), by_time, (void *)(uintptr_t)entries);
	for (uint32_t i = 0; i < cnt; i++)
		on_rest(arg, idx[i], entries[idx[i]].handle, entries[idx[i]].released_ns);
	free(idx);
	return 0;
}
