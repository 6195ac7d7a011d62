/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls of the control API (docs/control-api.md) over control.sock. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "control/ctl/command.h"

struct api_query { /* one parameter, or one segment of the path where name is NULL */
	const char *name;
	const char *value;
};

/*
 * Calls "METHOD path", each part of `query` (ends with a valueless one; may be NULL)
 * percent-encoded. The answer, which the caller releases, or NULL after saying on standard error
 * what was wrong. `body` is released.
 */
json_t *api_call(const struct ctl *ctl, const char *method, const char *path,
		 const struct api_query *query, json_t *body);

/* Likewise, but silent: `why` gets the sentence. */
json_t *api_try(const struct ctl *ctl, const char *method, const char *path,
		const struct api_query *query, json_t *body, char why[512]);

/* Lines of JSON in many requests over one connection. NULL where memory is out. */
struct api_stream;
struct api_stream *api_stream_open(const struct ctl *ctl, const char *path);
/* The answer, or NULL: `name` the error's (unreachable: fanwired is not there), `why` the sentence.
 */
json_t *api_stream_post(struct api_stream *stream, const char *bytes, size_t len, char name[64],
			char why[512]);
void api_stream_close(struct api_stream *stream);
