/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands about vouched connections but for import: list and remove. */
#include <stdio.h>
#include <string.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

static void show(const struct ctl *ctl, struct table *table, const json_t *vouched)
{
	static const char *const keys[] = {"row", "id", "user", "address", "port"};

	if (ctl->json) {
		output_json(vouched);
		return;
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		table_json(table, vouched, keys[i]);
}

int run_vouched_list(const struct ctl *ctl, const struct arguments *arguments)
{
	static const char *const headings[] = {"ROW", "ID", "USER", "ADDRESS", "PORT"};
	char after[24] = "0";
	bool more;

	do { /* a page at a time: there may be millions */
		struct api_query query[] = {{"after", after},
					    {arguments->cnt ? "user" : NULL,
					     arguments->cnt ? arguments->positional[0] : NULL},
					    {0}};
		json_t *answer = api_call(ctl, "GET", "/v1/vouched", query, NULL), *one;
		struct table table;
		size_t i;

		if (!answer)
			return EXIT_REFUSED;
		table_init(&table, headings, 5);
		json_array_foreach (json_object_get(answer, "vouched"), i, one)
			show(ctl, &table, one);
		if (!i && strcmp(after, "0") == 0 && !ctl->json)
			printf("no vouched connections; fanwirectl import FILE adds some\n");
		table_print(&table);
		more = json_is_integer(json_object_get(answer, "next"));
		snprintf(after, sizeof(after), "%lld",
			 (long long)json_integer_value(json_object_get(answer, "next")));
		json_decref(answer);
	} while (more);
	return EXIT_DONE;
}

static int remove_all(const struct ctl *ctl, const struct api_query *query)
{
	unsigned long long removed = 0;
	bool more = true;

	while (more) {
		json_t *answer = api_call(ctl, "DELETE", "/v1/vouched", query, NULL);

		if (!answer)
			return EXIT_REFUSED;
		removed +=
			(unsigned long long)json_integer_value(json_object_get(answer, "removed"));
		more = json_is_true(json_object_get(answer, "more"));
		json_decref(answer);
	}
	if (ctl->json) {
		json_t *object = json_pack("{s:I}", "removed", (json_int_t)removed);

		output_json(object);
		json_decref(object);
	} else {
		printf("removed: %llu\n", removed);
	}
	return EXIT_DONE;
}

int run_vouched_remove(const struct ctl *ctl, const struct arguments *arguments)
{
	static const char *const names[] = {"id", "user", "batch", "row"};
	struct api_query query[] = {{0}, {0}};
	unsigned given = 0;

	for (unsigned i = 0; i < 4; i++) {
		char option[16];
		const char *value;

		snprintf(option, sizeof(option), "--%s", names[i]);
		value = arguments_option(arguments, option, 0);
		if (!value)
			continue;
		query[0] = (struct api_query){names[i], value};
		given++;
	}
	if (given != 1) {
		output_error(ctl, "usage", "give one of --id, --user, --batch and --row");
		return EXIT_USAGE;
	}
	return remove_all(ctl, query);
}
