// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/pins.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/config/config.h"

/* libbpf's print callback takes no argument of ours. */
static _Thread_local char complaint[256];

static int make_dirs(const char *dir)
{
	char path[FAN_PATH_MAX];

	snprintf(path, sizeof(path), "%s", dir);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(path, 0755) && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int pins_prepare(const char *dir, char why[1024])
{
	struct statfs fs;
	int result = make_dirs(dir);

	if (result) {
		snprintf(why, 1024,
			 "instance.bpf_dir: cannot make %s: %s; run fanwired as root, or choose "
			 "another directory",
			 dir, strerror(-result));
		return result;
	}
	if (!statfs(dir, &fs) && fs.f_type == BPF_FS_MAGIC)
		return 0;
	if (!mount("bpf", dir, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"))
		return 0;
	result = -errno;
	snprintf(why, 1024,
		 "instance.bpf_dir: %s is not on a bpffs and none can be mounted there: %s; %s",
		 dir, strerror(-result),
		 result == -ENODEV ? "this kernel has no BPF file system (CONFIG_BPF_SYSCALL)"
				   : "fanwired needs CAP_SYS_ADMIN, or run: mount -t bpf bpf DIR");
	return result;
}

int pins_open(const char *dir, char why[1024])
{
	int result = pins_prepare(dir, why);
	int fd;

	if (result)
		return result;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	result = errno == EWOULDBLOCK ? -EBUSY : -errno;
	snprintf(why, 1024, "instance.bpf_dir: cannot lock %s: %s", dir,
		 result == -EBUSY
			 ? "another fanwired of this instance is running; stop it, or give "
			   "this one its own directories"
			 : strerror(-result));
	if (fd >= 0)
		close(fd);
	return result;
}

/* Two names of bpf_dir and a pin: FAN_PATH_MAX and a short name of ours. */
static int pin_path(char path[FAN_PATH_MAX + 32], const char *dir, const char *name)
{
	int len = snprintf(path, FAN_PATH_MAX + 32, "%s/%s", dir, name);

	return len < FAN_PATH_MAX + 32 ? 0 : -ENAMETOOLONG;
}

int pin_get(const char *dir, const char *name)
{
	char path[FAN_PATH_MAX + 32];
	int result = pin_path(path, dir, name);

	if (result)
		return result;
	result = bpf_obj_get(path);
	return result < 0 ? -errno : result;
}

int pin_remove(const char *dir, const char *name)
{
	char path[FAN_PATH_MAX + 32];
	int result = pin_path(path, dir, name);

	if (result)
		return result;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

/* The id is a u32 at another place in each sort's info; -1 where fd is none of them. */
static long object_id(int fd)
{
	union {
		struct bpf_map_info map;
		struct bpf_prog_info prog;
		struct bpf_link_info link;
	} info = {0};
	char proc[64], target[64];
	__u32 len = sizeof(info);
	ssize_t target_len;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	target_len = readlink(proc, target, sizeof(target) - 1);
	if (target_len < 0)
		return -1;
	target[target_len] = 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -1;
	if (strstr(target, "bpf-map"))
		return info.map.id;
	if (strstr(target, "bpf-prog"))
		return info.prog.id;
	if (strstr(target, "bpf_link") || strstr(target, "bpf-link"))
		return info.link.id;
	return -1;
}

bool pin_unseen(int result)
{
	return result == -EMFILE || result == -ENFILE || result == -ENOMEM;
}

bool pin_same(int fd, int other_fd)
{
	long id = object_id(fd);

	return id >= 0 && id == object_id(other_fd);
}

int pin_put(int fd, const char *dir, const char *name)
{
	char path[FAN_PATH_MAX + 32];
	int result = pin_path(path, dir, name);
	int old;

	if (result)
		return result;
	old = pin_get(dir, name);
	if (old < 0 && old != -ENOENT) /* what stands there is not known: descriptors are short */
		return old;
	if (old >= 0) {
		bool same = pin_same(fd, old);

		close(old);
		if (same)
			return 0;
		result = pin_remove(dir, name);
		if (result)
			return result;
	}
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

static bool layout_fits(const struct bpf_map_info *info, const struct bpf_map *map)
{
	return info->type == bpf_map__type(map) && info->key_size == bpf_map__key_size(map) &&
	       info->value_size == bpf_map__value_size(map) &&
	       info->max_entries >= bpf_map__max_entries(map);
}

int pin_adopt_map(struct bpf_map *map, const char *dir)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);
	int fd = pin_get(dir, bpf_map__name(map));
	int result;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	result = bpf_obj_get_info_by_fd(fd, &info, &len) ? -errno : 0;
	if (!result && !layout_fits(&info, map))
		result = -EPROTO;
	if (!result)
		result = bpf_map__reuse_fd(map, fd); /* keeps a copy of the descriptor */
	close(fd);
	return result;
}

static int on_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN) {
		vsnprintf(complaint, sizeof(complaint), format, args);
		complaint[strcspn(complaint, "\n")] = 0;
	}
	return 0;
}

void pin_libbpf_listen(void)
{
	complaint[0] = 0;
	libbpf_set_print(on_libbpf);
}

const char *pin_libbpf_complaint(void)
{
	return complaint;
}
