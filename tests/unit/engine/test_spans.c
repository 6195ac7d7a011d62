/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <string.h>

#include "common/config/config.h"
#include "control/engine/spans.h"

static struct spans spans;

static void add(const char *address, unsigned len)
{
	struct fan_address parsed;

	cr_assert_eq(fan_address_parse(&parsed, address), 0);
	cr_assert_eq(spans_add(&spans, parsed.bytes, len + (parsed.family == 4 ? 96 : 0)), 0);
}

static const struct span *find(const char *address)
{
	struct fan_address parsed;

	cr_assert_eq(fan_address_parse(&parsed, address), 0);
	return spans_find(&spans, parsed.bytes);
}

Test(spans, addresses_within_the_same_prefixes_share_one)
{
	add("10.0.0.0", 8);
	add("10.1.0.0", 16);
	add("10.1.2.3", 32);
	add("0.0.0.0", 0);
	cr_assert_eq(spans_close(&spans), 0);
	cr_assert_eq(find("10.0.0.0"), find("10.0.255.255"));
	cr_assert_neq(find("10.0.255.255"), find("10.1.0.0"));
	cr_assert_eq(find("10.1.0.0"), find("10.1.2.2"));
	cr_assert_neq(find("10.1.2.2"), find("10.1.2.3"));
	cr_assert_neq(find("10.1.2.3"), find("10.1.2.4"));
	cr_assert_eq(find("10.1.2.4"), find("10.1.255.255"));
	cr_assert_neq(find("10.1.255.255"), find("10.2.0.0"));
	cr_assert_eq(find("10.2.0.0"), find("10.255.255.255"));
	cr_assert_neq(find("10.255.255.255"), find("11.0.0.0"));
	cr_assert_eq(find("11.0.0.0"), find("255.255.255.255"));
	cr_assert_neq(find("9.255.255.255"), find("10.0.0.0"));
	spans_free(&spans);
}

Test(spans, ends_carry_over_bytes_and_the_last_address_has_none_behind_it)
{
	add("2001:db8:ffff::", 48);
	add("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128);
	add("::", 0);
	cr_assert_eq(spans_close(&spans), 0);
	cr_assert_eq(spans.cnt, 4);
	cr_assert_eq(find("2001:db8:ffff::1"), find("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
	cr_assert_neq(find("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), find("2001:db9::"));
	cr_assert_eq(find("2001:db9::"), find("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"));
	spans_free(&spans);
}

Test(spans, without_a_prefix_there_is_one_and_they_can_be_filled_anew)
{
	cr_assert_eq(spans_close(&spans), 0);
	cr_assert_eq(find("192.0.2.1"), find("2001:db8::1"));
	find("192.0.2.1");
	spans_clear(&spans);
	cr_assert_not(spans.closed);
	add("192.0.2.0", 24);
	cr_assert_eq(spans_close(&spans), 0);
	cr_assert_neq(find("192.0.2.1"), find("192.0.3.1"));
	spans_free(&spans);
}
