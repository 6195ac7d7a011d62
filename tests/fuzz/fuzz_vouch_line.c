/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A line of an administrator's import: the fast reader of the plain form and jansson are of one
 * mind. What is taken is JSON, says the same there, and is taken again as jansson writes it.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/wire.h"
#include "control/engine/vouch_line.h"

#define LINE_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_same(const struct vouch_line *line, const json_t *object)
{
	const json_t *user = json_object_get(object, "user");

	require(json_string_length(user) == line->user_len);
	require(memcmp(json_string_value(user), line->user, line->user_len) == 0);
	require(json_integer_value(json_object_get(object, "port")) == line->port);
	require(line->user_len >= 1 && line->port >= 1);
	require((line->id & ~FAN_CONNECTION_ID_MASK) == 0);
	require((line->id != 0) == (json_object_get(object, "id") != NULL));
	require(line->address.family == 4 || line->address.family == 6);
}

/* With every member escaped where jansson would: no longer the plain form, perhaps. */
static void check_again(const struct vouch_line *line, const json_t *object, size_t flags)
{
	char *text = json_dumps(object, flags), why[256];
	struct vouch_line again;

	require(text && vouch_line_read(text, strlen(text), &again, why) == 0);
	require(again.user_len == line->user_len && again.port == line->port);
	require(memcmp(again.user, line->user, line->user_len) == 0 && again.id == line->id);
	require(memcmp(&again.address, &line->address, sizeof(line->address)) == 0);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct vouch_line line;
	char *copy, why[256] = "";
	json_t *object;

	if (len > LINE_MAX)
		return 0;
	object = json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES, NULL);
	copy = malloc(len ? len : 1);
	require(copy != NULL);
	memcpy(copy, data, len);
	if (vouch_line_read(copy, len, &line, why) == 0) {
		require(object != NULL);
		check_same(&line, object);
		check_again(&line, object, JSON_COMPACT);
		check_again(&line, object, JSON_ENSURE_ASCII | JSON_SORT_KEYS | JSON_INDENT(1));
	} else {
		require(why[0] && memchr(why, '\0', sizeof(why)));
	}
	json_decref(object);
	free(copy);
	return 0;
}
