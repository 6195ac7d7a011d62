/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pin directory: a bpffs directory of one instance, in which its maps, programs and links
 * outlive fanwired. Its lock tells whether a fanwired of this instance runs.
 */
#pragma once

#include <stdbool.h>

struct bpf_map;

/* Makes `dir` where there is none, and mounts a bpffs on it where it lies on none. */
int pins_prepare(const char *dir, char why[1024]);

/*
 * The same, and locks it.
 * Returns a descriptor that holds the lock, or -errno; -EBUSY: another process holds it.
 */
int pins_open(const char *dir, char why[1024]);

/* Pins fd as dir/name, unless that very object is pinned there already. Something else there goes.
 */
int pin_put(int fd, const char *dir, const char *name);
/* 0 also where there is none. */
int pin_remove(const char *dir, const char *name);
/* Descriptor of what is pinned as dir/name, or -errno. */
int pin_get(const char *dir, const char *name);

/*
 * Makes a skeleton's map, not yet loaded, use the map that is pinned under its name. 0 also where
 * none is pinned. -EPROTO: the pinned one has another layout, or less room.
 */
int pin_adopt_map(struct bpf_map *map, const char *dir);
/* Such a failure says that this process is short of descriptors or memory, and nothing of a pin. */
bool pin_unseen(int result);
/* Ids of two objects of one sort (maps, programs or links) agree. */
bool pin_same(int fd, int other_fd);

/* What libbpf last complained of in this thread, one line, "" for nothing; and listening to it. */
void pin_libbpf_listen(void);
const char *pin_libbpf_complaint(void);
