/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define WHY_LEN 256

__attribute__((format(printf, 3, 4))) static int fail(char *why, int rc, const char *format, ...)
{
	va_list args;

	if (why) {
		va_start(args, format);
		vsnprintf(why, WHY_LEN, format, args);
		va_end(args);
	}
	return rc;
}

/* The whole file, by its open file description: it lives and dies with the writer's descriptor. */
static struct flock whole_file(void)
{
	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

static bool is_locked(int fd)
{
	struct flock lock = whole_file();

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* A nameless file in path's directory, so that a creator that dies leaves nothing behind. */
static int open_nameless(const char *path, char *why)
{
	char dir[PATH_MAX];
	int fd;

	if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
		return fail(why, -ENAMETOOLONG, "%.60s...: path is too long", path);
	fd = open(dirname(dir), O_TMPFILE | O_RDWR | O_CLOEXEC, 0640);
	if (fd < 0)
		return fail(why, -errno,
			    "%s: cannot make a file here: %s; region_dir must be an existing "
			    "directory on hugetlbfs or tmpfs",
			    path, strerror(errno));
	return fd;
}

/* Whole huge pages, where the file is made of such; returns whether it is. */
static bool size_round(int fd, size_t *size)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0 || (unsigned long)fs.f_type != HUGETLBFS_MAGIC)
		return false;
	*size = (*size + (size_t)fs.f_bsize - 1) / (size_t)fs.f_bsize * (size_t)fs.f_bsize;
	return true;
}

/*
 * Takes the memory now: a page that is not there later would be SIGBUS, in the middle of a change.
 * On hugetlbfs as on tmpfs, fallocate() gives real pages or an error.
 */
static int allocate(int fd, const char *path, size_t *size, char *why)
{
	bool huge = size_round(fd, size);
	int rc;

	do {
		rc = posix_fallocate(fd, 0, (off_t)*size);
	} while (rc == EINTR);
	if (rc && huge)
		return fail(why, -ENOMEM,
			    "%s: not enough free huge pages for %zu MiB (%s); raise "
			    "vm.nr_hugepages or set region_dir to a tmpfs",
			    path, *size >> 20, strerror(rc));
	if (rc)
		return fail(why, -rc,
			    "%s: no room for %zu KiB (%s); enlarge that file system or lower the "
			    "limits in the configuration",
			    path, *size >> 10, strerror(rc));
	return 0;
}

static int map(struct fan_region *region, const char *path, char *why)
{
	int prot = region->writer ? PROT_READ | PROT_WRITE : PROT_READ;
	void *base = mmap(NULL, region->size, prot, MAP_SHARED, region->fd, 0);

	if (base == MAP_FAILED)
		return fail(why, -errno, "%s: cannot map %zu MiB: %s", path, region->size >> 20,
			    strerror(errno));
	region->base = base;
	return 0;
}

static int lock(int fd, const char *path, char *why)
{
	struct flock lock = whole_file();

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return fail(why, -EBUSY,
			    "%s: another process writes it; stop that one first (or give this "
			    "instance a region_dir of its own)",
			    path);
	return fail(why, -errno, "%s: cannot lock: %s", path, strerror(errno));
}

static int draw_epoch(uint64_t *epoch)
{
	do {
		if (getrandom(epoch, sizeof(*epoch), 0) != sizeof(*epoch))
			return -EIO;
	} while (*epoch == 0);
	return 0;
}

/* The file appears under its name in one step: locked, sized, its header filled. */
static int give_name(int fd, const char *path, char *why)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno == EEXIST)
		return fail(why, -EEXIST, "%s: exists already; take it over or delete it", path);
	return fail(why, -errno, "%s: cannot name the new file: %s", path, strerror(errno));
}

int fan_region_create(struct fan_region *region, const char *path, uint64_t magic,
		      uint32_t header_len, size_t size, char why[256])
{
	struct fan_region made = {.writer = true};
	struct fan_region_header *header;
	int rc;

	if (header_len < sizeof(*header) || size < header_len)
		return fail(why, -EINVAL, "%s: %zu bytes do not hold the root struct", path, size);
	made.fd = open_nameless(path, why);
	if (made.fd < 0)
		return made.fd;
	rc = lock(made.fd, path, why);
	if (rc < 0)
		goto close;
	rc = allocate(made.fd, path, &size, why);
	if (rc < 0)
		goto close;
	made.size = size;
	rc = map(&made, path, why);
	if (rc < 0)
		goto close;
	header = made.base;
	*header = (struct fan_region_header){
		.magic = magic, .abi = FAN_REGION_ABI, .header_len = header_len, .size = size};
	rc = draw_epoch(&header->creation_epoch);
	if (rc < 0) {
		fail(why, rc, "%s: the kernel gives no random number", path);
		goto unmap;
	}
	rc = give_name(made.fd, path, why);
	if (rc < 0)
		goto unmap;
	*region = made;
	return 0;
unmap:
	munmap(made.base, made.size);
close:
	close(made.fd);
	return rc;
}

static int check_header(const struct fan_region *region, const char *path, uint64_t magic,
			uint32_t header_len, char *why)
{
	const struct fan_region_header *header = region->base;

	if (header->magic != magic)
		return fail(why, -EPROTO, "%s: not the kind of region expected here; delete it",
			    path);
	if (header->abi != FAN_REGION_ABI)
		return fail(why, -EPROTO,
			    "%s: made for ABI %u, this program speaks %u; run fanwired and "
			    "fanwire-dataplane of one version, and delete the file",
			    path, header->abi, FAN_REGION_ABI);
	if (header->header_len != header_len)
		return fail(why, -EPROTO,
			    "%s: root of %u bytes where this program has %u; run fanwired and "
			    "fanwire-dataplane of one version, and delete the file",
			    path, header->header_len, header_len);
	if (header->size > region->size)
		return fail(why, -ENODATA, "%s: truncated: %zu bytes of %llu; delete it", path,
			    region->size, (unsigned long long)header->size);
	if ((header->size != region->size && !header->resizing) || header->size < header_len ||
	    header->creation_epoch == 0)
		return fail(why, -EPROTO, "%s: damaged header; delete it", path);
	/* pairs with the release in fan_region_set_ready() */
	if (__atomic_load_n(&header->ready, __ATOMIC_ACQUIRE) != 1)
		return fail(why, -ENODATA,
			    !region->writer && is_locked(region->fd)
				    ? "%s: still being made; try again in a moment"
				    : "%s: its maker died before it was complete; delete it",
			    path);
	return 0;
}

/* Longer than it says: its writer was killed resizing it. What is behind is nothing's. */
static void size_settle(struct fan_region *region)
{
	const struct fan_region_header *header = region->base;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole;

	whole = (header->size + page - 1) / page * page;
	if (whole < region->size && !size_round(region->fd, &whole))
		munmap((uint8_t *)region->base + whole, region->size - whole);
	region->size = header->size;
}

static int open_existing(struct fan_region *region, const char *path, uint64_t magic,
			 uint32_t header_len, bool writer, char *why)
{
	struct fan_region opened = {.writer = writer};
	struct stat st;
	int rc;

	opened.fd = open(path, (writer ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (opened.fd < 0)
		return fail(why, -errno, "%s: cannot open: %s", path, strerror(errno));
	if (writer) {
		rc = lock(opened.fd, path, why);
		if (rc < 0)
			goto close;
	}
	if (fstat(opened.fd, &st) < 0) {
		rc = fail(why, -errno, "%s: %s", path, strerror(errno));
		goto close;
	}
	if (st.st_nlink == 0) { /* replaced between open and lock: nobody would find this one */
		rc = fail(why, -ENOENT, "%s: was deleted just now; start again", path);
		goto close;
	}
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)header_len) {
		rc = fail(why, -ENODATA, "%s: truncated: %lld bytes; delete it", path,
			  (long long)st.st_size);
		goto close;
	}
	opened.size = (size_t)st.st_size;
	rc = map(&opened, path, why);
	if (rc < 0)
		goto close;
	rc = check_header(&opened, path, magic, header_len, why);
	if (rc < 0)
		goto unmap;
	*region = opened;
	size_settle(region);
	return 0;
unmap:
	munmap(opened.base, opened.size);
close:
	close(opened.fd);
	return rc;
}

int fan_region_open_writer(struct fan_region *region, const char *path, uint64_t magic,
			   uint32_t header_len, char why[256])
{
	return open_existing(region, path, magic, header_len, true, why);
}

int fan_region_open_reader(struct fan_region *region, const char *path, uint64_t magic,
			   uint32_t header_len, char why[256])
{
	return open_existing(region, path, magic, header_len, false, why);
}

/* The file is never shorter than the header says, wherever this is killed. */
static int grow(struct fan_region *region, const char *path, size_t size, char *why)
{
	struct fan_region_header *header = region->base;
	struct fan_region grown = *region;
	int rc;

	grown.size = size;
	header->resizing = 1;
	rc = allocate(region->fd, path, &grown.size, why);
	if (rc == 0)
		rc = map(&grown, path, why);
	if (rc < 0) { /* where that fails the file is longer than needed, and no harm is done */
		if (ftruncate(region->fd, (off_t)region->size) == 0)
			header->resizing = 0;
		return rc;
	}
	header->size = size;
	__atomic_store_n(&header->resizing, 0, __ATOMIC_RELEASE); /* of a killed one: not before */
	munmap(region->base, region->size);
	*region = grown;
	return 0;
}

int fan_region_resize(struct fan_region *region, const char *path, size_t size, char why[256])
{
	struct fan_region_header *header = region->base;

	size_round(region->fd, &size);
	if (size > region->size)
		return grow(region, path, size, why);
	header->resizing = 1;
	__atomic_store_n(&header->size, size, __ATOMIC_RELEASE); /* likewise */
	if (ftruncate(region->fd, (off_t)size) < 0)
		return fail(why, -errno, "%s: cannot be made smaller: %s", path, strerror(errno));
	header->resizing = 0;
	if (size < region->size)
		munmap((uint8_t *)region->base + size, region->size - size);
	region->size = size;
	return 0;
}

void fan_region_set_ready(struct fan_region *region)
{
	struct fan_region_header *header = region->base;

	__atomic_store_n(&header->ready, 1, __ATOMIC_RELEASE); /* pairs with check_header() */
}

bool fan_region_writer_alive(const struct fan_region *region)
{
	return region->writer || is_locked(region->fd);
}

/* By its number of names, for which nobody needs to be allowed into the directory. */
bool fan_region_is_current(const struct fan_region *region)
{
	struct stat st;

	return fstat(region->fd, &st) == 0 && st.st_nlink > 0;
}

void fan_region_close(struct fan_region *region)
{
	if (!region->base)
		return;
	munmap(region->base, region->size);
	close(region->fd);
	*region = (struct fan_region){.fd = -1};
}
