/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>

#include "control/ctl/api.h"
#include "control/ctl/output.h"

static const json_t *member(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static long long number(const json_t *object, const char *key)
{
	const json_t *value = member(object, key);

	return json_is_real(value) ? (long long)json_real_value(value) : json_integer_value(value);
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(member(object, key));

	return value ? value : "?";
}

static void print_stopped(const json_t *plane)
{
	char was[64] = "";

	if (number(plane, "pid"))
		snprintf(was, sizeof(was), " (was process %lld)", number(plane, "pid"));
	printf("dataplane stopped%s: nothing is delivered; start it: ./dev up, or "
	       "fanwire-dataplane --config FILE\n",
	       was);
}

static void print_vouched(const json_t *vouched)
{
	if (strcmp(text(vouched, "state"), "loading") == 0)
		printf("vouched connections are being loaded from the database: %lld of %lld\n",
		       number(vouched, "loaded"), number(vouched, "to_load"));
	else if (strcmp(text(vouched, "state"), "failed") == 0)
		printf("vouched connections: %lld, others cannot be read; see fanwirectl doctor\n",
		       number(vouched, "total"));
	else if (number(vouched, "total"))
		printf("%lld of them vouched for by an administrator\n", number(vouched, "total"));
	if (number(vouched, "waiting"))
		printf("%lld changes of vouched connections wait for the dataplane to let go of "
		       "what was there before\n",
		       number(vouched, "waiting"));
}

/* "log: 64 MiB, 1.2 MiB/s: 53 s" */
static void print_log(const json_t *status)
{
	const json_t *log = member(status, "log"), *keys = member(status, "keys");
	double rate = json_number_value(member(log, "bytes_per_second"));

	printf("log: %.0f MiB, %.1f MiB/s", (double)number(log, "capacity_bytes") / 0x1p20,
	       rate / 0x1p20);
	if (json_is_number(member(log, "retention_seconds")))
		printf(": %.0f s", json_number_value(member(log, "retention_seconds")));
	printf("\nkey generation %lld%s\n", number(keys, "generation"),
	       json_is_object(member(keys, "rotation")) ? ", a rotation is under way" : "");
}

static void print_processes(const json_t *status)
{
	const json_t *control = member(status, "control"), *plane = member(status, "dataplane");
	const json_t *connections = member(status, "connections");

	printf("instance %s: fanwired %s, process %lld, up %lld s\n", text(control, "instance"),
	       text(control, "version"), number(control, "pid"), number(control, "uptime_seconds"));
	if (strcmp(text(plane, "state"), "stopped") == 0)
		print_stopped(plane);
	else
		printf("dataplane %s: process %lld, %lld worker(s), %.0f %% busy, heartbeat %.1f s "
		       "ago\n",
		       text(plane, "state"), number(plane, "pid"), number(plane, "workers"),
		       json_number_value(member(plane, "busy")) * 100,
		       json_number_value(member(plane, "heartbeat_age_seconds")));
	printf("%lld users, %lld active connections, %lld pending, %lld ending, %lld publisher "
	       "sessions\n",
	       number(status, "users"), number(connections, "active"),
	       number(connections, "pending"), number(connections, "ending"),
	       number(status, "sessions"));
	print_vouched(member(status, "vouched"));
	print_log(status);
	printf("\n");
}

static void print_walls(const json_t *status)
{
	static const char *const headings[] = {"WALL", "STATE", "REASON"};
	const json_t *walls = member(status, "walls"), *value;
	struct table table;
	const char *key;

	table_init(&table, headings, 3);
	json_object_foreach ((json_t *)walls, key, value) {
		table_cell(&table, "%s", key);
		table_cell(&table, "%s", json_string_value(value) ? json_string_value(value) : "?");
		table_json(&table, member(status, "wall_reasons"), key);
	}
	table_print(&table);
}

/* Those that are not zero: the others tell nothing. */
static void print_counters(const json_t *status, const char *key, const char *heading)
{
	const char *headings[] = {heading, "COUNT"};
	json_t *value;
	struct table table;
	const char *name;

	table_init(&table, headings, 2);
	json_object_foreach ((json_t *)member(status, key), name, value) {
		if (json_integer_value(value) == 0)
			continue;
		table_cell(&table, "%s", name);
		table_cell(&table, "%lld", (long long)json_integer_value(value));
	}
	if (table.cell_cnt)
		printf("\n");
	table_print(&table);
}

int run_status(const struct ctl *ctl, const struct arguments *arguments)
{
	json_t *status = api_call(ctl, "GET", "/v1/status", NULL, NULL);

	if (!status)
		return EXIT_REFUSED;
	if (ctl->json) {
		output_json(status);
	} else {
		print_processes(status);
		print_walls(status);
		print_counters(status, "counters", "COUNTER");
		print_counters(status, "filter", "FILTER VERDICT");
		print_counters(status, "guard", "GUARD");
	}
	json_decref(status);
	return EXIT_DONE;
}
