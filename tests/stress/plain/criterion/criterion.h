/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The assertions that the fixtures of tests/unit make, without Criterion, which aborts under
 * ThreadSanitizer: what does not hold ends the program. Any thread.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define PLAIN_CHECK(condition)                                                           \
	do {                                                                             \
		if (!(condition)) {                                                      \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, \
				#condition);                                             \
			abort();                                                         \
		}                                                                        \
	} while (0)

#define cr_assert(condition, ...)  PLAIN_CHECK(condition)
#define cr_assert_not_null(a, ...) PLAIN_CHECK((a) != NULL)
#define cr_assert_eq(a, b, ...)	   PLAIN_CHECK((a) == (b))
#define cr_assert_neq(a, b, ...)   PLAIN_CHECK((a) != (b))
#define cr_assert_leq(a, b, ...)   PLAIN_CHECK((a) <= (b))
#define cr_assert_geq(a, b, ...)   PLAIN_CHECK((a) >= (b))
#define cr_expect_eq		   cr_assert_eq
#define cr_expect_neq		   cr_assert_neq
