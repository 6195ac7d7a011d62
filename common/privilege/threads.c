/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/privilege/threads.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 1024
#define PATIENCE_MS 2000

/* A signal handler has no argument of ours. Written by the caller before the signal is sent. */
static struct {
	int (*work)(void *arg);
	void *arg;
	pid_t wanted;
	int result;
	bool done; /* __atomic: the thread's release, the caller's acquire */
} call;

static void on_signal(int number)
{
	int saved = errno;

	if (syscall(SYS_gettid) == call.wanted && !__atomic_load_n(&call.done, __ATOMIC_RELAXED)) {
		call.result = call.work(call.arg);
		/* pairs with ask()'s acquire */
		__atomic_store_n(&call.done, true, __ATOMIC_RELEASE);
	}
	errno = saved;
}

static int ask(pid_t thread)
{
	const struct timespec moment = {0, 1000000};

	call.wanted = thread;
	call.result = 0;
	__atomic_store_n(&call.done, false, __ATOMIC_RELAXED);
	if (syscall(SYS_tgkill, getpid(), thread, PRIVILEGE_SIGNAL))
		return errno == ESRCH ? 0 : -errno; /* ended meanwhile */
	for (unsigned ms = 0; !__atomic_load_n(&call.done, __ATOMIC_ACQUIRE); ms++) {
		if (ms == PATIENCE_MS)
			return -ETIMEDOUT;
		nanosleep(&moment, NULL);
		if (syscall(SYS_tgkill, getpid(), thread, 0) && errno == ESRCH)
			return 0;
	}
	return call.result;
}

static bool is_among(const pid_t *asked, unsigned cnt, pid_t thread)
{
	for (unsigned i = 0; i < cnt; i++)
		if (asked[i] == thread)
			return true;
	return false;
}

/* One look at all; *cnt grows by those that were not asked before. */
static int ask_new(pid_t *asked, unsigned *cnt)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	int err = 0;

	if (!dir)
		return -errno;
	while (!err && (entry = readdir(dir))) {
		pid_t thread = (pid_t)atol(entry->d_name);

		if (thread <= 0 || is_among(asked, *cnt, thread))
			continue;
		if (*cnt == THREADS_MAX)
			err = -E2BIG;
		else
			asked[(*cnt)++] = thread;
		if (!err)
			err = ask(thread);
	}
	closedir(dir);
	return err;
}

int threads_each_other(int (*work)(void *arg), void *arg)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
	pid_t asked[THREADS_MAX];
	unsigned cnt = 0, was;
	int err;

	asked[cnt++] = (pid_t)syscall(SYS_gettid);
	call.work = work;
	call.arg = arg;
	if (sigaction(PRIVILEGE_SIGNAL, &action, &before))
		return -errno;
	do { /* again until nobody new is there: a thread may have made one meanwhile */
		was = cnt;
		err = ask_new(asked, &cnt);
	} while (!err && cnt > was);
	call.wanted = 0;
	sigaction(PRIVILEGE_SIGNAL, &before, NULL);
	return err;
}
