/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What fanwired may do, while it starts and afterwards: docs/security.md, What each process can do.
 * The main thread, before and after engine_create().
 */
#pragma once

#include "common/config/config.h"
#include "common/privilege/privilege.h"

struct privileges {
	struct privilege_user user; /* fanwired's */
	struct privilege_user dataplane;
};

/* Makes the directories. 0, or -errno and why. */
int privileges_directories(const struct fan_config *config, char why[1024]);

/*
 * As root, and once no other fanwired uses them: gives the directories and what an earlier start
 * left there to fanwired's user, and becomes that user, with the capabilities that a start needs.
 * 0, or -errno and why.
 */
int privileges_begin(struct privileges *privileges, const struct fan_config *config,
		     char why[1024]);

/* Gives up what only the start needed. 0, or -errno and why. */
int privileges_settle(const struct privileges *privileges, char why[1024]);
