/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/table_dir.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

int table_dir_make(struct table_dir *dir, char why[1024])
{
	int err;

	snprintf(dir->path, sizeof(dir->path), "/dev/shm/fanwire-bench-XXXXXX");
	if (!mkdtemp(dir->path)) {
		snprintf(why, 1024, "cannot make a directory in /dev/shm: %s", strerror(errno));
		return -errno;
	}
	if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("hugetlbfs", dir->path, "hugetlbfs", 0, NULL) == 0)
		return 0;
	err = errno;
	rmdir(dir->path);
	snprintf(why, 1024, "cannot mount a hugetlbfs (%s): run it as root", strerror(err));
	return -err;
}

void table_dir_remove(struct table_dir *dir)
{
	umount2(dir->path, MNT_DETACH);
	rmdir(dir->path);
}
