/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fixtures of the unit tests without their runner: an assertion of theirs that fails is a
 * finding, one that holds is told to nobody.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (stats->passed)
		return;
	fprintf(stderr, "%s:%u: an assertion of the fixture failed\n", stats->file, stats->line);
	abort();
}
