/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A folder for regions, on huge pages: a hugetlbfs in a mount namespace of this process, so that
 * whatever ends it, nothing stays mounted and no page is taken. Once a process, before it has
 * threads.
 */
#pragma once

struct table_dir {
	char path[64];
};

/* 0 or -errno with a sentence in why. */
int table_dir_make(struct table_dir *dir, char why[1024]);
/* Its files go with it. */
void table_dir_remove(struct table_dir *dir);
