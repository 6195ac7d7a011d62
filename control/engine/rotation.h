/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The key generation in force, and its rotation without losing a delivery:
 *
 *   recording   the database knows of the next generation before anybody else
 *   telling     its roots are in the registry region; filters and subscribers are told both
 *   confirming  until the agent says that all filters have them
 *   settling    a moment in which subscribers read what they were told
 *               -- the switch: one store --
 *   overlap     times.key_overlap in which what was sealed before is still replayed and accepted
 *   retiring    the old roots are wiped; filters and subscribers know the new generation alone
 *   ending      the database knows that it is over
 *
 * Killed in any of them, the next fanwired goes on where the registry region and the database say
 * that it stood. A generation never goes back, over boots neither. Event-loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/engine/engine.h"

struct rotation;

enum rotation_stage {
	ROTATION_NONE,
	ROTATION_RECORDING,
	ROTATION_TELLING,
	ROTATION_CONFIRMING,
	ROTATION_SETTLING,
	ROTATION_OVERLAP,
	ROTATION_RETIRING,
	ROTATION_RETIRING_CONFIRMING,
	ROTATION_ENDING,
};
const char *rotation_stage_name(enum rotation_stage stage);

/*
 * Puts the roots of the generation in force into the registry region, and takes up a rotation that
 * was under way. After the store and the registry, before the registrations.
 */
int rotation_open(struct rotation **rotation, struct engine *engine, char why[1024]);
/* After the marks and the store, which call it back. */
void rotation_close(struct rotation *rotation);

/* -EBUSY: one is under way. Else it goes on in rotation_tick(). */
int rotation_begin(struct rotation *rotation);
void rotation_tick(struct rotation *rotation, struct moment now);

struct rotation_status {
	uint8_t generation; /* in force */
	uint8_t from, to;   /* of the rotation under way; 0: none */
	enum rotation_stage stage;
	uint64_t since_s;   /* Unix time since when it is in force; 0: from the beginning */
	uint64_t overlap_s; /* OVERLAP: what is left of it */
};
void rotation_status(const struct rotation *rotation, struct moment now,
		     struct rotation_status *status);
