/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/shm/table.h"
#include "control/agent/agent.h"

/* Afterwards, always effective: each serves requests. */
#define RUNNING                                                                             \
	(PRIVILEGE(CAP_NET_ADMIN) /* SO_RCVBUFFORCE, neighbours to be resolved, the guard's \
				     links looked at */                                     \
	 | PRIVILEGE(CAP_BPF))	  /* the maps of scopes and keys, and pins put back */

/* At the start, effective. */
#define STARTING                                                                                 \
	(RUNNING | PRIVILEGE(CAP_SYS_ADMIN) /* setns to the receivers, maps found by their id */ \
	 | PRIVILEGE(CAP_PERFMON))	    /* the verifier's leave for pointer arithmetic */

/*
 * At the start, permitted: raised for an instant where run_dir, which stays root's, gets a socket
 * or a file (agent/listener.c, agent/rest_log.c, http.c); CAP_SETPCAP to narrow the bounding set.
 * Effective all the time, they would make root of a link in a directory that is fanwired's.
 */
#define STARTING_RAISED \
	(PRIVILEGE(CAP_DAC_OVERRIDE) | PRIVILEGE(CAP_CHOWN) | PRIVILEGE(CAP_SETPCAP))

static const struct privilege_caps starting = {
	.effective = STARTING, .permitted = STARTING | STARTING_RAISED, .others = STARTING};
/* The only other thread makes sockets in the receivers' namespace, which needs nothing. */
static const struct privilege_caps running = {.effective = RUNNING, .permitted = RUNNING};

static int make_directory(const char *path, mode_t mode)
{
	char copy[FAN_PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", path);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(copy, mode) && errno != EEXIST ? -errno : 0;
}

/* What is made in region_dir gets its group, so that the dataplane's user can read the registry. */
static int directories_give(const struct privileges *p, const struct fan_config *config,
			    char why[1024])
{
	static const char *const regions[] = {FAN_REGISTRY_FILE, FAN_REGISTRY_FILE ".new", NULL};
	const struct {
		const char *path;
		gid_t group;
		mode_t mode;
		const char *const *only;
	} wanted[] = {
		{config->region_dir, p->dataplane.gid, 02750, regions},
		{config->state_dir, p->user.gid, 0700, NULL},
		{config->bpf_dir, p->user.gid, 0700, NULL},
	};

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		int err = privilege_adopt(wanted[i].path, &p->user, wanted[i].group, wanted[i].mode,
					  wanted[i].only);

		if (err) {
			snprintf(why, 1024, "cannot give the directory %s to user %u: %s",
				 wanted[i].path, p->user.uid, strerror(-err));
			return err;
		}
	}
	return 0;
}

int privileges_directories(const struct fan_config *config, char why[1024])
{
	const struct {
		const char *path;
		mode_t mode;
	} wanted[] = {
		{config->run_dir, 0755}, {config->region_dir, 0700}, {config->state_dir, 0700}};

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		int err = make_directory(wanted[i].path, wanted[i].mode);

		if (err) {
			snprintf(why, 1024, "cannot make the directory %s: %s", wanted[i].path,
				 strerror(-err));
			return err;
		}
	}
	return 0;
}

int privileges_begin(struct privileges *p, const struct fan_config *config, char why[1024])
{
	int err = agent_prepare(config, why);

	privilege_user_find(&p->user, config->control_user);
	privilege_user_find(&p->dataplane, config->dataplane_user);
	if (!err && geteuid() == 0)
		err = directories_give(p, config, why);
	return err ? err : privilege_become(&p->user, &starting, why);
}

int privileges_settle(const struct privileges *p, char why[1024])
{
	struct privilege_seen seen;
	char caps[128];
	int err = privilege_become(&p->user, &running, why);

	if (err)
		return err;
	err = privilege_see(&seen, getpid());
	if (err) {
		snprintf(why, 1024, "cannot read /proc/self/status: %s", strerror(-err));
		return err;
	}
	privilege_caps_format(caps, sizeof(caps), seen.effective);
	if (p->user.found)
		fan_log(FAN_LOG_INFO, "privileges", "runs as %s (user %u) with %s", p->user.name,
			seen.uid, caps);
	else
		fan_log(FAN_LOG_WARNING, "privileges",
			"stays user %u, with %s only: there is no user \"%s\" (control.user); make "
			"it, and restart: useradd --system --no-create-home fanwire",
			seen.uid, caps, p->user.name);
	return 0;
}
