/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/privileges.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <rte_common.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/privilege/calls.h"
#include "common/privilege/privilege.h"

#define SUBJECT "privileges"

/*
 * The AF_XDP socket is open and the XDP program attached: sending and receiving need nothing more.
 * Detaching the program at the end is a change of the interface, which the main thread, that parses
 * nothing, raises CAP_NET_ADMIN for. Workers, interrupts and telemetry have no capability at all.
 */
static const struct privilege_caps running = {.permitted = PRIVILEGE(CAP_NET_ADMIN)};

#define CALL(call)            \
	{                     \
		.name = #call \
	}
#define CALL_IF(call, arg, bits, only)       \
	{                                    \
#call, true, arg, bits, only \
	}

#define CLONE_NEW_ANY                                                                  \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	 CLONE_NEWPID | CLONE_NEWNET)
#define ANY UINT64_C(0xffffffff)

/* clang-format off: a table reads in rows */
static const struct privilege_call calls[] = {
	/* the loop: AF_XDP is kicked by sendto and poll; sleep, clock, randomness of stream epochs
	 */
	CALL(sendto),
	CALL(recvfrom),
	CALL(poll),
	CALL(ppoll),
	CALL(clock_nanosleep),
	CALL(nanosleep),
	CALL(clock_gettime),
	CALL(getrandom),
	CALL_IF(prctl, 0, ANY, PR_SET_TIMERSLACK),
	CALL(sched_yield),
	/* the main thread: signals waited for, its log, the regions it watches */
	CALL(rt_sigtimedwait),
	CALL(rt_sigprocmask),
	CALL(rt_sigaction),
	CALL(rt_sigreturn),
	CALL(restart_syscall),
	CALL(write),
	CALL(writev),
	CALL(fstat),
	/* as fstat(fd) only: with a path it would be a question about files, which is refused */
	CALL_IF(newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	CALL(fcntl),
	CALL(getpid),
	CALL(gettid),
	CALL(getuid),
	CALL(geteuid),
	CALL(getgid),
	CALL(getegid),
	/* DPDK's threads: interrupts and alarms, lcores woken by pipes, telemetry and memif peers
	 */
	CALL(read),
	CALL(readv),
	CALL(epoll_wait),
	CALL(epoll_pwait),
	CALL(epoll_ctl),
	CALL(epoll_create),
	CALL(epoll_create1),
	CALL(timerfd_settime),
	CALL(accept),
	CALL(accept4),
	CALL(recvmsg),
	CALL(sendmsg),
	CALL(getsockopt),
	CALL(getsockname),
	CALL(getpeername),
	CALL(setsockopt),
	CALL(shutdown),
	CALL(sched_getaffinity),
	CALL(sched_setaffinity),
	CALL_IF(prctl, 0, ANY, PR_SET_NAME),
	/* threads of this process, in its own namespaces, and their memory, which is never code */
	CALL_IF(clone, 0, CLONE_THREAD | CLONE_NEW_ANY, CLONE_THREAD),
	CALL(set_robust_list),
	CALL(rseq),
	CALL(set_tid_address),
	CALL(futex),
	CALL(exit),
	CALL(exit_group),
	CALL(sigaltstack),
	CALL_IF(mmap, 2, PROT_EXEC, 0),
	CALL_IF(mprotect, 2, PROT_EXEC, 0),
	CALL(munmap),
	CALL(mremap),
	CALL(madvise),
	CALL(brk),
	CALL(membarrier),
	/* taking the port down: CAP_NET_ADMIN raised, the XDP program detached, its maps left */
	CALL(capget),
	CALL(capset),
	CALL_IF(socket, 0, ANY, AF_NETLINK),
	CALL(bind),
	CALL(close),
	CALL(bpf),
	CALL(ioctl),
	/* a failed assertion has its message, and ends this process and no other */
	CALL(tgkill),
};

/* Of a memif client that looks for its server again, and shares memory with it. */
static const struct privilege_call memif_calls[] = {
	CALL_IF(socket, 0, ANY, AF_UNIX),
	CALL(connect),
	CALL(memfd_create),
	CALL(ftruncate),
	CALL(eventfd2),
	CALL(timerfd_create),
	CALL(listen),
};
/* clang-format on */

static bool port_is(const struct fan_config *config, const char *driver)
{
	return strncmp(config->port, driver, strlen(driver)) == 0;
}

static int calls_limit(const struct fan_config *config)
{
	struct privilege_call all[RTE_DIM(calls) + RTE_DIM(memif_calls)];
	size_t cnt = RTE_DIM(calls);
	char why[256];
	int err;

	if (!config->limit_system_calls || !privilege_calls_supported()) {
		fan_log(FAN_LOG_WARNING, SUBJECT, "system calls are not limited: %s",
			config->limit_system_calls
				? "this build has a sanitizer, which makes its own"
				: "limit_system_calls = false (dataplane)");
		return 0;
	}
	/* what libc loads when DPDK cancels a thread of its own at the end: a file, and code */
	if (!dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_NODELETE))
		fan_log(FAN_LOG_WARNING, SUBJECT, "%s", dlerror());
	memcpy(all, calls, sizeof(calls));
	if (port_is(config, "net_memif")) {
		memcpy(all + cnt, memif_calls, sizeof(memif_calls));
		cnt += RTE_DIM(memif_calls);
	}
	err = privilege_calls_limit("fanwire-dataplane", all, cnt, why);
	if (err)
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s; or set limit_system_calls = false (dataplane)",
			why);
	return err;
}

static void tell(const struct privilege_user *user)
{
	struct privilege_seen seen;
	char caps[128];

	if (privilege_see(&seen, getpid()))
		return;
	privilege_caps_format(caps, sizeof(caps), seen.permitted);
	if (user->found)
		fan_log(FAN_LOG_INFO, SUBJECT,
			"runs as %s (user %u); to take the port down: %s; otherwise no capability",
			user->name, seen.uid, caps);
	else
		fan_log(FAN_LOG_WARNING, SUBJECT,
			"stays user %u, without capabilities (to take the port down: %s): there is "
			"no user \"%s\" (dataplane.user); make it, and restart: useradd --system "
			"--no-create-home fanwire-dp",
			seen.uid, caps, user->name);
}

int privileges_drop(const struct fan_config *config)
{
	struct privilege_user user;
	char why[256];
	int err;

	privilege_user_find(&user, config->dataplane_user);
	err = privilege_become(&user, &running, why);
	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "%s", why);
		return err;
	}
	tell(&user);
	return calls_limit(config);
}

void privileges_raise(void)
{
	privilege_raise(running.permitted);
}

int privileges_give_state(const struct fan_config *config, const struct fan_region *state)
{
	struct privilege_user user, reader;

	if (geteuid() != 0)
		return 0;
	privilege_user_find(&user, config->dataplane_user);
	privilege_user_find(&reader, config->control_user);
	if (fchown(state->fd, user.uid, reader.gid) == 0 && fchmod(state->fd, 0640) == 0)
		return 0;
	fan_log(FAN_LOG_ERROR, SUBJECT, "the state region cannot be given to user %u: %s", user.uid,
		strerror(errno));
	return -errno;
}
