// SPDX-License-Identifier: BSD-3-Clause
#include "control/agent/scope/guard.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plant.h"
#include "control/agent/scope/pins.h"
#include "port_guard.skel.h"

static const struct hook {
	const char *name; /* of the program, and of the link's pin */
	enum bpf_attach_type type;
} hooks[GUARD_HOOK_CNT] = {
	{"guard_bind4", BPF_CGROUP_INET4_BIND},
	{"guard_bind6", BPF_CGROUP_INET6_BIND},
	{"guard_ingress", BPF_CGROUP_INET_INGRESS},
	{"guard_egress", BPF_CGROUP_INET_EGRESS},
};

static int hook_prog_fd(const struct guard *guard, unsigned idx)
{
	return bpf_program__fd(bpf_object__find_program_by_name(guard->skel->obj, hooks[idx].name));
}

/* Where cgroup v2 is mounted: as configured, or the first such mount. */
static int cgroup_root(const struct fan_config *config, char dir[FAN_PATH_MAX], char why[1024])
{
	FILE *mounts = setmntent("/proc/mounts", "r");
	struct mntent *mount;
	int result = -ENOENT;

	while (result && mounts && (mount = getmntent(mounts))) {
		if (strcmp(mount->mnt_type, "cgroup2") ||
		    (config->cgroup_dir[0] && strcmp(mount->mnt_dir, config->cgroup_dir)) ||
		    strlen(mount->mnt_dir) >= FAN_PATH_MAX)
			continue;
		strcpy(dir, mount->mnt_dir);
		result = 0;
	}
	if (mounts)
		endmntent(mounts);
	if (!result)
		return 0;
	snprintf(why, 1024, "%s%s; the port guard needs the root of cgroup v2: %s",
		 config->cgroup_dir[0] ? "instance.cgroup_dir: cgroup v2 is not mounted at "
				       : "cgroup v2 is not mounted",
		 config->cgroup_dir,
		 config->cgroup_dir[0] ? "leave cgroup_dir empty to have it found"
				       : "run: mount -t cgroup2 none /sys/fs/cgroup/unified");
	return result;
}

static int cgroup_open(struct guard *guard, const struct fan_config *config, char why[1024])
{
	char dir[FAN_PATH_MAX];
	struct stat stat;
	int fd, result = cgroup_root(config, dir, why);

	if (result)
		return result;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat)) {
		result = -errno;
		snprintf(why, 1024, "cannot open the cgroup v2 root %s: %s", dir, strerror(errno));
		if (fd >= 0)
			close(fd);
		return result;
	}
	guard->cgroup_id = stat.st_ino; /* a cgroup's id is its directory's inode */
	return fd;
}

static int link_info(int fd, struct bpf_link_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_obj_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

/* Whether the link is one of ours that still stands where it should. */
static bool link_attached(const struct guard *guard, int fd, unsigned idx)
{
	struct bpf_link_info info;

	return !link_info(fd, &info) && info.type == BPF_LINK_TYPE_CGROUP &&
	       info.cgroup.cgroup_id == guard->cgroup_id &&
	       info.cgroup.attach_type == hooks[idx].type;
}

/* Takes the pinned link over and puts today's program behind it, or makes a new link and pins it.
 */
static int hook_attach(struct guard *guard, int cgroup_fd, unsigned idx)
{
	int prog_fd = hook_prog_fd(guard, idx);
	int fd = pin_get(guard->dir, hooks[idx].name);

	if (fan_planted(PLANT_GUARD_NOT_ATTACHED)) {
		guard->link_fd[idx] = fd;
		return 0;
	}
	if (fd < 0 && fd != -ENOENT)
		return fd;
	if (fd >= 0 && link_attached(guard, fd, idx) && !bpf_link_update(fd, prog_fd, NULL)) {
		guard->link_fd[idx] = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	fd = bpf_link_create(prog_fd, cgroup_fd, hooks[idx].type, NULL);
	if (fd < 0)
		return -errno;
	guard->link_fd[idx] = fd;
	return pin_put(fd, guard->dir, hooks[idx].name);
}

static void config_fill(struct guard_config *to, const struct fan_config *from)
{
	memset(to, 0, sizeof(*to));
	to->port_first = from->port_first;
	to->port_last = from->port_last;
	to->engine_port = from->engine_port;
	for (unsigned i = 0; i < from->engine_address_cnt; i++) {
		const struct fan_address *address = &from->engine_address[i];

		if (address->family == 4)
			memcpy(to->engine4, address->bytes + 12, 4);
		else
			memcpy(to->engine6, address->bytes, 16);
	}
}

static int guard_load(struct guard *guard, int scopes_fd, int slots_fd, char why[1024])
{
	struct port_guard_bpf *skel;
	__u32 zero = 0;
	int result;

	pin_libbpf_listen();
	guard->skel = skel = port_guard_bpf__open();
	if (!skel) {
		result = -errno;
		goto fail;
	}
	result = bpf_map__reuse_fd(skel->maps.scopes, scopes_fd);
	if (!result)
		result = bpf_map__reuse_fd(skel->maps.scope_slots, slots_fd);
	if (!result)
		result = pin_adopt_map(skel->maps.guards, guard->dir);
	if (!result)
		result = pin_adopt_map(skel->maps.guard_config, guard->dir);
	if (!result)
		result = port_guard_bpf__load(skel);
	if (!result && bpf_map_update_elem(bpf_map__fd(skel->maps.guard_config), &zero,
					   &guard->config, BPF_ANY))
		result = -errno;
	if (!result)
		result = pin_put(bpf_map__fd(skel->maps.guards), guard->dir, "guards");
	if (!result)
		result = pin_put(bpf_map__fd(skel->maps.guard_config), guard->dir, "guard_config");
	if (!result)
		return 0;
fail:
	snprintf(why, 1024,
		 "the port guard cannot be loaded: %s%s%s; it needs Linux 5.15 or newer with "
		 "CONFIG_CGROUP_BPF, and root",
		 strerror(-result), pin_libbpf_complaint()[0] ? ": " : "", pin_libbpf_complaint());
	return result;
}

int guard_open(struct guard *guard, const struct fan_config *config, int scopes_fd, int slots_fd,
	       char why[1024])
{
	int cgroup_fd, result = 0;

	memset(guard, 0, sizeof(*guard));
	memset(guard->link_fd, 0xff, sizeof(guard->link_fd));
	snprintf(guard->dir, sizeof(guard->dir), "%s", config->bpf_dir);
	config_fill(&guard->config, config);
	cgroup_fd = cgroup_open(guard, config, why);
	if (cgroup_fd < 0)
		return cgroup_fd;
	result = guard_load(guard, scopes_fd, slots_fd, why);
	for (unsigned i = 0; i < GUARD_HOOK_CNT && !result; i++) {
		result = hook_attach(guard, cgroup_fd, i);
		if (result)
			snprintf(why, 1024,
				 "%s cannot be attached to the cgroup v2 root: %s; another program "
				 "may be attached there exclusively: see bpftool cgroup tree",
				 hooks[i].name, strerror(-result));
	}
	close(cgroup_fd);
	if (result)
		guard_close(guard);
	return result;
}

void guard_close(struct guard *guard)
{
	for (unsigned i = 0; i < GUARD_HOOK_CNT; i++) {
		if (guard->link_fd[i] >= 0)
			close(guard->link_fd[i]);
		guard->link_fd[i] = -1;
	}
	port_guard_bpf__destroy(guard->skel);
	guard->skel = NULL;
}

/* Now: a link whose last pin goes is only detached some time later. */
static void hook_detach(const char *bpf_dir, unsigned idx)
{
	int fd = pin_get(bpf_dir, hooks[idx].name);

	if (fd < 0)
		return;
	bpf_link_detach(fd);
	close(fd);
}

int guard_remove(const char *bpf_dir)
{
	int result = 0, one;

	for (unsigned i = 0; i < GUARD_HOOK_CNT; i++) {
		hook_detach(bpf_dir, i);
		one = pin_remove(bpf_dir, hooks[i].name);
		result = result ? result : one;
	}
	one = pin_remove(bpf_dir, "guards");
	result = result ? result : one;
	one = pin_remove(bpf_dir, "guard_config");
	return result ? result : one;
}

static int prog_id(int fd, __u32 *id)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	*id = info.id;
	return 0;
}

static int hook_check(struct guard *guard, unsigned idx, char why[256])
{
	struct bpf_link_info info;
	__u32 id = 0;
	int result;

	if (!link_attached(guard, guard->link_fd[idx], idx)) {
		snprintf(
			why, 256,
			"%s was detached from the cgroup root; restart fanwired to attach it again",
			hooks[idx].name);
		return -ENOLINK;
	}
	result = link_info(guard->link_fd[idx], &info);
	if (!result)
		result = prog_id(hook_prog_fd(guard, idx), &id);
	if (!result && info.prog_id != id)
		result = -ESTALE;
	if (result) {
		snprintf(why, 256,
			 "another program stands in the place of %s; restart fanwired to put it "
			 "back",
			 hooks[idx].name);
	}
	return result;
}

/* Root may have changed the values that the programs read. Ours are the ones that hold. */
static int config_restore(struct guard *guard, char why[256])
{
	int fd = bpf_map__fd(guard->skel->maps.guard_config);
	struct guard_config config = {0};
	__u32 zero = 0;
	int result;

	if (!bpf_map_lookup_elem(fd, &zero, &config) &&
	    !memcmp(&config, &guard->config, sizeof(config)))
		return 0;
	result = bpf_map_update_elem(fd, &zero, &guard->config, BPF_ANY) ? -errno : 0;
	if (result)
		snprintf(
			why, 256,
			"the guard's ports or engine address were changed in the kernel and cannot "
			"be set right: %s",
			strerror(-result));
	else
		fan_log(FAN_LOG_ERROR, "walls",
			"somebody changed the port guard's configuration in the kernel (ports "
			"%u-%u): set back to %u-%u; see who may use bpf() on this machine",
			config.port_first, config.port_last, guard->config.port_first,
			guard->config.port_last);
	return result;
}

static int pins_check(struct guard *guard, char why[256])
{
	int result = pin_put(bpf_map__fd(guard->skel->maps.guards), guard->dir, "guards");
	if (!result)
		result = pin_put(bpf_map__fd(guard->skel->maps.guard_config), guard->dir,
				 "guard_config");
	if (result) {
		snprintf(why, 256, "the guard's maps are not pinned in %.128s, and cannot be: %s",
			 guard->dir, strerror(-result));
		return result;
	}
	for (unsigned i = 0; i < GUARD_HOOK_CNT && !result; i++) {
		result = pin_put(guard->link_fd[i], guard->dir, hooks[i].name);
		if (result)
			snprintf(why, 256, "%s is not pinned in %.128s, and cannot be: %s",
				 hooks[i].name, guard->dir, strerror(-result));
	}
	return result;
}

/* Pins last: they alone take a descriptor to look at. */
int guard_check(struct guard *guard, char why[256])
{
	int result = config_restore(guard, why);

	for (unsigned i = 0; i < GUARD_HOOK_CNT && !result; i++)
		result = hook_check(guard, i, why);
	return result ? result : pins_check(guard, why);
}

int guard_counters_fd(const struct guard *guard)
{
	return bpf_map__fd(guard->skel->maps.guards);
}
