/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/request.h"

#include <event2/http.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* Matches a path against a route; *param is where its parameter begins, or NULL. */
static bool path_matches(const char *route, const char *path, const char **param)
{
	const char *brace = strchr(route, '{');
	size_t fixed = brace ? (size_t)(brace - route) : strlen(route);

	*param = NULL;
	if (strncmp(route, path, fixed) != 0)
		return false;
	if (!brace)
		return path[fixed] == '\0';
	if (path[fixed] == '\0' || strchr(path + fixed, '/'))
		return false;
	*param = path + fixed;
	return true;
}

enum request_match request_match(const struct request_route *routes, size_t route_cnt,
				 const char *method, const char *path, size_t *idx, char **param,
				 size_t *param_len)
{
	enum request_match result = REQUEST_NO_PATH;
	const char *raw;

	*param = NULL;
	*param_len = 0;
	for (size_t i = 0; i < route_cnt; i++) {
		if (!path_matches(routes[i].path, path, &raw))
			continue;
		result = REQUEST_NO_METHOD;
		if (strcmp(routes[i].method, method) != 0)
			continue;
		*idx = i;
		if (!raw)
			return REQUEST_FOUND;
		*param = evhttp_uridecode(raw, 0, param_len);
		return *param && !memchr(*param, 0, *param_len) ? REQUEST_FOUND : REQUEST_BAD_PARAM;
	}
	return result;
}

static bool key_allowed(const char *const keys[REQUEST_KEYS_MAX], const char *key)
{
	for (unsigned i = 0; i < REQUEST_KEYS_MAX && keys[i]; i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

/* evhttp's parser ends a decoded value at a NUL: %00 would cut a name short, silently. */
static bool holds_nul(const char *query)
{
	return strstr(query, "%00") != NULL;
}

const char *request_query(const char *query, const char *const keys[REQUEST_KEYS_MAX],
			  struct evkeyvalq *out, char why[256])
{
	const struct evkeyval *pair, *other;

	TAILQ_INIT(out);
	if (!query || !query[0])
		return NULL;
	if (holds_nul(query) || evhttp_parse_query_str(query, out)) {
		snprintf(why, 256, "the query cannot be read; write KEY=VALUE&KEY=VALUE");
		return why;
	}
	for (pair = out->tqh_first; pair; pair = pair->next.tqe_next) {
		if (!key_allowed(keys, pair->key)) {
			snprintf(why, 256, "unknown query key '%.64s'", pair->key);
			return why;
		}
		for (other = pair->next.tqe_next; other; other = other->next.tqe_next) {
			if (strcmp(other->key, pair->key) == 0) {
				snprintf(why, 256, "query key '%.64s' stands twice", pair->key);
				return why;
			}
		}
	}
	return NULL;
}

json_t *request_body(const char *bytes, size_t len, const char *const keys[REQUEST_KEYS_MAX],
		     char why[256])
{
	json_error_t error;
	const char *key;
	json_t *body, *value;

	if (len == 0)
		return json_object();
	body = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &error);
	if (!body) {
		snprintf(why, 256, "the body is not JSON: %.150s (line %d)", error.text,
			 error.line);
		return NULL;
	}
	if (!json_is_object(body)) {
		snprintf(why, 256, "the body must be a JSON object");
		json_decref(body);
		return NULL;
	}
	json_object_foreach (body, key, value) {
		if (!key_allowed(keys, key)) {
			snprintf(why, 256, "unknown field '%.64s'", key);
			json_decref(body);
			return NULL;
		}
	}
	return body;
}
