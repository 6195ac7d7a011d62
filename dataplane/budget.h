/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a publisher may make the engine send: bytes of copies, so many a second, for all of its
 * sessions together. So a small publish to a user with very many connections is no amplifier, and
 * opening more sessions is worth nothing: sessions of one publisher have one meter (struct
 * fan_session), whichever workers own them, and a meter is one word that they change atomically.
 *
 * A publish is charged for the copies that its group would be sent at that moment, each with its
 * delivery header, before it is given a place. It is accepted while what was spent and not yet
 * earned is less than BUDGET_BURST_MS of the rate: so in any time t at most rate * (t + burst) and
 * one event. Source: GCRA as in ITU-T I.371, its time counted in bytes. A session is charged a
 * little ahead, so that most of its publishes touch nothing that is shared; what it has paid and
 * not used stays its own.
 *
 * Any worker; a try of one fails only where another's has succeeded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_BURST_MS	   100
#define BUDGET_AHEAD	   64	 /* this part of the burst at once */
#define BUDGET_WAIT_MAX_MS 60000 /* a publisher is told to wait no longer; then it asks again */

struct publisher_budget {
	uint64_t meter;	  /* __atomic: whose it is; 0: nobody's yet */
	uint64_t spent;	  /* __atomic: on the scale that grows by the rate each second */
	uint64_t largest; /* __atomic: bytes of one event; more debt than that is a clock's doing */
} __attribute__((aligned(64)));

/* What one session has paid ahead, and on whose meter; its owner alone. */
struct budget_ahead {
	uint64_t meter;
	uint64_t bytes;
};

struct plane;

int budget_init(struct plane *plane); /* 0 or -ENOMEM */
void budget_fini(struct plane *plane);

/*
 * Charges `bytes` to the meter, at CLOCK_MONOTONIC now_ns. 0: it may be sent. Otherwise nothing was
 * charged, and it is worth another try after that many milliseconds. rate: bytes a second, at most
 * 10^11, not 0.
 */
uint32_t budget_spend(struct publisher_budget *budget, uint64_t meter, uint64_t rate,
		      uint64_t now_ns, uint64_t bytes);

/* The same, out of what the session has paid ahead, where that is enough. */
static inline uint32_t budget_charge(struct publisher_budget *budget, struct budget_ahead *ahead,
				     uint64_t meter, uint64_t rate, uint64_t now_ns, uint64_t bytes)
{
	uint64_t more = rate * BUDGET_BURST_MS / 1000 / BUDGET_AHEAD;
	uint32_t wait_ms;

	if (ahead->meter == meter && ahead->bytes >= bytes) {
		ahead->bytes -= bytes;
		return 0;
	}
	if (ahead->meter != meter)
		*ahead = (struct budget_ahead){.meter = meter};
	wait_ms = budget_spend(budget, meter, rate, now_ns, bytes + more - ahead->bytes);
	if (wait_ms == 0)
		ahead->bytes = more;
	return wait_ms;
}
