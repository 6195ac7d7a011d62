/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the control API makes of a request's bytes: route, path parameter, query and body. Pure
 * functions, apart from the server, so that a fuzz target can have them.
 */
#pragma once

#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <stddef.h>

#define REQUEST_KEYS_MAX 4

struct request_route {
	const char *method;
	const char *path;		    /* a last segment in braces is the parameter */
	const char *keys[REQUEST_KEYS_MAX]; /* allowed in the query (GET, DELETE) or in the body */
};

enum request_match { REQUEST_FOUND, REQUEST_NO_PATH, REQUEST_NO_METHOD, REQUEST_BAD_PARAM };

/* Index of the route; *param (caller frees) is the decoded parameter, NUL-terminated, or NULL. */
enum request_match request_match(const struct request_route *routes, size_t route_cnt,
				 const char *method, const char *path, size_t *idx, char **param,
				 size_t *param_len);

/* Parses the query (caller clears it). NULL or a sentence on what is wrong, into `why`. */
const char *request_query(const char *query, const char *const keys[REQUEST_KEYS_MAX],
			  struct evkeyvalq *out, char why[256]);
/* Parses the body: an object with allowed keys only; empty is {}. NULL and `why` where it is not.
 */
json_t *request_body(const char *bytes, size_t len, const char *const keys[REQUEST_KEYS_MAX],
		     char why[256]);
