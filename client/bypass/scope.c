/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/bypass/scope.h"

#include <string.h>

#include "common/wire/tags.h"
#include "common/wire/wire.h"

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

/* All but the tag, and the key that the tag has to be made with. */
static enum bypass_verdict judge_form(const struct bypass_case *c, const uint8_t **key)
{
	const struct bypass_scope *scope = c->scope;
	const uint8_t *packet = c->packet;

	*key = scope->tag_key;
	if (c->len < FAN_DELIVERY_LEN)
		return BYPASS_DROP_SHORT;
	if (packet[0] != FAN_WIRE_VERSION)
		return BYPASS_DROP_VERSION;
	if (packet[TYPE_OFF] < FAN_TYPE_DELIVERY || packet[TYPE_OFF] > FAN_TYPE_LOST)
		return BYPASS_DROP_TYPE;
	if (FAN_DELIVERY_LEN + read_be(packet + PAYLOAD_LEN_OFF, 2) != c->len)
		return BYPASS_DROP_LENGTH;
	if (memcmp(packet + HANDLE_OFF, scope->handle, FAN_HANDLE_LEN) != 0)
		return BYPASS_DROP_FOREIGN_USER;
	if (read_be(packet + USER_GENERATION_OFF, 4) != scope->user_generation)
		return BYPASS_DROP_USER_GENERATION;
	if (packet[KEY_GENERATION_OFF] != scope->key_generation) {
		if (packet[KEY_GENERATION_OFF] != scope->previous_key_generation)
			return BYPASS_DROP_KEY_GENERATION;
		*key = scope->previous_tag_key;
	}
	return BYPASS_ACCEPTED;
}

/* Those whose tags are made side by side. */
struct tagged {
	struct bypass_case *cases[FAN_TAGS_LANES];
	const uint8_t *packets[FAN_TAGS_LANES], *keys[FAN_TAGS_LANES];
	unsigned cnt;
};

/* One comparison of one word tells nothing by its time. */
static void judge_tags(fan_tags *make, struct tagged *t)
{
	uint64_t tags[FAN_TAGS_LANES], given;

	make(tags, t->packets, t->keys, t->cnt);
	for (unsigned i = 0; i < t->cnt; i++) {
		memcpy(&given, t->packets[i] + FAN_TAGS_COVERED, sizeof(given));
		t->cases[i]->verdict = given == tags[i] ? BYPASS_ACCEPTED : BYPASS_DROP_TAG;
	}
	t->cnt = 0;
}

void bypass_judge(struct bypass_case *cases, unsigned cnt)
{
	fan_tags *make = fan_tags_best();
	struct tagged t = {.cnt = 0};

	for (unsigned i = 0; i < cnt; i++) {
		struct bypass_case *c = &cases[i];

		c->verdict = judge_form(c, &t.keys[t.cnt]);
		if (c->verdict != BYPASS_ACCEPTED)
			continue;
		c->verdict = BYPASS_DROP_TAG; /* until its tag is seen to be right */
		t.cases[t.cnt] = c;
		t.packets[t.cnt] = c->packet;
		if (++t.cnt == FAN_TAGS_LANES)
			judge_tags(make, &t);
	}
	if (t.cnt)
		judge_tags(make, &t);
}
