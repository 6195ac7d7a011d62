/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/steer_port.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/types.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/scope.h"
#include "common/log.h"

#define SUBJECT	     "steer"
#define PROGRAM	     "fanwire_steer"
#define MAPS_MAX     16
#define LOCK_DIR     "/run"
#define LOCK_TRIES   20
#define LOCK_WAIT_US 100000

/* Value of `key` in a device's arguments, into out. */
static bool argument_get(const char *port, const char *key, char *out, size_t out_len)
{
	size_t key_len = strlen(key);

	for (const char *at = strchr(port, ','); at; at = strchr(at, ',')) {
		at++;
		if (strncmp(at, key, key_len) != 0 || at[key_len] != '=')
			continue;
		at += key_len + 1;
		snprintf(out, out_len, "%.*s", (int)strcspn(at, ","), at);
		return true;
	}
	return false;
}

/* FANWIRE_STEER_OBJECT, or where it was installed, or where it was built. */
static const char *object_path(void)
{
	const char *path = getenv("FANWIRE_STEER_OBJECT");

	if (path && *path)
		return path;
	return access(FANWIRE_STEER_INSTALLED, R_OK) == 0 ? FANWIRE_STEER_INSTALLED
							  : FANWIRE_STEER_BUILT;
}

/* busy_budget=0: otherwise the driver makes a system call on each empty poll. */
static int arguments_complete(struct steer_port *steer, const struct fan_config *config)
{
	const char *object = object_path();
	char value[FAN_PATH_MAX];
	bool has_program = argument_get(config->port, "xdp_prog", value, sizeof(value));
	bool has_budget = argument_get(config->port, "busy_budget", value, sizeof(value));
	int len;

	if (!has_program && access(object, R_OK)) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"XDP program %s is not there: install Fanwire, or set FANWIRE_STEER_OBJECT",
			object);
		return -ENOENT;
	}
	len = snprintf(steer->vdev, sizeof(steer->vdev), "%s%s%s%s", config->port,
		       has_program ? "" : ",xdp_prog=", has_program ? "" : object,
		       has_budget ? "" : ",busy_budget=0");
	return (size_t)len < sizeof(steer->vdev) ? 0 : -E2BIG;
}

/* Of the interface as the kernel tells it apart, not by a name that each namespace may have. */
static int lock_path(struct steer_port *steer)
{
	struct stat netns;

	if (stat("/proc/thread-self/ns/net", &netns))
		return -errno;
	snprintf(steer->lock_path, sizeof(steer->lock_path), LOCK_DIR "/fanwire-steer-%ju-%u.lock",
		 (uintmax_t)netns.st_ino, steer->ifindex);
	return 0;
}

/* Of dataplanes that ended: by then they were nobody who may remove a file in LOCK_DIR. */
static void locks_sweep(void)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	glob_t found;

	if (glob(LOCK_DIR "/fanwire-steer-*.lock", GLOB_NOSORT, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		int fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC | O_NOFOLLOW);

		/* who opens it meanwhile sees that its name has gone, and tries again */
		if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &whole) == 0)
			unlink(found.gl_pathv[i]);
		if (fd >= 0)
			close(fd);
	}
	globfree(&found);
}

/* 0, -EAGAIN: another has it, or it was deleted meanwhile by who had it; or another -errno. */
static int lock_try(struct steer_port *steer)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(steer->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat ours, named;
	int err = 0;

	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_OFD_SETLK, &whole) || fstat(fd, &ours))
		err = errno == EACCES ? -EAGAIN : -errno;
	else if (stat(steer->lock_path, &named) || named.st_ino != ours.st_ino)
		err = -EAGAIN;
	if (err)
		close(fd);
	else
		steer->lock_fd = fd;
	return err;
}

/*
 * A lock on a file that only root can make: free again the moment its process is dead, however it
 * died. Not in region_dir: instances differ in that, and the interface is what must not be shared.
 */
static int interface_lock(struct steer_port *steer)
{
	int err = lock_path(steer);

	locks_sweep();
	if (!err)
		err = lock_try(steer);
	/* Again for a while: one that was killed a moment ago is still being taken apart. */
	for (unsigned i = 0; err == -EAGAIN && i < LOCK_TRIES; i++) {
		usleep(LOCK_WAIT_US);
		err = lock_try(steer);
	}
	if (err == -EAGAIN) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "another fanwire-dataplane uses interface %s",
			steer->interface);
		return -EADDRINUSE;
	}
	if (err)
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s, the lock of interface %s: %s",
			steer->lock_path, steer->interface, strerror(-err));
	return err;
}

/* Descriptor of the attached program, 0 where there is none; its name and maps into *info. */
static int attached_get(unsigned ifindex, struct bpf_prog_info *info, __u32 *maps, __u32 map_cnt)
{
	__u32 id = 0, len = sizeof(*info);
	int err, fd;

	err = bpf_xdp_query_id((int)ifindex, 0, &id);
	if (err || id == 0)
		return err;
	fd = bpf_prog_get_fd_by_id(id);
	if (fd < 0)
		return fd;
	memset(info, 0, sizeof(*info));
	info->map_ids = (__u64)(uintptr_t)maps;
	info->nr_map_ids = map_cnt;
	err = bpf_obj_get_info_by_fd(fd, info, &len);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static int stale_detach(const struct steer_port *steer)
{
	__u32 maps[MAPS_MAX];
	struct bpf_prog_info info;
	int err, fd = attached_get(steer->ifindex, &info, maps, MAPS_MAX);

	if (fd < 0)
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s: cannot ask for its XDP program: %s",
			steer->interface, strerror(-fd));
	if (fd <= 0)
		return fd;
	close(fd);
	if (strcmp(info.name, PROGRAM) != 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"%s has another XDP program, \"%s\": take it off (ip link set %s xdp off) "
			"or use another interface",
			steer->interface, info.name, steer->interface);
		return -EBUSY;
	}
	err = bpf_xdp_detach((int)steer->ifindex, 0, NULL);
	fan_log(err ? FAN_LOG_ERROR : FAN_LOG_INFO, SUBJECT,
		"%s: program of a dataplane that was killed %s", steer->interface,
		err ? "could not be detached" : "detached");
	return err;
}

int steer_port_open(struct steer_port *steer, const struct fan_config *config)
{
	int err;

	memset(steer, 0, sizeof(*steer));
	steer->lock_fd = -1;
	snprintf(steer->vdev, sizeof(steer->vdev), "%s", config->port);
	if (strncmp(config->port, "net_af_xdp", strlen("net_af_xdp")) != 0)
		return 0;
	if (!argument_get(config->port, "iface", steer->interface, sizeof(steer->interface))) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "dataplane.port: net_af_xdp needs iface=INTERFACE");
		return -EINVAL;
	}
	steer->ifindex = if_nametoindex(steer->interface);
	if (!steer->ifindex) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "there is no interface %s (dataplane.port)",
			steer->interface);
		return -ENODEV;
	}
	err = arguments_complete(steer, config);
	if (!err)
		err = interface_lock(steer);
	return err ? err : stale_detach(steer);
}

static struct steer_config config_of(const struct fan_config *config)
{
	struct steer_config value = {.port = config->engine_port};

	for (unsigned i = 0; i < config->engine_address_cnt; i++) {
		const struct fan_address *address = &config->engine_address[i];

		if (address->family == 4)
			memcpy(value.engine4, address->bytes + 12, 4);
		else
			memcpy(value.engine6, address->bytes, 16);
	}
	return value;
}

static int map_fd_by_name(const __u32 *ids, __u32 cnt, const char *name)
{
	for (__u32 i = 0; i < cnt && i < MAPS_MAX; i++) {
		struct bpf_map_info info = {0};
		__u32 len = sizeof(info);
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd < 0)
			continue;
		if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && strcmp(info.name, name) == 0)
			return fd;
		close(fd);
	}
	return -ENOENT;
}

int steer_port_configure(const struct steer_port *steer, const struct fan_config *config)
{
	const struct steer_config value = config_of(config);
	struct bpf_prog_info info;
	__u32 maps[MAPS_MAX], zero = 0;
	int err, map, fd;

	if (!steer->interface[0])
		return 0;
	fd = attached_get(steer->ifindex, &info, maps, MAPS_MAX);
	if (fd <= 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s: no XDP program is attached", steer->interface);
		return fd ? fd : -ENOENT;
	}
	close(fd);
	map = map_fd_by_name(maps, info.nr_map_ids, "steer_config");
	if (map < 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"XDP program \"%s\" on %s has no map steer_config: leave xdp_prog= out",
			info.name, steer->interface);
		return map;
	}
	err = bpf_map_update_elem(map, &zero, &value, BPF_ANY);
	close(map);
	if (err)
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s: steer_config: %s", steer->interface,
			strerror(-err));
	return err;
}

void steer_port_close(struct steer_port *steer)
{
	if (steer->lock_fd >= 0) {
		unlink(steer->lock_path); /* while it is ours */
		close(steer->lock_fd);
	}
	steer->lock_fd = -1;
}
