/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands that change something: tokens, publishers, disconnecting, revoking, keys. */
#include <stdio.h>
#include <time.h>

#include "common/wire/handle.h"
#include "control/ctl/api.h"
#include "control/ctl/output.h"

/* {"KEY": name}, or NULL after saying that the name is not UTF-8. */
static json_t *named(const struct ctl *ctl, const char *key, const char *name)
{
	json_t *body = json_pack("{s:s}", key, name);

	if (!body)
		output_error(ctl, "usage", "the name is not UTF-8; names are");
	return body;
}

/* Prints an answer: as JSON, or `plain` and the member that it is about. */
static int finish(const struct ctl *ctl, json_t *answer, const char *plain, const char *key)
{
	const json_t *value = json_object_get(answer, key);

	if (!answer)
		return EXIT_REFUSED;
	if (ctl->json)
		output_json(answer);
	else if (json_is_integer(value))
		printf("%s%lld\n", plain, (long long)json_integer_value(value));
	else
		printf("%s%s\n", plain, json_is_string(value) ? json_string_value(value) : "");
	json_decref(answer);
	return EXIT_DONE;
}

int run_token(const struct ctl *ctl, const struct arguments *arguments)
{
	unsigned long long ttl_s = 0;
	json_t *body;

	if (!arguments_number(ctl, arguments, "--ttl", 1, 10ull * 365 * 86400, &ttl_s))
		return EXIT_USAGE;
	body = named(ctl, "user", arguments->positional[0]);
	if (!body)
		return EXIT_USAGE;
	if (ttl_s)
		json_object_set_new(body, "ttl_seconds", json_integer((json_int_t)ttl_s));
	return finish(ctl, api_call(ctl, "POST", "/v1/tokens", NULL, body), "", "token");
}

int run_publisher_add(const struct ctl *ctl, const struct arguments *arguments)
{
	const char *user = arguments_option(arguments, "--user", 0);
	json_t *body = named(ctl, "name", arguments->positional[0]);

	if (!body)
		return EXIT_USAGE;
	if (user && json_object_set_new(body, "user", json_string(user)) < 0) {
		output_error(ctl, "usage", "the user's name is not UTF-8; names are");
		json_decref(body);
		return EXIT_USAGE;
	}
	return finish(ctl, api_call(ctl, "POST", "/v1/publishers", NULL, body),
		      "secret: ", "secret");
}

/* Unix seconds as a date and time for people. */
static void table_created(struct table *table, const json_t *publisher)
{
	time_t created = (time_t)json_integer_value(json_object_get(publisher, "created"));
	char text[32];
	struct tm parts;

	gmtime_r(&created, &parts);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%SZ", &parts);
	table_cell(table, "%s", text);
}

int run_publisher_list(const struct ctl *ctl, const struct arguments *arguments)
{
	static const char *const headings[] = {"NAME", "USER", "SESSIONS", "CREATED"};
	json_t *answer = api_call(ctl, "GET", "/v1/publishers", NULL, NULL);
	const json_t *list = json_object_get(answer, "publishers");
	struct table table;

	if (!answer)
		return EXIT_REFUSED;
	table_init(&table, headings, 4);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *publisher = json_array_get(list, i);

		if (ctl->json) {
			output_json(publisher);
			continue;
		}
		table_json(&table, publisher, "name");
		table_json(&table, publisher, "user");
		table_json(&table, publisher, "sessions");
		table_created(&table, publisher);
	}
	if (!ctl->json && json_array_size(list) == 0)
		printf("no publishers; fanwirectl publisher add NAME makes one\n");
	table_print(&table);
	json_decref(answer);
	return EXIT_DONE;
}

int run_publisher_remove(const struct ctl *ctl, const struct arguments *arguments)
{
	const struct api_query query[] = {{NULL, arguments->positional[0]}, {0}};

	return finish(ctl, api_call(ctl, "DELETE", "/v1/publishers", query, NULL),
		      "removed; sessions ended: ", "sessions_ended");
}

int run_disconnect(const struct ctl *ctl, const struct arguments *arguments)
{
	const struct api_query query[] = {{NULL, arguments->positional[0]}, {0}};
	uint64_t id;

	if (fan_id_parse(&id, arguments->positional[0]) < 0) {
		output_error(ctl, "usage",
			     "%s is no connection id: 16 lowercase hex digits, as "
			     "fanwirectl connections shows them",
			     arguments->positional[0]);
		return EXIT_USAGE;
	}
	return finish(ctl, api_call(ctl, "DELETE", "/v1/connections", query, NULL), "ended",
		      "ended");
}

int run_revoke(const struct ctl *ctl, const struct arguments *arguments)
{
	json_t *body = named(ctl, "user", arguments->positional[0]);

	if (!body)
		return EXIT_USAGE;
	return finish(ctl, api_call(ctl, "POST", "/v1/revocations", NULL, body),
		      "revoked; connections ended: ", "connections_ended");
}

/* ---- keys ------------------------------------------------------------------------------------ */

static int show_keys(const struct ctl *ctl, json_t *answer)
{
	const json_t *rotation = json_object_get(answer, "rotation");

	if (!answer)
		return EXIT_REFUSED;
	if (ctl->json) {
		output_json(answer);
	} else {
		printf("key generation %lld in force; deliveries are %s\n",
		       (long long)json_integer_value(json_object_get(answer, "generation")),
		       json_is_true(json_object_get(answer, "seal")) ? "sealed"
								     : "not sealed (scope.seal)");
		if (json_is_object(rotation))
			printf("rotation from %lld to %lld: %s, %lld s of the overlap left\n",
			       (long long)json_integer_value(json_object_get(rotation, "from")),
			       (long long)json_integer_value(json_object_get(rotation, "to")),
			       json_string_value(json_object_get(rotation, "stage")),
			       (long long)json_integer_value(
				       json_object_get(rotation, "overlap_seconds")));
	}
	json_decref(answer);
	return EXIT_DONE;
}

int run_keys_show(const struct ctl *ctl, const struct arguments *arguments)
{
	return show_keys(ctl, api_call(ctl, "GET", "/v1/keys", NULL, NULL));
}

int run_keys_rotate(const struct ctl *ctl, const struct arguments *arguments)
{
	return show_keys(ctl, api_call(ctl, "POST", "/v1/keys/rotate", NULL, json_object()));
}
