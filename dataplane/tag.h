/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Filter tags, and the key generation that they and the seals are made under. One burst has one
 * generation; its roots are the worker's own copy, so that a rotation takes nothing away from under
 * it. The worker's lcore.
 */
#pragma once

#include "dataplane/worker.h"

/* The generation that is in force now, and its roots, for this burst: worker.roots. */
void tag_generation(struct worker *w);
/* The group's tag key of a generation. False: the generation is not known (any more). */
bool tag_key(const struct worker *w, uint8_t key[FAN_TAG_KEY_LEN], const struct fan_group *group,
	     uint32_t generation);
/*
 * Tags a delivery header of the group's under the key of the generation that it names; false, and
 * nothing is done, where that is not known (any more).
 */
bool tag_image(const struct worker *w, uint8_t *image, const struct fan_group *group);
