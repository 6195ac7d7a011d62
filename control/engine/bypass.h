/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receivers without a socket of ours: who asks for one names the address and port that the
 * dataplane shall send to. It must be one that the administrator vouches for, and nobody else's.
 * Event-loop thread only.
 */
#pragma once

#include <stdbool.h>

#include "control/engine/registrations.h"

/* Whether the REGISTER may have the place that it asks for; one for a socket names none. */
bool bypass_place_check(const struct registrations *registrations, const struct message *message,
			enum message_error *error, char why[MESSAGE_REASON_MAX]);
