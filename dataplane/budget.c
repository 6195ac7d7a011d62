/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/budget.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/worker.h"

#define US_PER_S 1000000

int budget_init(struct plane *plane)
{
	size_t len = (plane->table.session_mask + 1) * sizeof(*plane->budgets);

	plane->budgets = aligned_alloc(_Alignof(struct publisher_budget), len);
	if (!plane->budgets)
		return -ENOMEM;
	memset(plane->budgets, 0, len);
	return 0;
}

void budget_fini(struct plane *plane)
{
	free(plane->budgets);
	plane->budgets = NULL;
}

/* Modulo 2^64; exact at each microsecond, so nothing is lost however long it runs. */
static uint64_t earned_by(uint64_t now_ns, uint64_t rate)
{
	uint64_t now_us = now_ns / 1000;

	return now_us / US_PER_S * rate + now_us % US_PER_S * rate / US_PER_S;
}

/* Another publisher's from now on, with nothing spent. */
static void begin(struct publisher_budget *budget, uint64_t meter, uint64_t earned)
{
	__atomic_store_n(&budget->spent, earned, __ATOMIC_RELAXED);
	__atomic_store_n(&budget->largest, 0, __ATOMIC_RELAXED);
	/* pairs with the acquire in budget_spend(), of another worker */
	__atomic_store_n(&budget->meter, meter, __ATOMIC_RELEASE);
}

/* Bytes that are not earned yet. More than events can have made, seen by a worker whose time is up
 * to a second old, is of a clock that went back: it is begun anew, and nobody waits for that clock.
 */
static uint64_t debt_of(const struct publisher_budget *budget, uint64_t spent, uint64_t earned,
			uint64_t burst, uint64_t rate)
{
	int64_t debt = (int64_t)(spent - earned);
	uint64_t most = burst + rate + __atomic_load_n(&budget->largest, __ATOMIC_RELAXED);

	return debt < 0 || (uint64_t)debt > most ? 0 : (uint64_t)debt;
}

static uint32_t wait_of(uint64_t bytes, uint64_t rate)
{
	uint64_t most = rate * (BUDGET_WAIT_MAX_MS / 1000);

	return 1 + (uint32_t)((bytes < most ? bytes : most) * 1000 / rate);
}

uint32_t budget_spend(struct publisher_budget *budget, uint64_t meter, uint64_t rate,
		      uint64_t now_ns, uint64_t bytes)
{
	uint64_t earned = earned_by(now_ns, rate);
	uint64_t burst = rate * BUDGET_BURST_MS / 1000 + 1;
	uint64_t spent, debt;

	if (__atomic_load_n(&budget->meter, __ATOMIC_ACQUIRE) != meter)
		begin(budget, meter, earned);
	/* Before it is spent: whoever sees the debt sees what made it. */
	if (bytes > __atomic_load_n(&budget->largest, __ATOMIC_RELAXED))
		__atomic_store_n(&budget->largest, bytes, __ATOMIC_RELEASE);
	spent = __atomic_load_n(&budget->spent, __ATOMIC_ACQUIRE);
	do {
		debt = debt_of(budget, spent, earned, burst, rate);
		if (debt >= burst)
			return wait_of(debt - burst, rate);
	} while (!__atomic_compare_exchange_n(&budget->spent, &spent, earned + debt + bytes, false,
					      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	return 0;
}
