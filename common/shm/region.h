/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shared-memory region: one file, one writing process, any number of read-only mappings.
 *
 * The writer holds an exclusive open-file-description lock (fcntl F_OFD_SETLK) on the file for its
 * life; the kernel releases it when the process dies, however it dies, and that release is the only
 * thing that means "dead". Region files end with the boot: they live on hugetlbfs or tmpfs.
 * References inside a region are offsets or indices, checked on use.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAN_REGION_MAGIC_REGISTRY UINT64_C(0x3130474552464e41)
#define FAN_REGION_MAGIC_STATE	  UINT64_C(0x3130545453464e41)
#define FAN_REGION_ABI		  5u /* one number for both regions: they are one contract */

/* First line of each region. Written once by the creator; `ready` last, with release. */
struct fan_region_header {
	uint64_t magic;
	uint32_t abi;
	uint32_t header_len;	 /* sizeof of the region's root struct */
	uint64_t size;		 /* bytes of the whole file that are in use */
	uint64_t creation_epoch; /* random, not 0: another one is another region */
	uint32_t ready;		 /* 1 once the layout is complete; __atomic */
	uint32_t resizing;	 /* 1: the file may be longer than `size` */
	uint8_t pad[24];
};
_Static_assert(sizeof(struct fan_region_header) == 64, "region header is one cache line");

struct fan_region {
	void *base;
	size_t size;
	int fd; /* holds the lock (writer) or lets it be queried (reader) */
	bool writer;
};

/*
 * region_create: make a new file (replacing none: -EEXIST), sized and zeroed, locked, mapped
 * read-write. Header filled but for `ready`; the caller completes its layout and then calls
 * fan_region_set_ready(). On hugetlbfs the size is rounded up to the page size.
 *
 * region_open_writer: take over an existing file: lock (-EBUSY: another process writes it), check
 * magic, ABI, header_len, size and ready, map read-write.
 *
 * region_open_reader: the same checks, mapped PROT_READ, no lock.
 *
 * All: 0 or -errno; `why` (256 bytes, may be NULL) gets a sentence for a person: what was wrong,
 * in which file, and what to do. -ENOENT no file; -EPROTO another magic, ABI or layout;
 * -ENODATA truncated or never completed.
 */
int fan_region_create(struct fan_region *region, const char *path, uint64_t magic,
		      uint32_t header_len, size_t size, char why[256]);
int fan_region_open_writer(struct fan_region *region, const char *path, uint64_t magic,
			   uint32_t header_len, char why[256]);
int fan_region_open_reader(struct fan_region *region, const char *path, uint64_t magic,
			   uint32_t header_len, char why[256]);
void fan_region_set_ready(struct fan_region *region);
/*
 * Another size for the writer's region, which may be mapped elsewhere afterwards: its end is added,
 * or cut off. Whoever dies meanwhile leaves a region that counts as truncated. On an error it is as
 * it was.
 */
int fan_region_resize(struct fan_region *region, const char *path, size_t size, char why[256]);
/* Whether some process holds the writer's lock of the file at this reader's descriptor. */
bool fan_region_writer_alive(const struct fan_region *region);
/* Whether the file that is mapped has its name still (a deleted and recreated one is another). */
bool fan_region_is_current(const struct fan_region *region);
/* Unmaps and closes; the writer's lock goes with it; the file stays. */
void fan_region_close(struct fan_region *region);
