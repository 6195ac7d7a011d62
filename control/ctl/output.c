/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/ctl/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static void *must(void *memory)
{
	if (memory)
		return memory;
	fprintf(stderr, "fanwirectl: out of memory\n");
	exit(EXIT_REFUSED);
}

/* Length of the printable character at `text`; 0: it must be escaped. */
static size_t printable(const char *text, size_t len)
{
	unsigned char first = (unsigned char)text[0];
	size_t want = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	json_t *check;

	if (first < 0x20 || first == 0x7f || want > len)
		return 0;
	if (want == 1)
		return 1;
	if (first == 0xc2 && (unsigned char)text[1] < 0xa0)
		return 0;		  /* C1 control characters */
	check = json_stringn(text, want); /* refuses what is not UTF-8 */
	json_decref(check);
	return check ? want : 0;
}

char *output_escape(const char *text, size_t len)
{
	char *out = must(malloc(4 * len + 1)), *to = out;

	for (size_t i = 0; i < len;) {
		size_t n = printable(text + i, len - i);

		if (n == 0) {
			to += sprintf(to, "\\x%02x", (unsigned char)text[i++]);
			continue;
		}
		memcpy(to, text + i, n);
		to += n;
		i += n;
	}
	*to = 0;
	return out;
}

void output_error(const struct ctl *ctl, const char *name, const char *format, ...)
{
	char sentence[2048], *escaped;
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	escaped = output_escape(sentence, strlen(sentence));
	if (ctl->json) {
		json_t *object = json_pack("{s:s, s:s}", "error", name, "message", escaped);

		json_dumpf(object, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(object);
	} else {
		fprintf(stderr, "fanwirectl: %s\n", escaped);
	}
	free(escaped);
}

void output_json(const json_t *object)
{
	json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15)); /* 58.9, not 58.899… */
	fputc('\n', stdout);
	fflush(stdout);
}

/* ---- tables ---------------------------------------------------------------------------------- */

void table_init(struct table *table, const char *const *headings, unsigned columns)
{
	*table = (struct table){.headings = headings, .columns = columns};
}

static void add_cell(struct table *table, const char *text)
{
	if (table->cell_cnt == table->room) {
		table->room = table->room ? table->room * 2 : 64;
		table->cells = must(realloc(table->cells, table->room * sizeof(*table->cells)));
	}
	table->cells[table->cell_cnt++] = output_escape(text, strlen(text));
}

void table_cell(struct table *table, const char *format, ...)
{
	char text[1024];
	va_list args;

	if (!format) {
		add_cell(table, "-");
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	add_cell(table, text);
}

void table_json(struct table *table, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	char text[1024] = "";
	size_t len = 0;

	if (json_is_array(value)) {
		for (size_t i = 0; i < json_array_size(value) && len < sizeof(text); i++) {
			const char *one = json_string_value(json_array_get(value, i));

			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s",
						i ? "," : "", one ? one : "?");
		}
		add_cell(table, *text ? text : "-");
	} else if (json_is_integer(value)) {
		table_cell(table, "%lld", (long long)json_integer_value(value));
	} else if (json_is_real(value)) {
		table_cell(table, "%.1f", json_real_value(value));
	} else if (json_is_string(value) && json_string_length(value)) {
		add_cell(table, json_string_value(value));
	} else {
		add_cell(table, json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "-");
	}
}

/* Columns on a terminal; bytes where the locale does not know. */
static int width(const char *text)
{
	wchar_t wide[1024];
	size_t cnt = mbstowcs(wide, text, 1024);
	int columns = cnt == (size_t)-1 || cnt == 1024 ? -1 : wcswidth(wide, cnt);

	return columns < 0 ? (int)strlen(text) : columns;
}

static void print_row(const struct table *table, const char *const *cells, const int *widths)
{
	for (unsigned c = 0; c < table->columns; c++) {
		bool last = c + 1 == table->columns;

		printf("%s%*s", cells[c], last ? 0 : widths[c] - width(cells[c]) + 2,
		       last ? "\n" : "");
	}
}

void table_print(struct table *table)
{
	int widths[TABLE_COLUMNS_MAX] = {0};

	for (unsigned c = 0; c < table->columns; c++)
		widths[c] = width(table->headings[c]);
	for (size_t i = 0; i < table->cell_cnt; i++) {
		int columns = width(table->cells[i]);

		if (columns > widths[i % table->columns])
			widths[i % table->columns] = columns;
	}
	if (table->cell_cnt)
		print_row(table, table->headings, widths);
	for (size_t i = 0; i + table->columns <= table->cell_cnt; i += table->columns)
		print_row(table, (const char *const *)table->cells + i, widths);
	for (size_t i = 0; i < table->cell_cnt; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct table){0};
}
