/* SPDX-License-Identifier: BSD-3-Clause */
/* What fanwirectl prints: aligned tables and sentences for people, JSON lines for programs. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "control/ctl/command.h"

/*
 * "fanwirectl: sentence" on standard error; with -j {"error":name,"message":sentence} there.
 * Control characters are escaped.
 */
void output_error(const struct ctl *ctl, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The object as one line on standard output, at once. */
void output_json(const json_t *object);

/* Text with control characters, and what is not UTF-8, as \xHH. The caller frees it. */
char *output_escape(const char *text, size_t len);

#define TABLE_COLUMNS_MAX 8

struct table {
	const char *const *headings;
	unsigned columns;
	char **cells; /* row by row */
	size_t cell_cnt, room;
};

/* headings: as many as there are columns, kept. */
void table_init(struct table *table, const char *const *headings, unsigned columns);
/* One cell after the other; escaped. NULL: "-". */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A member of an object as a cell: text as it is, numbers, an array joined by commas. */
void table_json(struct table *table, const json_t *object, const char *key);
/* Prints it (nothing where it has no rows) and frees its cells. */
void table_print(struct table *table);
