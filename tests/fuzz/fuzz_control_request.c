/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request of control.sock, "METHOD PATH?QUERY\nBODY": whatever comes, a route's parameter has no
 * NUL, and query and body hold only what the route allows, each once.
 */
#include <event2/http.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "control/engine/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct request_route routes[] = {
	{"GET", "/v1/things", {"user", "limit"}},
	{"POST", "/v1/things", {"name", "user"}},
	{"DELETE", "/v1/things/{name}", {NULL}},
};

static void require(bool holds)
{
	if (!holds)
		abort();
}

static bool allowed(const struct request_route *route, const char *key)
{
	return (route->keys[0] && strcmp(route->keys[0], key) == 0) ||
	       (route->keys[1] && strcmp(route->keys[1], key) == 0);
}

static void check_query(const struct request_route *route, const char *query)
{
	struct evkeyvalq pairs;
	struct evkeyval *pair;
	char why[256];

	if (!request_query(query, route->keys, &pairs, why))
		TAILQ_FOREACH(pair, &pairs, next)
	require(allowed(route, pair->key));
	evhttp_clear_headers(&pairs);
}

static void check_body(const struct request_route *route, const char *bytes, size_t len)
{
	char why[256];
	const char *key;
	json_t *value, *body = request_body(bytes, len, route->keys, why);

	if (!body) {
		require(strnlen(why, sizeof(why)) < sizeof(why) && why[0]);
		return;
	}
	json_object_foreach (body, key, value) {
		require(allowed(route, key));
	}
	json_decref(body);
}

static void check_request(char *line, const char *body, size_t body_len)
{
	char *path = strchr(line, ' '), *query, *param;
	size_t idx, param_len;

	if (!path)
		return;
	*path++ = '\0';
	query = strchr(path, '?');
	if (query)
		*query++ = '\0';
	if (request_match(routes, 3, line, path, &idx, &param, &param_len) == REQUEST_FOUND) {
		require(idx < 3 && strcmp(routes[idx].method, line) == 0);
		require(!param || strlen(param) == param_len);
		check_query(&routes[idx], query);
		check_body(&routes[idx], body, body_len);
	}
	free(param);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *end = memchr(data, '\n', len);
	size_t line_len = end ? (size_t)(end - data) : len;
	char *line = malloc(line_len + 1);

	if (!line)
		return 0;
	memcpy(line, data, line_len);
	line[line_len] = '\0';
	check_request(line, end ? (const char *)end + 1 : "", end ? len - line_len - 1 : 0);
	free(line);
	return 0;
}
