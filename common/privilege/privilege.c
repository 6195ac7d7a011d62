/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/privilege/privilege.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/privilege/threads.h"

void privilege_harden(void)
{
	const struct rlimit none = {0, 0};

	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &none);
}

void privilege_user_find(struct privilege_user *user, const char *name)
{
	const struct passwd *entry = name[0] ? getpwnam(name) : NULL;

	snprintf(user->name, sizeof(user->name), "%s", name);
	user->found = entry != NULL;
	user->uid = entry ? entry->pw_uid : geteuid();
	user->gid = entry ? entry->pw_gid : getegid();
}

/* ---- capabilities of the calling thread; a signal handler may call these ---- */

struct caps {
	uint64_t effective, permitted;
};

static int caps_get(struct caps *caps)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return -errno;
	caps->effective = (uint64_t)data[1].effective << 32 | data[0].effective;
	caps->permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
	return 0;
}

static int caps_set(const struct caps *caps)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)caps->effective, .permitted = (uint32_t)caps->permitted},
		{.effective = (uint32_t)(caps->effective >> 32),
		 .permitted = (uint32_t)(caps->permitted >> 32)},
	};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int bounding_drop(uint64_t keep)
{
	for (int cap = 0; cap < 64; cap++) {
		int there = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (there < 0) /* beyond the last that this kernel knows */
			return 0;
		if (there == 0 || keep >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return -errno;
	}
	return 0;
}

/* By themselves, not by libc: it would do them for all threads at once. */
static int ids_set(uid_t uid, gid_t gid)
{
	if (syscall(SYS_getuid) == (long)uid && syscall(SYS_getgid) == (long)gid)
		return 0;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || syscall(SYS_setgroups, 0, NULL) ||
	    syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, uid, uid, uid))
		return -errno;
	return 0;
}

struct becoming {
	const struct privilege_user *user;
	struct caps caps;
};

static int thread_become(void *arg)
{
	const struct becoming *to = arg;
	struct caps have, wanted;
	int err = caps_get(&have);

	if (err)
		return err;
	wanted.permitted = to->caps.permitted & have.permitted;
	wanted.effective = to->caps.effective & wanted.permitted;
	have.effective = have.permitted; /* for what follows */
	err = caps_set(&have);
	if (!err && have.permitted & PRIVILEGE(CAP_SETPCAP))
		err = bounding_drop(wanted.permitted);
	if (!err)
		err = ids_set(to->user->uid, to->user->gid);
	if (!err)
		err = caps_set(&wanted);
	if (!err && (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) ||
		     prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))
		err = -errno;
	return err;
}

int privilege_become(const struct privilege_user *user, const struct privilege_caps *caps,
		     char why[256])
{
	struct becoming others = {user, {caps->others, caps->others}};
	struct becoming own = {user, {caps->effective, caps->permitted}};
	int err = threads_each_other(thread_become, &others);

	if (!err)
		err = thread_become(&own);
	privilege_harden(); /* a change of user has undone it */
	if (err)
		snprintf(why, 256,
			 "cannot become user %u and give up capabilities: %s; start it "
			 "as root, with cap_setuid, cap_setgid and cap_setpcap",
			 user->uid, strerror(-err));
	return err;
}

uint64_t privilege_raise(uint64_t wanted)
{
	struct caps caps;
	uint64_t before;

	if (caps_get(&caps))
		return 0;
	before = caps.effective;
	caps.effective |= wanted & caps.permitted;
	caps_set(&caps);
	return before;
}

void privilege_lower(uint64_t before)
{
	struct caps caps;

	if (caps_get(&caps))
		return;
	caps.effective = before & caps.permitted;
	caps_set(&caps);
}

void privilege_caps_format(char *text, size_t text_len, uint64_t caps)
{
	static const struct {
		int cap;
		const char *name;
	} names[] = {{CAP_CHOWN, "cap_chown"},	   {CAP_DAC_OVERRIDE, "cap_dac_override"},
		     {CAP_SETPCAP, "cap_setpcap"}, {CAP_NET_ADMIN, "cap_net_admin"},
		     {CAP_NET_RAW, "cap_net_raw"}, {CAP_SYS_ADMIN, "cap_sys_admin"},
		     {CAP_PERFMON, "cap_perfmon"}, {CAP_BPF, "cap_bpf"}};
	size_t len = 0;

	snprintf(text, text_len, "none");
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!(caps & PRIVILEGE(names[i].cap)) || len >= text_len)
			continue;
		len += (size_t)snprintf(text + len, text_len - len, "%s%s", len ? " " : "",
					names[i].name);
		caps &= ~PRIVILEGE(names[i].cap);
	}
	if (caps && len < text_len)
		snprintf(text + len, text_len - len, "%sand %d more", len ? " " : "",
			 __builtin_popcountll(caps));
}
