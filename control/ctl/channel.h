/* SPDX-License-Identifier: BSD-3-Clause */
/* --channel NAME|@ID: a thread, or one connection. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/ctl/command.h"

/* Exactly one of *thread and *connection is set; text NULL: none. false: wrong, and said so. */
bool channel_parse(const struct ctl *ctl, const char *text, const char **thread,
		   uint64_t *connection);
