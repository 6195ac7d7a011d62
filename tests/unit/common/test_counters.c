/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <string.h>

#include "common/counters.h"

Test(counters, each_has_a_name_of_its_own_and_help)
{
	for (unsigned i = 0; i < FAN_COUNTER_CNT; i++) {
		cr_expect_gt(strlen(fan_counter_help(i)), 5);
		cr_expect_eq(strspn(fan_counter_name(i), "abcdefghijklmnopqrstuvwxyz_"),
			     strlen(fan_counter_name(i)));
		for (unsigned j = 0; j < i; j++)
			cr_expect_str_neq(fan_counter_name(i), fan_counter_name(j));
	}
	cr_expect_str_eq(fan_counter_name(FAN_COUNTER_drop_mtu), "drop_mtu");
	cr_expect_str_eq(fan_counter_name(FAN_COUNTER_CNT), "unknown");
	cr_expect_str_eq(fan_counter_help(FAN_COUNTER_CNT), "no such counter");
}
