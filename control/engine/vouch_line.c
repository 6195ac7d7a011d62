/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/vouch_line.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/handle.h"
#include "common/wire/wire.h"

enum member { MEMBER_USER, MEMBER_ADDRESS, MEMBER_PORT, MEMBER_ID, MEMBER_CNT };
static const char *const names[MEMBER_CNT] = {"user", "address", "port", "id"};

/* What the members say, before it is judged. */
struct members {
	char *text[MEMBER_CNT]; /* of a string */
	size_t len[MEMBER_CNT];
	uint64_t port;
};

__attribute__((format(printf, 2, 3))) static int bad(char why[256], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, 256, format, args);
	va_end(args);
	return -EINVAL;
}

/* ---- the plain form: false where a line is any other, or wrong ------------------------------- */

struct cursor {
	char *at, *end;
};

static void skip_blanks(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r'))
		c->at++;
}

static bool take(struct cursor *c, char wanted)
{
	skip_blanks(c);
	if (c->at == c->end || *c->at != wanted)
		return false;
	c->at++;
	return true;
}

static bool take_string(struct cursor *c, char **text, size_t *len)
{
	if (!take(c, '"'))
		return false;
	for (*text = c->at; c->at < c->end; c->at++) {
		if (*c->at == '"') {
			*len = (size_t)(c->at++ - *text);
			return true;
		}
		if (*c->at < ' ' || *c->at == '\\' || *c->at == 0x7f) /* bytes over 127 too */
			return false;
	}
	return false;
}

static bool take_number(struct cursor *c, uint64_t *number)
{
	char *first;

	skip_blanks(c);
	first = c->at;
	for (*number = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9' && c->at - first < 9;)
		*number = *number * 10 + (uint64_t)(*c->at++ - '0');
	/* JSON knows no leading zeros; a fraction or an exponent is met by who reads on */
	return c->at > first && (*first != '0' || c->at - first == 1);
}

static bool take_member(struct cursor *c, struct members *m, unsigned *seen)
{
	char *key;
	size_t len;

	if (!take_string(c, &key, &len) || !take(c, ':'))
		return false;
	for (unsigned i = 0; i < MEMBER_CNT; i++) {
		if (strlen(names[i]) != len || memcmp(names[i], key, len) != 0)
			continue;
		if (*seen & 1u << i)
			return false;
		*seen |= 1u << i;
		return i == MEMBER_PORT ? take_number(c, &m->port)
					: take_string(c, &m->text[i], &m->len[i]);
	}
	return false;
}

static bool read_plain(char *line, size_t len, struct members *m)
{
	struct cursor c = {line, line + len};
	const unsigned required = 1u << MEMBER_USER | 1u << MEMBER_ADDRESS | 1u << MEMBER_PORT;
	unsigned seen = 0;

	if (!take(&c, '{'))
		return false;
	do {
		if (!take_member(&c, m, &seen))
			return false;
	} while (take(&c, ','));
	if (!take(&c, '}'))
		return false;
	skip_blanks(&c);
	return c.at == c.end && (seen & required) == required;
}

/* ---- any form -------------------------------------------------------------------------------- */

static int check_members(const json_t *object, char why[256])
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)object, key, value) {
		unsigned i = 0;

		while (i < MEMBER_CNT && strcmp(names[i], key) != 0)
			i++;
		if (i == MEMBER_CNT)
			return bad(why, "unknown member \"%.64s\"", key);
		if (i == MEMBER_PORT ? !json_is_integer(value) : !json_is_string(value))
			return bad(why, "%s must be a %s", names[i],
				   i == MEMBER_PORT ? "whole number" : "string");
	}
	for (unsigned i = 0; i < MEMBER_ID; i++)
		if (!json_object_get(object, names[i]))
			return bad(why, "%s is missing", names[i]);
	return 0;
}

/* A string is never longer than what it was written as: the line has room for all of them. */
static void keep_strings(const json_t *object, char *line, struct members *m)
{
	for (unsigned i = 0; i < MEMBER_CNT; i++) {
		const json_t *value = json_object_get(object, names[i]);

		if (!json_is_string(value))
			continue;
		m->text[i] = line;
		m->len[i] = json_string_length(value);
		memcpy(line, json_string_value(value), m->len[i]);
		line += m->len[i];
	}
}

static int read_any(char *line, size_t len, struct members *m, char why[256])
{
	json_error_t error;
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	json_int_t port;
	int err;

	if (!object)
		return bad(why, "not JSON: %.150s", error.text);
	err = json_is_object(object) ? check_members(object, why) : bad(why, "not a JSON object");
	if (!err) {
		port = json_integer_value(json_object_get(object, names[MEMBER_PORT]));
		m->port = port > 0 ? (uint64_t)port : 0;
		keep_strings(object, line, m);
	}
	json_decref(object);
	return err;
}

/* ---- what they mean -------------------------------------------------------------------------- */

static int judge(const struct members *m, struct vouch_line *out, char why[256])
{
	char text[64] = "";

	if (m->len[MEMBER_USER] < 1 || m->len[MEMBER_USER] > FAN_NAME_MAX)
		return bad(why, "user must be 1 to %u bytes", FAN_NAME_MAX);
	out->user = m->text[MEMBER_USER];
	out->user_len = (uint8_t)m->len[MEMBER_USER];
	if (m->port < 1 || m->port > UINT16_MAX)
		return bad(why, "port must be 1 to 65535");
	out->port = (uint16_t)m->port;
	if (m->len[MEMBER_ADDRESS] < sizeof(text))
		memcpy(text, m->text[MEMBER_ADDRESS], m->len[MEMBER_ADDRESS]);
	if (strlen(text) != m->len[MEMBER_ADDRESS] || fan_address_parse(&out->address, text))
		return bad(why, "address must be an IPv4 or IPv6 address");
	out->id = 0;
	if (!m->text[MEMBER_ID])
		return 0;
	memset(text, 0, sizeof(text));
	if (m->len[MEMBER_ID] < sizeof(text))
		memcpy(text, m->text[MEMBER_ID], m->len[MEMBER_ID]);
	if (fan_id_parse(&out->id, text) || out->id & ~FAN_CONNECTION_ID_MASK || !out->id)
		return bad(why, "id must be 16 lowercase hex digits, 1 to 2^62-1");
	return 0;
}

int vouch_line_read(char *line, size_t len, struct vouch_line *out, char why[256])
{
	struct members members = {.port = 0};

	if (!read_plain(line, len, &members)) {
		int err;

		members = (struct members){.port = 0};
		err = read_any(line, len, &members, why);
		if (err)
			return err;
	}
	return judge(&members, out, why);
}
