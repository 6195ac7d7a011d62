/* SPDX-License-Identifier: BSD-3-Clause */
/* Which meter a publisher's sessions are charged to. */
#include <criterion/criterion.h>

#include "control/engine/meters.h"

#define CNT 8

static struct meters m;

static void setup(void)
{
	cr_assert_eq(meters_init(&m, CNT), 0);
}

static void teardown(void)
{
	meters_fini(&m);
}

TestSuite(meters, .init = setup, .fini = teardown);

static struct meter_owner publisher(uint64_t number)
{
	return (struct meter_owner){.publisher = number};
}

static uint64_t open_one(uint64_t number)
{
	const struct meter_owner owner = publisher(number);

	return meters_open(&m, &owner);
}

Test(meters, sessions_of_one_publisher_have_one_and_those_of_others_another)
{
	const struct meter_owner user = {.user = {1}}, other = {.user = {2}};
	uint64_t first = open_one(1);

	cr_expect_neq(first, 0);
	cr_expect_eq(open_one(1), first);
	cr_expect_neq(open_one(2) % CNT, first % CNT);
	cr_expect_neq(meters_open(&m, &user), meters_open(&m, &other));
}

Test(meters, who_comes_again_finds_his_own)
{
	uint64_t first = open_one(1), second = open_one(2);

	meters_close(&m, first);
	meters_close(&m, second);
	for (uint64_t n = 3; n < 3 + CNT - 2; n++)
		meters_close(&m, open_one(n));
	cr_expect_eq(open_one(1), first);
	cr_expect_eq(open_one(2), second);
}

Test(meters, of_those_that_nobody_uses_the_one_left_longest_ago_is_given_away)
{
	uint64_t ids[CNT], next;

	for (uint64_t n = 0; n < CNT; n++)
		ids[n] = open_one(n + 1);
	meters_close(&m, ids[5]);
	meters_close(&m, ids[2]);
	next = open_one(100);
	cr_expect_eq(next % CNT, ids[5] % CNT);
	cr_expect_neq(next, ids[5], "the dataplane would take it for the former owner's");
	cr_expect_eq(open_one(3), ids[2]);
}

Test(meters, those_of_an_earlier_run_are_taken_up)
{
	const struct meter_owner one = publisher(1), two = publisher(2);
	uint64_t id = UINT64_C(0x1234567800) | 3;

	cr_expect_eq(meters_adopt(&m, &one, id), id);
	cr_expect_eq(meters_adopt(&m, &one, id), id);
	cr_expect_eq(open_one(1), id);
	cr_expect_neq(meters_adopt(&m, &two, id), id, "another's");
	cr_expect_neq(meters_adopt(&m, &two, 0), 0, "it had none");
}
