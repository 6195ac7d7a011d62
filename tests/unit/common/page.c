/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/common/page.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/handle.h"

#define PAGE FAN_SOURCE_ROOT "/docs/wire-format.md"

/* "field = hex" of a line; false where it is another field. */
static bool field_of(const char *line, const char *field, struct bytes *bytes)
{
	char name[64], hex[2 * sizeof(bytes->at) + 1] = "";
	int parts = sscanf(line, "%63s = %4096s", name, hex);

	if (parts < 1 || strcmp(name, field) != 0)
		return false;
	bytes->len = strlen(hex) / 2;
	cr_assert_eq(fan_unhex(bytes->at, bytes->len, hex), 0, "%s: bad hex in: %s", PAGE, line);
	return true;
}

struct bytes vector_bytes(const char *vector, const char *field)
{
	char wanted[96], line[8192];
	struct bytes bytes = {.len = 0};
	bool inside = false, found = false;
	FILE *page = fopen(PAGE, "re");

	cr_assert_not_null(page, "cannot open %s", PAGE);
	snprintf(wanted, sizeof(wanted), "```vector %s\n", vector);
	while (!found && fgets(line, sizeof(line), page)) {
		if (strncmp(line, "```", 3) == 0)
			inside = strcmp(line, wanted) == 0;
		else if (inside)
			found = field_of(line, field, &bytes);
	}
	fclose(page);
	cr_assert(found, "%s: no vector %s with field %s", PAGE, vector, field);
	return bytes;
}

uint64_t vector_number(const char *vector, const char *field)
{
	struct bytes bytes = vector_bytes(vector, field);
	uint64_t number = 0;

	cr_assert_leq(bytes.len, 8, "%s.%s is no integer", vector, field);
	for (size_t i = 0; i < bytes.len; i++)
		number = number << 8 | bytes.at[i];
	return number;
}
