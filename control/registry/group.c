/* SPDX-License-Identifier: BSD-3-Clause */
/* Groups: their blocks of endpoints, and lingering after the last connection. */
#include "control/registry/internal.h"

uint32_t group_block(const struct registry *r, uint32_t group, uint32_t *first)
{
	uint64_t word = r->groups[group].endpoints;

	*first = (uint32_t)(word >> FAN_ENDPOINT_CNT_BITS);
	return (uint32_t)word & FAN_ENDPOINT_CNT_MAX;
}

void group_publish(struct registry *r, uint32_t group, uint64_t first, uint32_t cnt)
{
	uint64_t word = cnt ? first << FAN_ENDPOINT_CNT_BITS | cnt : 0;

	step(r, "block publish");
	/* Release: the block's endpoints are written. Pairs with the acquire in
	 * fan_group_endpoints(). */
	__atomic_store_n(&r->groups[group].endpoints, word, __ATOMIC_RELEASE);
}

uint32_t group_position(const struct registry *r, uint32_t group, uint64_t connection)
{
	uint32_t first, cnt = group_block(r, group, &first);

	for (uint32_t i = 0; i < cnt; i++) {
		if (r->endpoints[first + i].connection == connection)
			return i;
	}
	return NONE;
}

void group_unlink(struct registry *r, uint32_t group)
{
	uint32_t first, cnt = group_block(r, group, &first);

	group_linger_end(r, group);
	user_unlink_group(r, group);
	bucket_del(r, group_hash(r, group), group);
	if (cnt)
		retire(r, RETIRED_BLOCK, first, cnt);
	retire(r, RETIRED_GROUP, group, 1);
}

void group_linger_begin(struct registry *r, uint32_t group)
{
	struct group_books *books = &r->group_books[group];

	books->linger_until_ns = r->now_ns + r->linger_ns + 1; /* + 1: never 0 */
	books->linger_prev = r->linger_last;
	books->linger_next = NONE;
	if (r->linger_last != NONE)
		r->group_books[r->linger_last].linger_next = group;
	else
		r->linger_first = group;
	r->linger_last = group;
	r->counts.groups_lingering++;
}

void group_linger_end(struct registry *r, uint32_t group)
{
	struct group_books *books = &r->group_books[group];

	if (!books->linger_until_ns)
		return;
	if (books->linger_next != NONE)
		r->group_books[books->linger_next].linger_prev = books->linger_prev;
	else
		r->linger_last = books->linger_prev;
	if (books->linger_prev != NONE)
		r->group_books[books->linger_prev].linger_next = books->linger_next;
	else
		r->linger_first = books->linger_next;
	books->linger_until_ns = 0;
	r->counts.groups_lingering--;
}

void group_linger_expire(struct registry *r)
{
	while (r->linger_first != NONE &&
	       r->group_books[r->linger_first].linger_until_ns <= r->now_ns)
		group_unlink(r, r->linger_first); /* one store: needs no intent */
}
