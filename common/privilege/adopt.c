/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/privilege/privilege.h"

static bool is_wanted(const char *name, const char *const *only)
{
	if (!only)
		return true;
	for (; *only; only++)
		if (strcmp(name, *only) == 0)
			return true;
	return false;
}

/* By descriptor: between a look at a name and its use another file can take its place. */
static void entry_adopt(int dir_fd, const char *name, uid_t former,
			const struct privilege_user *owner, gid_t group)
{
	int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	/* a file with two names could be one of root's that somebody has linked here */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
	    (st.st_uid == 0 || st.st_uid == former) &&
	    (st.st_uid != owner->uid || st.st_gid != group))
		(void)!fchownat(fd, "", owner->uid, group, AT_EMPTY_PATH);
	close(fd);
}

int privilege_adopt(const char *dir, const struct privilege_user *owner, gid_t group, mode_t mode,
		    const char *const *only)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *entries = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;
	int err = 0;

	if (!entries || fstat(fd, &st)) {
		err = -errno;
		goto out;
	}
	/* mode last: a change of owner takes the set-group-id bit away */
	if (fchown(fd, owner->uid, group) || fchmod(fd, mode))
		err = -errno;
	while (!err && (entry = readdir(entries)))
		if (is_wanted(entry->d_name, only))
			entry_adopt(fd, entry->d_name, st.st_uid, owner, group);
out:
	if (entries)
		closedir(entries);
	else if (fd >= 0)
		close(fd);
	return err;
}
