/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon may do once it has started: its user, its capabilities, its system calls. What each
 * may is a table of its own (control/engine/privileges.c, dataplane/privileges.c); here is how it
 * is brought about and how it is looked at. User, capabilities and their bounding set belong to
 * threads, not to processes: all of it is done on each thread (threads.c), by plain system calls.
 *
 * The main thread calls these, while no other thread makes or ends threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A capability of linux/capability.h as a bit. */
#define PRIVILEGE(cap) (UINT64_C(1) << (cap))

struct privilege_user {
	char name[64];
	bool found; /* false: empty, or the system does not know it; uid and gid are our own */
	uid_t uid;
	gid_t gid;
};

struct privilege_caps {
	uint64_t effective; /* of the main thread, and */
	uint64_t permitted; /* what it may raise again; nothing else can ever be had back */
	uint64_t others;    /* of all other threads: effective and permitted */
};

/* No core file, no debugger but root's: keys stand in this memory. Again after each change of user.
 */
void privilege_harden(void);

/* Looks the name up. */
void privilege_user_find(struct privilege_user *user, const char *name);

/*
 * Becomes that user on all threads, without supplementary groups, and gives up every capability but
 * these: effective, permitted, inheritable, ambient and bounding set; and can gain none by execve
 * (no_new_privs). A capability that was not there before is not made. 0, or -errno and why.
 */
int privilege_become(const struct privilege_user *user, const struct privilege_caps *caps,
		     char why[256]);

/* Makes permitted capabilities effective in this thread; those that are not permitted are ignored.
 * Returns what was effective before, for privilege_lower(). */
uint64_t privilege_raise(uint64_t caps);
void privilege_lower(uint64_t before);

/*
 * Makes `dir` this owner's, with `mode`, and with it what lies directly in it and belongs to root
 * or to who owned dir until now: what an earlier start left. `only`: these names alone, a NULL
 * behind the last; NULL: all. No link is followed; what has a second name elsewhere is left alone.
 */
int privilege_adopt(const char *dir, const struct privilege_user *owner, gid_t group, mode_t mode,
		    const char *const *only);

/* What the kernel says of a process; any may ask of any. */
struct privilege_seen {
	uid_t uid;
	uint64_t effective, permitted, bounding; /* of its main thread */
	bool no_new_privs;
	bool filtered; /* its system calls */
};
int privilege_see(struct privilege_seen *seen, pid_t pid);

/* "cap_bpf cap_net_admin", or "none". text_len 128 holds those of our tables. */
void privilege_caps_format(char *text, size_t text_len, uint64_t caps);
