/* SPDX-License-Identifier: BSD-3-Clause */
/* Groups: their blocks of endpoints, and lingering after the last connection. */
#include "common/plant.h"
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

	if (fan_planted(PLANT_COUNT_BEFORE_POSITION))
		__atomic_store_n(&r->groups[group].endpoints,
				 (r->groups[group].endpoints & ~(uint64_t)FAN_ENDPOINT_CNT_MAX) |
					 cnt,
				 __ATOMIC_RELEASE);
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

/* ---- lingering ---- */

static struct linger_list *list_of(struct registry *r, enum linger_of of, uint32_t user)
{
	return of == LINGER_OF_ALL ? &r->lingering : &r->users[user].lingering;
}

static void list_append(struct registry *r, enum linger_of of, uint32_t group)
{
	struct group_books *books = &r->group_books[group];
	struct linger_list *list = list_of(r, of, r->group_links[group].user);

	books->linger[of].prev = list->last;
	books->linger[of].next = NONE;
	if (list->last != NONE)
		r->group_books[list->last].linger[of].next = group;
	else
		list->first = group;
	list->last = group;
}

static void list_remove(struct registry *r, enum linger_of of, uint32_t group)
{
	struct group_books *books = &r->group_books[group];
	struct linger_list *list = list_of(r, of, r->group_links[group].user);
	uint32_t prev = books->linger[of].prev, next = books->linger[of].next;

	if (next != NONE)
		r->group_books[next].linger[of].prev = prev;
	else
		list->last = prev;
	if (prev != NONE)
		r->group_books[prev].linger[of].next = next;
	else
		list->first = next;
}

void group_linger_begin(struct registry *r, uint32_t group)
{
	/* + 1: never 0 */
	r->group_books[group].linger_until_ns = r->now_ns + r->linger_ns + 1;
	list_append(r, LINGER_OF_ALL, group);
	list_append(r, LINGER_OF_USER, group);
	r->counts.groups_lingering++;
}

void group_linger_end(struct registry *r, uint32_t group)
{
	if (!r->group_books[group].linger_until_ns)
		return;
	list_remove(r, LINGER_OF_ALL, group);
	list_remove(r, LINGER_OF_USER, group);
	r->group_books[group].linger_until_ns = 0;
	r->counts.groups_lingering--;
}

void group_linger_expire(struct registry *r)
{
	uint32_t ahead = r->lingering.first;

	for (unsigned i = 0; i < REGISTRY_AHEAD && ahead != NONE; i++)
		ahead = r->group_books[ahead].linger[LINGER_OF_ALL].next;
	while (r->lingering.first != NONE &&
	       r->group_books[r->lingering.first].linger_until_ns <= r->now_ns) {
		if (ahead != NONE) {
			ahead_group_end(r, ahead);
			ahead = r->group_books[ahead].linger[LINGER_OF_ALL].next;
		}
		group_unlink(r, r->lingering.first); /* one store: needs no intent */
	}
}

uint32_t group_linger_shed(struct registry *r, uint32_t user, uint32_t cnt)
{
	enum linger_of of = user == NONE ? LINGER_OF_ALL : LINGER_OF_USER;
	uint32_t group = list_of(r, of, user)->first, shed = 0;

	while (group != NONE && shed < cnt) {
		uint32_t next = r->group_books[group].linger[of].next;

		if (!planned_group(r, group)) {
			group_unlink(r, group); /* one store, as above */
			shed++;
		}
		group = next;
	}
	return shed;
}
