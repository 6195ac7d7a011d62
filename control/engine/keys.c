/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Three lines: magic, then each key in hex. */
#define KEYS_MAGIC    "fanwire keys 1\n"
#define KEY_LINE_LEN  (7 + 2 * FAN_KEY_LEN + 1) /* "master " or "token  ", digits, newline */
#define KEYS_TEXT_LEN (sizeof(KEYS_MAGIC) - 1 + 2 * KEY_LINE_LEN)

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_directory_of(const char *path)
{
	char copy[PATH_MAX];
	int fd, err;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = fsync(fd) ? -errno : 0;
	close(fd);
	return err;
}

static int keys_write(const char *path, const char *text, size_t len)
{
	char temporary[PATH_MAX];
	int fd, err;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", path) >= sizeof(temporary))
		return -ENAMETOOLONG;
	unlink(temporary); /* what an interrupted first start left behind */
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = fchmod(fd, 0600) ? -errno : write_all(fd, text, len);
	if (!err && fsync(fd))
		err = -errno;
	close(fd);
	if (!err && rename(temporary, path))
		err = -errno;
	if (err)
		unlink(temporary);
	return err ? err : sync_directory_of(path);
}

int keys_save(struct keys *keys, const char *path, char why[512])
{
	char text[KEYS_TEXT_LEN + 1], master[2 * FAN_KEY_LEN + 1], token[2 * FAN_KEY_LEN + 1];
	int err;

	fan_hex(master, keys->master, FAN_KEY_LEN);
	fan_hex(token, keys->token, FAN_KEY_LEN);
	snprintf(text, sizeof(text), KEYS_MAGIC "master %s\ntoken  %s\n", master, token);
	err = keys_write(path, text, KEYS_TEXT_LEN);
	sodium_memzero(text, sizeof(text));
	sodium_memzero(master, sizeof(master));
	sodium_memzero(token, sizeof(token));
	if (err)
		snprintf(why, 512, "cannot write the keys to %s: %s; make its directory writable",
			 path, strerror(-err));
	else
		keys->fresh = false;
	return err;
}

void keys_id(const struct keys *keys, uint8_t id[KEYS_ID_LEN])
{
	static const uint8_t label[] = "fanwire database";

	crypto_generichash(id, KEYS_ID_LEN, label, sizeof(label) - 1, keys->master, FAN_KEY_LEN);
}

void keys_row_key(const struct keys *keys, uint8_t key[ROW_MAC_KEY_LEN])
{
	static const uint8_t label[] = "fanwire database rows";

	crypto_generichash(key, ROW_MAC_KEY_LEN, label, sizeof(label) - 1, keys->master,
			   FAN_KEY_LEN);
}

static int key_parse(uint8_t key[FAN_KEY_LEN], const char *line, const char *label)
{
	char digits[2 * FAN_KEY_LEN + 1];
	int err;

	if (memcmp(line, label, 7) != 0 || line[KEY_LINE_LEN - 1] != '\n')
		return -EPROTO;
	memcpy(digits, line + 7, 2 * FAN_KEY_LEN);
	digits[2 * FAN_KEY_LEN] = '\0';
	err = fan_unhex(key, FAN_KEY_LEN, digits);
	sodium_memzero(digits, sizeof(digits));
	return err ? -EPROTO : 0;
}

static int keys_parse(struct keys *keys, const char *text, size_t len)
{
	const char *lines = text + sizeof(KEYS_MAGIC) - 1;

	if (len != KEYS_TEXT_LEN || memcmp(text, KEYS_MAGIC, sizeof(KEYS_MAGIC) - 1) != 0)
		return -EPROTO;
	if (key_parse(keys->master, lines, "master "))
		return -EPROTO;
	return key_parse(keys->token, lines + KEY_LINE_LEN, "token  ");
}

static int keys_check_owner(int fd, const char *path, char why[512])
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0)
		return 0;
	snprintf(
		why, 512,
		"%s can be read or written by others (mode %04o, owner %u): whoever read it can "
		"sign tokens; if nobody did, run: chown %u %s && chmod 600 %s; otherwise remove it "
		"(every token becomes invalid) and start again",
		path, st.st_mode & 07777, st.st_uid, geteuid(), path, path);
	return -EPERM;
}

int keys_load(struct keys *keys, const char *path, char why[512])
{
	char text[KEYS_TEXT_LEN + 1];
	ssize_t len;
	int fd, err;

	keys->fresh = false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		randombytes_buf(keys->master, FAN_KEY_LEN);
		randombytes_buf(keys->token, FAN_KEY_LEN);
		keys->fresh = true;
		return 0;
	}
	if (fd < 0) {
		err = -errno;
		snprintf(why, 512, "cannot open the keys %s: %s", path, strerror(-err));
		return err;
	}
	err = keys_check_owner(fd, path, why);
	if (err)
		goto out;
	len = read(fd, text, sizeof(text));
	err = len < 0 ? -errno : keys_parse(keys, text, (size_t)len);
	sodium_memzero(text, sizeof(text));
	if (err)
		snprintf(why, 512,
			 "the keys in %s are damaged: restore the file from a copy, or remove it "
			 "and "
			 "start again (every token becomes invalid)",
			 path);
out:
	close(fd);
	return err;
}
