/* SPDX-License-Identifier: BSD-3-Clause */
#include <criterion/criterion.h>

#include "common/shm/ring.h"

#define CNT 8u

struct item {
	uint32_t number;
	uint32_t check;
};

/* In life, slots and head are in one region and the tail in another. */
struct ring {
	struct item slots[CNT];
	uint32_t head, tail;
};

static bool push(struct ring *ring, uint32_t number)
{
	struct item item = {number, ~number};

	return fan_ring_try_push(ring->slots, CNT, sizeof(item), &ring->head, &ring->tail, &item);
}

static bool pop(struct ring *ring, uint32_t *number)
{
	struct item item = {0, 0};

	if (!fan_ring_try_pop(ring->slots, CNT, sizeof(item), &ring->head, &ring->tail, &item))
		return false;
	cr_assert_eq(item.check, ~item.number);
	*number = item.number;
	return true;
}

static void fill_and_drain(uint32_t start)
{
	struct ring ring = {.head = start, .tail = start};
	uint32_t got;

	for (unsigned round = 0; round < 3; round++) {
		cr_assert_not(pop(&ring, &got), "empty");
		for (uint32_t i = 0; i < CNT; i++)
			cr_assert(push(&ring, round * 100 + i));
		cr_assert_not(push(&ring, 999), "full");
		for (uint32_t i = 0; i < CNT; i++) {
			cr_assert(pop(&ring, &got));
			cr_assert_eq(got, round * 100 + i, "in order");
		}
	}
	cr_expect_eq(ring.head, start + 3 * CNT);
	cr_expect_eq(ring.tail, ring.head);
}

Test(ring, keeps_order_and_capacity)
{
	fill_and_drain(0);
}

Test(ring, counts_wrap)
{
	for (uint32_t i = 0; i <= 3 * CNT; i++)
		fill_and_drain(UINT32_MAX - i);
}

Test(ring, room_comes_back_one_by_one)
{
	struct ring ring = {.head = UINT32_MAX - 2, .tail = UINT32_MAX - 2};
	uint32_t got;

	for (uint32_t i = 0; i < CNT; i++)
		cr_assert(push(&ring, i));
	for (uint32_t i = CNT; i < 100; i++) {
		cr_assert_not(push(&ring, 999));
		cr_assert(pop(&ring, &got));
		cr_assert_eq(got, i - CNT);
		cr_assert(push(&ring, i));
	}
}

Test(ring, impossible_head_is_skipped_and_nothing_is_read)
{
	static const uint32_t ahead[] = {CNT + 1, 1000, 1u << 31, UINT32_MAX};
	uint32_t got = 77;

	for (unsigned i = 0; i < sizeof(ahead) / sizeof(ahead[0]); i++) {
		struct ring ring = {.head = 5 + ahead[i], .tail = 5};

		cr_expect_not(push(&ring, 1), "head %u ahead: nothing is overwritten", ahead[i]);
		cr_expect_not(pop(&ring, &got), "head %u ahead", ahead[i]);
		cr_expect_eq(got, 77);
		cr_expect_eq(ring.tail, ring.head);
		cr_expect(push(&ring, 2), "the ring goes on");
		cr_expect(pop(&ring, &got));
		cr_expect_eq(got, 2);
		got = 77;
	}
}

Test(ring, impossible_tail_reads_as_full)
{
	struct ring ring = {.head = 5, .tail = 6};

	cr_expect_not(push(&ring, 1));
	cr_expect_eq(ring.head, 5);
}

/* The producer's region was made anew: its head is 0, the consumer's tail is not. */
Test(ring, left_over_tail_does_not_stop_a_new_producer)
{
	struct ring ring = {.head = 0, .tail = 5000};
	uint32_t got;

	cr_assert_not(push(&ring, 1));
	cr_assert_not(pop(&ring, &got));
	cr_assert(push(&ring, 2));
	cr_assert(pop(&ring, &got));
	cr_expect_eq(got, 2);
	cr_expect_not(pop(&ring, &got));
}
