/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands that show: connections, explain, audit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

/* ---- connections ----------------------------------------------------------------------------- */

static void show_connection(const struct ctl *ctl, struct table *table, const json_t *connection)
{
	static const char *const keys[] = {"id",    "user",	  "address",	   "port",
					   "state", "generation", "lease_seconds", "channels"};

	if (ctl->json) {
		output_json(connection);
		return;
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		table_json(table, connection, keys[i]);
}

int run_connections(const struct ctl *ctl, const struct arguments *arguments)
{
	static const char *const headings[] = {"ID",	"USER",	      "ADDRESS", "PORT",
					       "STATE", "GENERATION", "LEASE",	 "CHANNELS"};
	char after[32] = "";
	struct table table;

	table_init(&table, headings, 8);
	do {
		struct api_query query[3] = {0};
		unsigned cnt = 0;
		const char *next;
		json_t *answer, *list;

		if (arguments->cnt)
			query[cnt++] = (struct api_query){"user", arguments->positional[0]};
		if (*after)
			query[cnt++] = (struct api_query){"after", after};
		answer = api_call(ctl, "GET", "/v1/connections", query, NULL);
		if (!answer)
			return EXIT_REFUSED;
		list = json_object_get(answer, "connections");
		for (size_t i = 0; i < json_array_size(list); i++)
			show_connection(ctl, &table, json_array_get(list, i));
		next = json_string_value(json_object_get(answer, "next"));
		snprintf(after, sizeof(after), "%s", next ? next : "");
		json_decref(answer);
	} while (*after);
	if (!ctl->json && table.cell_cnt == 0)
		printf("no connections\n");
	table_print(&table);
	return EXIT_DONE;
}

/* ---- explain --------------------------------------------------------------------------------- */

static void show_ids(const json_t *list, const char *heading)
{
	static const char *const headings[] = {"ID", "REASON"};
	struct table table;

	printf("\n%s: %zu\n", heading, json_array_size(list));
	table_init(&table, headings, 2);
	for (size_t i = 0; i < json_array_size(list); i++) {
		table_json(&table, json_array_get(list, i), "id");
		table_json(&table, json_array_get(list, i), "reason");
	}
	table_print(&table);
}

static void show_explanation(const json_t *answer)
{
	const json_t *group = json_object_get(answer, "group");
	const json_t *notes = json_object_get(answer, "notes");
	static const char *const headings[] = {"USER", "HANDLE", "CHANNEL", "EPOCH", "SEQUENCE"};
	struct table table;

	table_init(&table, headings, 5);
	table_json(&table, answer, "user");
	table_json(&table, answer, "handle");
	table_json(&table, answer, "channel");
	table_json(&table, group, "epoch");
	table_json(&table, group, "sequence");
	table_print(&table);
	show_ids(json_object_get(answer, "would_receive"), "would receive");
	show_ids(json_object_get(answer, "would_not"), "would not");
	for (size_t i = 0; i < json_array_size(notes); i++) {
		const char *note = json_string_value(json_array_get(notes, i));
		char *escaped = output_escape(note ? note : "", note ? strlen(note) : 0);

		printf("%s%s\n", i ? "" : "\n", escaped);
		free(escaped);
	}
}

int run_explain(const struct ctl *ctl, const struct arguments *arguments)
{
	const char *channel = arguments_option(arguments, "--channel", 0);
	const struct api_query query[] = {
		{"user", arguments->positional[0]}, {channel ? "channel" : NULL, channel}, {0}};
	json_t *answer = api_call(ctl, "GET", "/v1/explain", query, NULL);

	if (!answer)
		return EXIT_REFUSED;
	if (ctl->json)
		output_json(answer);
	else
		show_explanation(answer);
	json_decref(answer);
	return EXIT_DONE;
}

/* ---- audit ----------------------------------------------------------------------------------- */

/* A value as it is, or in quotes where its end would not show. */
static void print_value(const char *text)
{
	char *escaped = output_escape(text, strlen(text));
	bool quoted = strpbrk(escaped, " \"=");

	if (quoted)
		putchar('"');
	for (const char *at = escaped; *at; at++)
		printf("%s%c", quoted && (*at == '"' || *at == '\\') ? "\\" : "", *at);
	if (quoted)
		putchar('"');
	free(escaped);
}

static void show_record(const struct ctl *ctl, const json_t *record)
{
	const char *blank = "", *key;
	json_t *value;

	if (ctl->json) {
		output_json(record);
		return;
	}
	/* a line of what the record has: most fields belong to few events */
	json_object_foreach ((json_t *)record, key, value) {
		const char *text = json_string_value(value);
		bool bare = strcmp(key, "time") == 0 || strcmp(key, "event") == 0;
		bool number = json_is_integer(value) && strcmp(key, "row") != 0;

		if (!number && !(text && *text))
			continue;
		printf("%s%s%s", blank, bare ? "" : key, bare ? "" : "=");
		if (number)
			printf("%lld", (long long)json_integer_value(value));
		else
			print_value(text);
		blank = " ";
	}
	printf("\n");
	fflush(stdout);
}

/* Prints the records after row *after, and moves it. false: failed, and said so. */
static bool show_audit(const struct ctl *ctl, const char *event, const char *limit, char after[32])
{
	struct api_query query[4] = {{"limit", limit}, {0}};
	unsigned cnt = 1;
	json_t *answer, *list;

	if (*after)
		query[cnt++] = (struct api_query){"after", after};
	if (event)
		query[cnt++] = (struct api_query){"event", event};
	answer = api_call(ctl, "GET", "/v1/audit", query, NULL);
	if (!answer)
		return false;
	list = json_object_get(answer, "records");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *record = json_array_get(list, i);

		show_record(ctl, record);
		snprintf(after, 32, "%lld",
			 (long long)json_integer_value(json_object_get(record, "row")));
	}
	json_decref(answer);
	return true;
}

int run_audit(const struct ctl *ctl, const struct arguments *arguments)
{
	const char *event = arguments_option(arguments, "--event", 0);
	unsigned long long limit = 100;
	char limit_text[32], after[32] = "";

	if (!arguments_number(ctl, arguments, "--limit", 1, 10000, &limit))
		return EXIT_USAGE;
	snprintf(limit_text, sizeof(limit_text), "%llu", limit);
	if (!show_audit(ctl, event, limit_text, after))
		return EXIT_REFUSED;
	while (arguments_option(arguments, "--follow", 0)) {
		usleep(500000);
		if (!*after) /* there was none: every record is after row 0 */
			snprintf(after, sizeof(after), "0");
		if (!show_audit(ctl, event, "1000", after))
			return EXIT_REFUSED;
	}
	return EXIT_DONE;
}
