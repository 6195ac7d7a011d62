/* SPDX-License-Identifier: BSD-3-Clause */
/* How `tail` shows an event or a loss, and from where it could go on. */
#pragma once

#include "client/fanwire.h"
#include "control/ctl/command.h"

#define EVENT_VIEW_CHANNELS 66 /* as many as a connection can be in */

/* The last place of each channel that something was shown of. */
struct event_places {
	struct event_place {
		uint64_t channel;
		char *thread; /* name, or NULL */
		uint64_t epoch, sequence, unfinished;
	} places[EVENT_VIEW_CHANNELS];
	unsigned cnt;
};

/* FAN_EVENT_DATA or FAN_EVENT_LOST, on standard output. */
void event_print(const struct ctl *ctl, const char *user, const struct fan_event *event);

void event_places_note(struct event_places *places, const struct fan_event *event);
/* "resume with: --since …" on standard error, where there is a place. */
void event_places_say(const struct event_places *places);
void event_places_fini(struct event_places *places);
