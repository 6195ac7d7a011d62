/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "common/config/config.h"

enum field {
	FIELD_OP = 1 << 0,
	FIELD_TOKEN = 1 << 1,
	FIELD_THREADS = 1 << 2,
	FIELD_SINGLE = 1 << 3,
	FIELD_CONNECTION = 1 << 4,
	FIELD_FAMILY = 1 << 5,
	FIELD_NAME = 1 << 6,
	FIELD_SECRET = 1 << 7,
	FIELD_GRANT = 1 << 8,
	FIELD_SESSION = 1 << 9,
	FIELD_ADDRESS = 1 << 10,
	FIELD_PORT = 1 << 11,
};

static const struct {
	const char *name;
	enum request_op op;
	unsigned required, optional; /* fields, besides op */
	bool descriptor;
} ops[] = {
	{"subscribe", REQUEST_SUBSCRIBE, FIELD_TOKEN,
	 FIELD_THREADS | FIELD_SINGLE | FIELD_CONNECTION | FIELD_FAMILY, false},
	{"bypass", REQUEST_BYPASS, FIELD_TOKEN | FIELD_ADDRESS | FIELD_PORT,
	 FIELD_THREADS | FIELD_SINGLE | FIELD_CONNECTION, false},
	{"renew", REQUEST_RENEW, 0, FIELD_TOKEN, false},
	{"attach", REQUEST_ATTACH, FIELD_CONNECTION | FIELD_TOKEN, 0, true},
	{"publish_open", REQUEST_PUBLISH_OPEN, 0,
	 FIELD_NAME | FIELD_SECRET | FIELD_GRANT | FIELD_FAMILY, false},
	{"publish_attach", REQUEST_PUBLISH_ATTACH, FIELD_SESSION,
	 FIELD_NAME | FIELD_SECRET | FIELD_GRANT, true},
};
#define OP_CNT (sizeof(ops) / sizeof(ops[0]))

__attribute__((format(printf, 2, 3))) static int refuse(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, MESSAGE_REASON_MAX, format, args);
	va_end(args);
	return -EINVAL;
}

/* Copies a string of min..max bytes. Jansson refuses NUL inside strings, so len is its length. */
static int get_string(const json_t *value, const char *field, size_t min, size_t max, char *out,
		      char *why)
{
	if (!json_is_string(value))
		return refuse(why, "\"%s\" must be a string", field);
	size_t len = json_string_length(value);

	if (len < min || len > max)
		return refuse(why, "\"%s\" has %zu bytes; it must have %zu to %zu", field, len, min,
			      max);
	memcpy(out, json_string_value(value), len + 1);
	return 0;
}

static int get_id(const json_t *value, const char *field, uint64_t max, uint64_t *id, char *why)
{
	if (!json_is_string(value) || json_string_length(value) != 16 ||
	    fan_id_parse(id, json_string_value(value)) || !*id || *id > max)
		return refuse(
			why,
			"\"%s\" must be a string of 16 lowercase hex digits, %016llx to %016llx",
			field, 1ULL, (unsigned long long)max);
	return 0;
}

static int get_threads(const json_t *value, struct client_request *request, char *why)
{
	size_t idx;
	json_t *name;

	if (!json_is_array(value))
		return refuse(why, "\"threads\" must be an array of names");
	if (json_array_size(value) > MESSAGE_THREADS_MAX)
		return refuse(why, "\"threads\" has %zu names; at most %d are possible",
			      json_array_size(value), MESSAGE_THREADS_MAX);
	json_array_foreach (value, idx, name) {
		int err = get_string(name, "threads", 1, FAN_NAME_MAX, request->threads[idx], why);

		if (err)
			return err;
		for (size_t i = 0; i < idx; i++)
			if (!strcmp(request->threads[i], request->threads[idx]))
				return refuse(why,
					      "\"threads\" names one thread twice; name each once");
		request->thread_cnt++;
	}
	return 0;
}

static int get_family(const json_t *value, unsigned *family, char *why)
{
	if (!json_is_integer(value) ||
	    (json_integer_value(value) != 4 && json_integer_value(value) != 6))
		return refuse(why, "\"family\" must be 4 or 6; leave it out for the host's first");
	*family = (unsigned)json_integer_value(value);
	return 0;
}

static int get_address(const json_t *value, struct message_address *address, char *why)
{
	struct fan_address parsed;

	if (!json_is_string(value) || fan_address_parse(&parsed, json_string_value(value)))
		return refuse(why, "\"address\" must be an IPv4 or IPv6 address");
	memcpy(address->bytes, parsed.bytes, sizeof(address->bytes));
	address->family = parsed.family;
	return 0;
}

static int get_port(const json_t *value, uint16_t *port, char *why)
{
	if (!json_is_integer(value) || json_integer_value(value) < 1 ||
	    json_integer_value(value) > UINT16_MAX)
		return refuse(why, "\"port\" must be a number from 1 to 65535");
	*port = (uint16_t)json_integer_value(value);
	return 0;
}

static int get_single(const json_t *value, bool *single, char *why)
{
	if (!json_is_boolean(value))
		return refuse(why, "\"single\" must be true or false");
	*single = json_is_true(value);
	return 0;
}

static const struct {
	const char *name;
	enum field field;
} fields[] = {
	{"op", FIELD_OP},	    {"token", FIELD_TOKEN},	      {"threads", FIELD_THREADS},
	{"single", FIELD_SINGLE},   {"connection", FIELD_CONNECTION}, {"family", FIELD_FAMILY},
	{"name", FIELD_NAME},	    {"secret", FIELD_SECRET},	      {"grant", FIELD_GRANT},
	{"session", FIELD_SESSION}, {"address", FIELD_ADDRESS},	      {"port", FIELD_PORT},
};

static const char *field_name(enum field field)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (fields[i].field == field)
			return fields[i].name;
	return "";
}

static enum field field_of(const char *name)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (!strcmp(fields[i].name, name))
			return fields[i].field;
	return 0;
}

static int get_field(struct client_request *request, enum field field, const char *name,
		     const json_t *value, char *why)
{
	switch (field) {
	case FIELD_OP:
		return 0; /* read already: it decides which fields may stand here */
	case FIELD_TOKEN:
	case FIELD_GRANT:
		return get_string(value, name, 1, sizeof(request->token) - 1, request->token, why);
	case FIELD_THREADS:
		return get_threads(value, request, why);
	case FIELD_SINGLE:
		return get_single(value, &request->single, why);
	case FIELD_CONNECTION:
		return get_id(value, name, FAN_CONNECTION_ID_MASK, &request->connection, why);
	case FIELD_FAMILY:
		return get_family(value, &request->family, why);
	case FIELD_NAME:
		return get_string(value, name, 1, FAN_NAME_MAX, request->name, why);
	case FIELD_SECRET:
		return get_string(value, name, 1, sizeof(request->secret) - 1, request->secret,
				  why);
	case FIELD_SESSION:
		return get_id(value, name, UINT64_MAX, &request->session, why);
	case FIELD_ADDRESS:
		return get_address(value, &request->address, why);
	case FIELD_PORT:
		return get_port(value, &request->address.port, why);
	}
	return refuse(why, "a field is unknown");
}

/* A publisher proves itself in one of two ways, never in both. */
static int check_credential(unsigned seen, char *why)
{
	bool secret = (seen & (FIELD_NAME | FIELD_SECRET)) == (FIELD_NAME | FIELD_SECRET);
	bool any = seen & (FIELD_NAME | FIELD_SECRET);
	bool grant = seen & FIELD_GRANT;

	if (secret != any || grant == any)
		return refuse(why, "send either \"name\" and \"secret\", or \"grant\"");
	return 0;
}

static int find_op(const json_t *root, size_t *idx, char *why)
{
	const char *name = json_string_value(json_object_get(root, "op"));

	for (*idx = 0; name && *idx < OP_CNT; ++*idx)
		if (!strcmp(ops[*idx].name, name))
			return 0;
	return refuse(why, "\"op\" must be one of subscribe, bypass, renew, attach, publish_open, "
			   "publish_attach");
}

/* A client's own text in a message: printable ASCII only, and short. */
#define QUOTE_MAX 64
static void quote(char out[QUOTE_MAX + 1], const char *text)
{
	size_t i;

	for (i = 0; i < QUOTE_MAX && text[i]; i++)
		out[i] = (text[i] >= ' ' && text[i] < 127 && text[i] != '"') ? text[i] : '?';
	out[i] = 0;
}

static int get_request(struct client_request *request, json_t *root, char *why)
{
	unsigned seen = 0;
	const char *name;
	json_t *value;
	size_t op;
	int err;

	if (!json_is_object(root))
		return refuse(why, "a request is one JSON object, such as {\"op\":\"renew\"}");
	err = find_op(root, &op, why);
	if (err)
		return err;
	request->op = ops[op].op;

	json_object_foreach (root, name, value) {
		enum field field = field_of(name);
		char quoted[QUOTE_MAX + 1];

		quote(quoted, name);
		if (!(field & (ops[op].required | ops[op].optional | FIELD_OP)))
			return refuse(
				why,
				"field \"%s\" does not belong in a \"%s\" request; leave it out",
				quoted, ops[op].name);
		err = get_field(request, field, name, value, why);
		if (err)
			return err;
		seen |= field;
	}
	for (unsigned bit = 1; bit <= FIELD_PORT; bit <<= 1)
		if ((ops[op].required & bit) && !(seen & bit))
			return refuse(why, "a \"%s\" request needs \"%s\"", ops[op].name,
				      field_name(bit));
	if (ops[op].optional & FIELD_GRANT)
		return check_credential(seen, why);
	return 0;
}

int client_request_parse(struct client_request *request, const char *text, size_t text_len,
			 char why[MESSAGE_REASON_MAX])
{
	json_error_t error;
	char quoted[QUOTE_MAX + 1];
	json_t *root;
	int err;

	if (text_len > CLIENT_PACKET_MAX)
		return refuse(why, "the packet is larger than %d bytes", CLIENT_PACKET_MAX);
	memset(request, 0, sizeof(*request));
	root = json_loadb(text, text_len, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		quote(quoted, error.text);
		return refuse(why, "not a JSON object: %s, at byte %d; send one object a packet",
			      quoted, error.position);
	}
	err = get_request(request, root, why);
	json_decref(root);
	return err;
}

const char *client_request_op_name(enum request_op op)
{
	for (size_t i = 0; i < OP_CNT; i++)
		if (ops[i].op == op)
			return ops[i].name;
	return "unknown";
}

bool client_request_has_descriptor(enum request_op op)
{
	for (size_t i = 0; i < OP_CNT; i++)
		if (ops[i].op == op)
			return ops[i].descriptor;
	return false;
}
