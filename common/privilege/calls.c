/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/privilege/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define NAMES_MAX 512

/* Made before the filter stands: the handler may allocate nothing. */
static const char *names[NAMES_MAX];
static const char *told_program;
static bool told[NAMES_MAX];

bool privilege_calls_supported(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return false;
#else
	return true;
#endif
}

static size_t append(char *text, size_t len, size_t room, const char *more)
{
	while (*more && len + 1 < room)
		text[len++] = *more++;
	text[len] = '\0';
	return len;
}

static void tell(int number, bool ends)
{
	const char *name = number >= 0 && number < NAMES_MAX ? names[number] : NULL;
	char text[320];
	size_t len;

	len = append(text, 0, sizeof(text), told_program);
	len = append(text, len, sizeof(text), ": error privileges: system call ");
	len = append(text, len, sizeof(text), name ? name : "of an unknown number");
	len = append(text, len, sizeof(text),
		     ends ? " is not among those that it may make (docs/security.md, What each "
			    "process can do): refused, and the process ends\n"
			  : " is refused: no file is looked at after the start\n");
	(void)!write(STDERR_FILENO, text, len);
}

static bool asks_about_files(int number)
{
	return number == SYS_openat || number == SYS_open || number == SYS_newfstatat ||
	       number == SYS_stat || number == SYS_lstat || number == SYS_access ||
	       number == SYS_faccessat || number == SYS_readlink || number == SYS_readlinkat ||
	       number == SYS_unlink;
}

/* In the thread that made the call, in its place. */
static void on_refused(int signal_number, siginfo_t *info, void *context)
{
	ucontext_t *thread = context;
	int number = info->si_syscall;

	if (!asks_about_files(number)) {
		tell(number, true);
		_exit(CALLS_EXIT);
	}
	if (!__atomic_exchange_n(&told[number], true, __ATOMIC_RELAXED))
		tell(number, false);
	thread->uc_mcontext.gregs[REG_RAX] = -EACCES;
}

/* A handler for SIGSYS; a thread that blocks it is killed by the kernel instead. */
static int handler_set(const char *program)
{
	struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER};

	told_program = program;
	for (int i = 0; i < NAMES_MAX; i++)
		if (!names[i])
			names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
	return sigaction(SIGSYS, &action, NULL) ? -errno : 0;
}

static int allow(scmp_filter_ctx filter, const struct privilege_call *call)
{
	int number = seccomp_syscall_resolve_name(call->name);

	if (number == __NR_SCMP_ERROR)
		return -ENOSYS;
	if (!call->limited)
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	return seccomp_rule_add(
		filter, SCMP_ACT_ALLOW, number, 1,
		SCMP_CMP64(call->argument, SCMP_CMP_MASKED_EQ, call->mask, call->value));
}

static int fill(scmp_filter_ctx filter, const struct privilege_call *calls, size_t cnt,
		const char **at)
{
	int err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	for (size_t i = 0; i < cnt && !err; i++) {
		*at = calls[i].name;
		err = allow(filter, &calls[i]);
	}
	if (!err) {
		*at = "clone3"; /* its flags cannot be seen; libc then uses clone, whose can */
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	}
	return err;
}

int privilege_calls_limit(const char *program, const struct privilege_call *calls, size_t cnt,
			  char why[256])
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
	const char *at = "all";
	int err = filter ? fill(filter, calls, cnt, &at) : -ENOMEM;

	if (!err)
		err = handler_set(program);
	if (!err) {
		at = "all";
		err = seccomp_load(filter);
	}
	if (filter)
		seccomp_release(filter);
	if (err)
		snprintf(why, 256,
			 "cannot limit the system calls (at %s): %s; the kernel needs "
			 "CONFIG_SECCOMP_FILTER",
			 at, strerror(-err));
	return err;
}
