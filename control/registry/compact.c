/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keeps a long run of free endpoints. Small blocks that come and go leave holes that no larger one
 * fits in, though there is room in all of them together. So a gap wanders through the endpoints:
 * the block behind it moves to the gap's front, which takes the holes behind that block along,
 * until the gap is long enough. A block moves as in any change: it is copied, published with one
 * store, and the old one rests; a gap is as long as what moves within one grace period, so it is
 * made while there still is a run to begin with.
 */
#include <string.h>

#include "control/registry/internal.h"

#define UNITS_A_STEP 4096u /* looked at or moved: less than a millisecond */
#define GAP_LEAST    256u  /* also room for most blocks that a deletion copies */
#define AWAY_LEAST   8u
#define GAP_MOST     65536u

/* Whose block begins at an endpoint; NONE: nobody's, it rests. */
static uint32_t owner_of(const struct registry *r, uint32_t first)
{
	uint32_t connection = r->endpoints[first].record, begin;

	if (connection >= r->root->connection_cnt)
		return NONE;
	for (uint32_t m = r->connection_books[connection].memberships; m != NONE;
	     m = r->memberships[m].next) {
		uint32_t group = r->memberships[m].group, cnt = group_block(r, group, &begin);

		if (cnt && begin == first)
			return group;
	}
	return NONE;
}

static void move(struct registry *r, uint32_t group, uint32_t to)
{
	uint32_t first, cnt = group_block(r, group, &first);

	step(r, "block move");
	memcpy(&r->endpoints[to], &r->endpoints[first], cnt * sizeof(*r->endpoints));
	group_publish(r, group, to, cnt);
	retire(r, RETIRED_BLOCK, first, cnt);
}

static uint32_t wanted_run(const struct registry *r)
{
	uint32_t share = r->blocks.free_cnt / 4;

	return share < GAP_LEAST ? GAP_LEAST : share < GAP_MOST ? share : GAP_MOST;
}

/* The gap as it is moved on: `run` free ones, and from `behind` on what has not been looked at. */
struct gap {
	uint32_t first, run, behind;
	uint32_t kept; /* of the run: while the rest of it rests, comers find that */
	uint32_t away; /* endpoints that may still go elsewhere: comers need the longest run, too */
};

/* Moves the block behind the gap, or passes it. False: nobody's, or nowhere to go. */
static bool pass_block(struct registry *r, struct gap *gap)
{
	uint32_t group = owner_of(r, gap->behind), first, cnt, to;

	if (group == NONE)
		return false;
	cnt = group_block(r, group, &first);
	if (cnt + gap->kept <= gap->run) {
		to = block_take(&r->blocks, gap->first, cnt);
		gap->first += cnt;
		gap->run -= cnt;
	} else {
		to = !gap->kept && cnt <= gap->away ? block_alloc(&r->blocks, cnt) : BLOCK_NONE;
		gap->away -= to == BLOCK_NONE ? 0 : cnt;
	}
	if (to == BLOCK_NONE) {
		bool nothing_moved = gap->first + gap->run == gap->behind;

		if (nothing_moved) /* on to the next hole */
			gap->first = gap->behind + cnt;
		return false;
	}
	gap->behind += cnt;
	move(r, group, to);
	return true;
}

/* What was moved rests, and then is the gap: until then nothing can be moved into it. */
static bool gap_rests(const struct registry *r)
{
	return (int32_t)(r->retirement.tail - r->gap_rests) < 0;
}

static void gap_move(struct registry *r)
{
	struct gap gap = {.first = block_next(&r->blocks, r->gap, UNITS_A_STEP),
			  .away = block_longest(&r->blocks) / 4 + AWAY_LEAST};
	uint32_t end = r->blocks.unit_cnt;

	gap.run = gap.first < end ? block_run(&r->blocks, gap.first) : 0;
	gap.behind = gap.first + gap.run;
	gap.kept = gap.run >= block_longest(&r->blocks) / 2 ? gap.run / 2 : 0;
	while (gap.run && gap.behind < end && gap.behind - gap.first < UNITS_A_STEP + gap.run) {
		uint32_t hole = block_run(&r->blocks, gap.behind);

		if (hole)
			gap.behind += hole;
		else if (!pass_block(r, &gap))
			break;
	}
	r->gap = gap.behind < end ? gap.first : 0;
	r->gap_rests = r->retirement.head;
}

void compact(struct registry *r)
{
	/* Too little to make a gap of: others' endings will. */
	if (r->resting || gap_rests(r) || r->blocks.free_cnt < GAP_LEAST ||
	    block_longest(&r->blocks) >= wanted_run(r))
		return;
	gap_move(r);
}
