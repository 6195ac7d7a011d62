/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/bypass.h"

#include <stdio.h>
#include <string.h>

#include "control/engine/registrations_private.h"
#include "control/engine/vouched_private.h"

/* Of another registration; the one that is replaced gives way. */
static bool is_registered(const struct registrations *all, const struct message *message)
{
	const struct message_address *place = &message->u.client.address;
	const struct registration *r;
	uint32_t cursor = 0;

	while ((r = registrations_next(all, &cursor)))
		if (r->id != message->id && r->address.port == place->port &&
		    memcmp(r->address.bytes, place->bytes, sizeof(place->bytes)) == 0)
			return true;
	return false;
}

bool bypass_place_check(const struct registrations *all, const struct message *message,
			enum message_error *error, char why[MESSAGE_REASON_MAX])
{
	const struct message_address *place = &message->u.client.address;
	const struct engine *engine = all->engine;

	if (place->family == 0)
		return true;
	*error = MESSAGE_ERROR_BAD_REQUEST;
	if (!vouched_place_ok(engine->config, place, why))
		return false;
	*error = MESSAGE_ERROR_BUSY;
	if (vouched_is_loading(engine->vouched)) {
		snprintf(why, MESSAGE_REASON_MAX,
			 "the vouched connections are being loaded, and this address may be one "
			 "of theirs; try again in a moment");
		return false;
	}
	*error = MESSAGE_ERROR_NO_PORT;
	if (!is_registered(all, message) && !vouched_has_place(engine->vouched, place))
		return true;
	snprintf(why, MESSAGE_REASON_MAX,
		 "port %u of that address is another connection's; take another one", place->port);
	return false;
}
