/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Something done by every thread of this process, each for itself: what the kernel keeps a thread
 * (capabilities, their bounding set, user) can be changed by that thread alone. A signal reaches
 * them, as glibc does it for setuid(); threads that others made (DPDK's) need know nothing of it.
 */
#pragma once

#include <signal.h>

/* A thread that blocks signals leaves this one open. */
#define PRIVILEGE_SIGNAL (SIGRTMAX - 1)

/*
 * Calls work(arg) in each thread but the caller's, one after the other; it may do what a signal
 * handler may, and returns 0 or -errno. 0, or the first error; -ETIMEDOUT where a thread does not
 * answer within two seconds. One caller at a time.
 */
int threads_each_other(int (*work)(void *arg), void *arg);
