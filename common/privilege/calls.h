/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The system calls that a process may make from here on, on all its threads, for the rest of its
 * life (seccomp). What is not listed is not done: a message says which it was, the kernel's audit
 * log has it too, and the process ends with CALLS_EXIT. Questions about files are answered with
 * EACCES instead, and told once: libc asks some of its own accord.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALLS_EXIT 4 /* exit status */

/* One call; where `limited`, only with (argument & mask) == value. A call may stand there twice. */
struct privilege_call {
	const char *name;
	bool limited;
	unsigned argument;
	uint64_t mask, value;
};

/*
 * Needs no_new_privs (privilege_become()). program: for the message. 0, or -errno and why: then
 * nothing is limited.
 */
int privilege_calls_limit(const char *program, const struct privilege_call *calls, size_t cnt,
			  char why[256]);

/* False in a build with a sanitizer, which makes calls of its own: nothing is limited there. */
bool privilege_calls_supported(void);
