/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/step.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUN_MS_MAX 600000

/* One line, at once: whoever drives us waits for it. */
static void line_print(json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(15));

	puts(text ? text : "{\"error\": \"a line of JSON could not be made: no memory\"}");
	fflush(stdout);
	free(text);
	json_decref(line);
}

int step_fail(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	line_print(json_pack("{s:s}", "error", text));
	return 1;
}

/* A line without its end, from the descriptor itself; false at the end of the input. */
static bool line_read(char line[64])
{
	size_t len = 0;
	char byte;

	while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n')
		if (len < 63)
			line[len++] = byte;
	line[len] = '\0';
	return len > 0;
}

static int run_once(const char *line, step_run_fn *run, void *context)
{
	json_t *figures = json_object();
	unsigned long ms;
	char why[768] = "", *end;

	ms = strtoul(line + 4, &end, 10);
	if (*end || ms == 0 || ms > RUN_MS_MAX) {
		json_decref(figures);
		return step_fail("\"%s\": a run takes 1 to %d milliseconds", line, RUN_MS_MAX);
	}
	if (run(context, (unsigned)ms, figures, why, sizeof(why))) {
		json_decref(figures);
		return step_fail("%s", why);
	}
	line_print(json_pack("{s:o}", "run", figures));
	return 0;
}

void step_ready(json_t *settings, json_t *versions)
{
	line_print(
		json_pack("{s:{s:o, s:o}}", "ready", "settings", settings, "versions", versions));
}

int step_serve(json_t *settings, json_t *versions, step_run_fn *run, void *context)
{
	char line[64];

	step_ready(settings, versions);
	while (line_read(line) && strcmp(line, "quit") != 0) {
		if (strncmp(line, "run ", 4) != 0)
			return step_fail("\"%s\": the words are run MS and quit", line);
		if (run_once(line, run, context))
			return 1;
	}
	return 0;
}
