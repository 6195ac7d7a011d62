/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "client/reassembly.h"

static struct reassembly reassembly;
static struct reassembled event;

static void teardown(void)
{
	reassembly_fini(&reassembly);
}

TestSuite(reassembly, .fini = teardown);

static int add(uint64_t session, uint64_t sequence, uint64_t publisher_sequence, uint8_t flags,
	       char byte, uint64_t now_ns)
{
	struct fan_delivery d = {.flags = flags,
				 .payload_len = 1,
				 .epoch = 7,
				 .session = session,
				 .sequence = sequence,
				 .publisher_sequence = publisher_sequence};
	static uint8_t payload;

	payload = (uint8_t)byte;
	return reassembly_add(&reassembly, &d, &payload, true, now_ns, &event);
}

static void expect_lost(uint64_t first, uint64_t last)
{
	struct reassembly_range range;

	cr_assert(reassembly_next_lost(&reassembly.lost, &range));
	cr_assert_eq(range.first, first);
	cr_assert_eq(range.last, last);
}

static void expect_none_lost(void)
{
	struct reassembly_range range;

	cr_assert_not(reassembly_next_lost(&reassembly.lost, &range));
}

/* AddressSanitizer lets an allocation fail, as malloc() does, instead of ending the test. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

/* As if memory were used up: the next room cannot be had. */
Test(reassembly, a_loss_that_finds_no_memory_is_not_silent)
{
	const size_t most = PTRDIFF_MAX / sizeof(struct reassembly_range);
	struct reassembly_lost lost = {.cnt = most, .head = most, .room = most};
	struct reassembly_range range = {0, 7, 1, 2};

	reassembly_lose(&lost, &range);
	cr_assert(lost.dropped);
}

Test(reassembly, keeps_interleaved_sessions_apart)
{
	cr_assert_eq(add(1, 1, 50, FAN_FLAG_BEGIN, 'a', 0), 0);
	cr_assert_eq(add(2, 2, 90, FAN_FLAG_BEGIN, 'x', 0), 0);
	cr_assert_eq(add(1, 3, 51, FAN_FLAG_END, 'b', 0), 1);
	cr_assert_eq(event.len, 2);
	cr_assert_arr_eq(event.bytes, "ab", 2);
	cr_assert_eq(add(2, 4, 91, FAN_FLAG_END, 'y', 0), 1);
	cr_assert_arr_eq(event.bytes, "xy", 2);
	expect_none_lost();
}

Test(reassembly, gives_up_when_the_session_goes_on_elsewhere)
{
	add(1, 1, 50, FAN_FLAG_BEGIN, 'a', 0);
	add(1, 2, 51, 0, 'b', 0);
	cr_assert_eq(add(1, 3, 60, FAN_FLAG_BEGIN | FAN_FLAG_END, 'c', 0), 1);
	cr_assert_arr_eq(event.bytes, "c", 1);
	expect_lost(1, 2);
	expect_none_lost();
}

Test(reassembly, gives_up_at_another_begin)
{
	add(1, 1, 50, FAN_FLAG_BEGIN, 'a', 0);
	cr_assert_eq(add(1, 2, 51, FAN_FLAG_BEGIN, 'b', 0), 0);
	expect_lost(1, 1);
	cr_assert_eq(add(1, 3, 52, FAN_FLAG_END, 'c', 0), 1);
	cr_assert_arr_eq(event.bytes, "bc", 2);
}

Test(reassembly, reports_what_has_no_begin_as_one_range)
{
	add(1, 4, 51, 0, 'b', 0);
	add(1, 5, 52, 0, 'c', 0);
	expect_none_lost();
	cr_assert_eq(add(1, 6, 53, FAN_FLAG_END, 'd', 0), 0);
	expect_lost(4, 6);
}

Test(reassembly, names_only_its_own_sequences)
{
	add(1, 1, 50, FAN_FLAG_BEGIN, 'a', 0);
	add(2, 2, 10, FAN_FLAG_BEGIN | FAN_FLAG_END, 'x', 0);
	add(1, 3, 51, 0, 'b', 0);
	add(1, 4, 99, FAN_FLAG_BEGIN | FAN_FLAG_END, 'c', 0);
	expect_lost(1, 1);
	expect_lost(3, 3);
	expect_none_lost();
}

Test(reassembly, forgets_after_a_while)
{
	add(1, 1, 50, FAN_FLAG_BEGIN, 'a', 1000);
	cr_assert_eq(reassembly_deadline(&reassembly), 1000 + REASSEMBLY_EXPIRY_NS);
	reassembly_expire(&reassembly, 10); /* a moment read before the fragment came */
	reassembly_expire(&reassembly, 999 + REASSEMBLY_EXPIRY_NS);
	expect_none_lost();
	reassembly_expire(&reassembly, 1000 + REASSEMBLY_EXPIRY_NS);
	expect_lost(1, 1);
	cr_assert_eq(reassembly_deadline(&reassembly), UINT64_MAX);
}

Test(reassembly, replaces_the_oldest_when_full)
{
	for (uint64_t s = 1; s <= REASSEMBLY_CNT; s++)
		add(s, s, 1, FAN_FLAG_BEGIN, 'a', s);
	expect_none_lost();
	add(REASSEMBLY_CNT + 1, REASSEMBLY_CNT + 1, 1, FAN_FLAG_BEGIN, 'a', 1000);
	expect_lost(1, 1);
	cr_assert_eq(reassembly.used_cnt, REASSEMBLY_CNT);
}

Test(reassembly, takes_a_mebibyte_and_no_more)
{
	struct fan_delivery d = {.epoch = 7, .session = 1, .payload_len = 8192};
	uint8_t *payload = malloc(8192);
	uint64_t cnt = FAN_EVENT_MAX / 8192;

	memset(payload, 'm', 8192);
	for (unsigned round = 0; round < 2; round++) { /* the second is one fragment too long */
		for (uint64_t i = 1; i <= cnt + round; i++) {
			bool last = i == cnt + round;
			int status;

			d.flags = i == 1 ? FAN_FLAG_BEGIN : last ? FAN_FLAG_END : 0;
			d.sequence = d.publisher_sequence = round * 1000 + i;
			status = reassembly_add(&reassembly, &d, payload, true, 0, &event);
			cr_assert_eq(status, last && round == 0);
		}
		if (round == 0)
			cr_assert_eq(event.len, FAN_EVENT_MAX);
	}
	expect_lost(1001, 1000 + cnt + 1);
	expect_none_lost();
	free(payload);
}

Test(reassembly, is_silent_about_what_began_before_it_joined)
{
	struct fan_delivery d = {.epoch = 7, .session = 1, .sequence = 9, .payload_len = 0};
	uint8_t none = 0;

	reassembly_add(&reassembly, &d, &none, false, 0, &event);
	d.sequence++;
	d.publisher_sequence++;
	d.flags = FAN_FLAG_END;
	reassembly_add(&reassembly, &d, &none, true, 0, &event);
	expect_none_lost();
}
