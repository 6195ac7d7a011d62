/* SPDX-License-Identifier: BSD-3-Clause */
/* As root, in children: what was given up cannot be had back, on any thread; what is not listed is
 * not done. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/privilege/calls.h"
#include "common/privilege/privilege.h"
#include "common/privilege/threads.h"

#define NOBODY 65534

static const struct privilege_user nobody = {.name = "nobody", true, NOBODY, NOBODY};

/* Exit status of work() in a child, with what it wrote to standard error; -1: a signal ended it. */
static int in_child(int (*work)(void), char *said, size_t said_len)
{
	int ends[2], status;
	ssize_t len;
	pid_t pid;

	cr_assert_eq(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		_exit(work());
	}
	close(ends[1]);
	len = read(ends[0], said, said_len - 1);
	said[len > 0 ? len : 0] = '\0';
	close(ends[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void *thread_wait(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

/* ---- user and capabilities ---- */

static int thread_check(void *arg)
{
	return syscall(SYS_getuid) == NOBODY && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
			       prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0
		       ? 0
		       : -EPROTO;
}

static int become_and_look(void)
{
	const struct privilege_caps caps = {.effective = PRIVILEGE(CAP_NET_ADMIN),
					    .permitted =
						    PRIVILEGE(CAP_NET_ADMIN) | PRIVILEGE(CAP_BPF)};
	struct privilege_seen seen;
	pthread_t thread;
	char why[256];

	if (pthread_create(&thread, NULL, thread_wait, NULL) ||
	    privilege_become(&nobody, &caps, why))
		return 1;
	if (privilege_see(&seen, getpid()) || seen.uid != NOBODY || !seen.no_new_privs ||
	    seen.effective != caps.effective || seen.permitted != caps.permitted ||
	    seen.bounding != caps.permitted)
		return 2;
	if (threads_each_other(thread_check, NULL))
		return 3;
	if (prctl(PR_GET_DUMPABLE) != 0 || setuid(0) == 0)
		return 4;
	privilege_raise(PRIVILEGE(CAP_BPF) | PRIVILEGE(CAP_SYS_ADMIN));
	if (privilege_see(&seen, getpid()) || seen.effective != caps.permitted)
		return 5;
	return 0;
}

Test(privilege, what_is_given_up_is_gone_on_every_thread)
{
	char said[512];

	cr_expect_eq(in_child(become_and_look, said, sizeof(said)), 0, "%s", said);
}

/* ---- system calls ---- */

static const struct privilege_call few[] = {
	{.name = "write"},
	{.name = "exit_group"},
	{.name = "rt_sigreturn"},
	{.name = "getpid"},
	{.name = "pause"},
	{.name = "futex"},
	{.name = "socket", true, 0, UINT64_C(0xffffffff), AF_NETLINK},
};

static int limit(void)
{
	const struct privilege_caps none = {0};
	char why[256];

	if (privilege_become(&nobody, &none, why) ||
	    privilege_calls_limit("test", few, sizeof(few) / sizeof(few[0]), why))
		_exit(100);
	return 0;
}

static int call_allowed(void)
{
	limit();
	return syscall(SYS_getpid) > 0 && syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0) >= 0 ? 0 : 1;
}

static int call_execve(void)
{
	char *const argv[] = {"true", NULL};

	limit();
	syscall(SYS_execve, "/bin/true", argv, NULL);
	return 0;
}

static int call_socket(void)
{
	limit();
	syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
	return 0;
}

static int call_ptrace(void)
{
	limit();
	syscall(SYS_ptrace, 0, 0, 0, 0);
	return 0;
}

static int call_openat(void)
{
	limit();
	return syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY) == -1 && errno == EACCES ? 0
											       : 1;
}

/* A thread that was there before: the filter is every thread's. */
static void *thread_execve(void *arg)
{
	while (!__atomic_load_n((bool *)arg, __ATOMIC_ACQUIRE))
		;
	syscall(SYS_execve, "/bin/true", NULL, NULL);
	_exit(0);
}

static int call_in_another_thread(void)
{
	static bool limited;
	pthread_t thread;

	if (pthread_create(&thread, NULL, thread_execve, &limited))
		return 1;
	limit();
	__atomic_store_n(&limited, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void expect_ended(int (*work)(void), const char *name)
{
	char said[512];

	cr_expect_eq(in_child(work, said, sizeof(said)), CALLS_EXIT, "%s: %s", name, said);
	cr_expect(strstr(said, name), "says \"%s\", not %s", said, name);
	cr_expect(strstr(said, "refused"), "%s", said);
}

Test(privilege, a_call_that_is_not_listed_ends_the_process_and_is_named)
{
	char said[512];

	if (!privilege_calls_supported())
		cr_skip_test("a sanitizer makes calls of its own");
	cr_expect_eq(in_child(call_allowed, said, sizeof(said)), 0, "%s", said);
	expect_ended(call_execve, "execve");
	expect_ended(call_socket, "socket");
	expect_ended(call_ptrace, "ptrace");
	expect_ended(call_in_another_thread, "execve");
}

Test(privilege, a_question_about_a_file_is_refused_and_told)
{
	char said[512];

	if (!privilege_calls_supported())
		cr_skip_test("a sanitizer makes calls of its own");
	cr_expect_eq(in_child(call_openat, said, sizeof(said)), 0, "%s", said);
	cr_expect(strstr(said, "openat is refused"), "%s", said);
}
