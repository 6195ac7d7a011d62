/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/ctl/channel.h"

#include <string.h>

#include "common/wire/handle.h"
#include "control/ctl/output.h"

bool channel_parse(const struct ctl *ctl, const char *text, const char **thread,
		   uint64_t *connection)
{
	*thread = NULL;
	*connection = 0;
	if (!text)
		return true;
	if (*text == '@') {
		if (fan_id_parse(connection, text + 1) == 0 && *connection != 0 &&
		    *connection <= FAN_CONNECTION_ID_MASK)
			return true;
		output_error(ctl, "usage",
			     "--channel %s: after @ stands a connection id, 16 "
			     "lowercase hex digits of which the first is 0 to 3",
			     text);
		return false;
	}
	if (*text && strlen(text) <= FAN_NAME_MAX) {
		*thread = text;
		return true;
	}
	output_error(ctl, "usage", "--channel: a thread's name has 1 to %d bytes", FAN_NAME_MAX);
	return false;
}
