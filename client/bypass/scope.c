/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/bypass/scope.h"

#include <string.h>

/* Offsets of the delivery header (docs/wire-format.md). */
#define TYPE_OFF	    1
#define KEY_GENERATION_OFF  3
#define PAYLOAD_LEN_OFF	    4
#define HANDLE_OFF	    8
#define USER_GENERATION_OFF 56

static uint32_t read_be(const uint8_t *at, unsigned len)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < len; i++)
		value = value << 8 | at[i];
	return value;
}

enum bypass_verdict bypass_judge(const struct bypass_scope *scope, const uint8_t *packet,
				 size_t len)
{
	const uint8_t *key = scope->tag_key;

	if (len < FAN_DELIVERY_LEN)
		return BYPASS_DROP_SHORT;
	if (packet[0] != FAN_WIRE_VERSION)
		return BYPASS_DROP_VERSION;
	if (packet[TYPE_OFF] < FAN_TYPE_DELIVERY || packet[TYPE_OFF] > FAN_TYPE_STATUS)
		return BYPASS_DROP_TYPE;
	if (FAN_DELIVERY_LEN + read_be(packet + PAYLOAD_LEN_OFF, 2) != len)
		return BYPASS_DROP_LENGTH;
	if (memcmp(packet + HANDLE_OFF, scope->handle, FAN_HANDLE_LEN) != 0)
		return BYPASS_DROP_FOREIGN_USER;
	if (read_be(packet + USER_GENERATION_OFF, 4) != scope->user_generation)
		return BYPASS_DROP_USER_GENERATION;
	if (packet[KEY_GENERATION_OFF] != scope->key_generation) {
		if (packet[KEY_GENERATION_OFF] != scope->previous_key_generation)
			return BYPASS_DROP_KEY_GENERATION;
		key = scope->previous_tag_key;
	}
	return fan_filter_tag_ok(packet, key) ? BYPASS_ACCEPTED : BYPASS_DROP_TAG;
}
