/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/engine/places.h"

Test(places, one_place_has_one_connection)
{
	uint8_t address[16] = {1};
	struct places places;
	uint64_t mark, other;

	cr_assert_eq(places_init(&places, 4), 0);
	mark = places_mark(&places, address, 5000);
	other = places_mark(&places, address, 5001);
	cr_assert_neq(mark, other);
	cr_assert_eq(places_find(&places, mark), 0);
	cr_assert_eq(places_add(&places, mark, 7), 0);
	cr_assert_eq(places_add(&places, mark, 7), 0);
	cr_assert_eq(places_add(&places, mark, 8), -EEXIST);
	cr_assert_eq(places_find(&places, mark), 7);
	places_del(&places, mark, 8);
	cr_assert_eq(places_find(&places, mark), 7, "another's");
	places_del(&places, mark, 7);
	cr_assert_eq(places_find(&places, mark), 0);
	for (uint64_t i = 1; i <= 4; i++)
		cr_assert_eq(places_add(&places, i << 60, i), 0);
	cr_assert_eq(places_add(&places, 5, 5), -ENOSPC);
	places_fini(&places);
}

#define MARKS 400

/* Against a plain array, with marks that stand close together and around the table's end. */
Test(places, additions_and_removals_in_any_order_agree_with_a_list)
{
	uint64_t marks[MARKS], ids[MARKS] = {0};
	struct places places;

	srandom(1);
	cr_assert_eq(places_init(&places, MARKS), 0);
	for (unsigned i = 0; i < MARKS; i++)
		marks[i] = (i % 2 ? UINT64_MAX : UINT64_MAX / 2) - i * (UINT64_MAX / 20000) + 1;
	for (unsigned round = 0; round < 200000; round++) {
		unsigned i = (unsigned)random() % MARKS;

		if (ids[i]) {
			places_del(&places, marks[i], ids[i]);
			ids[i] = 0;
		} else {
			ids[i] = round + 1;
			cr_assert_eq(places_add(&places, marks[i], ids[i]), 0);
		}
		if (round % 997 == 0)
			for (unsigned j = 0; j < MARKS; j++)
				cr_assert_eq(places_find(&places, marks[j]), ids[j]);
	}
	places_fini(&places);
}
