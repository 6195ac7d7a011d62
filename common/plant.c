/* SPDX-License-Identifier: BSD-3-Clause */
/* Of builds with -Dplant=true only. */
#include "common/plant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ (1ull << 63)

/* Of the process, since there is one environment. __atomic: any thread may be the first to ask. */
static unsigned long long present;

static unsigned long long bit_of(const char *wanted)
{
	static const char *const names[] = {
#define NAME(name) #name,
		FAN_PLANTS(NAME)
#undef NAME
	};

	for (int i = 0; i < PLANT_CNT; i++)
		if (strcmp(names[i], wanted) == 0)
			return 1ull << i;
	fprintf(stderr, "FANWIRE_PLANT=%s is no planted bug; they are listed in common/plant.h\n",
		wanted);
	abort();
}

static unsigned long long read_present(void)
{
	const char *wanted = getenv("FANWIRE_PLANT");
	unsigned long long bits = READ;
	char copy[1024], *rest = copy, *name;

	snprintf(copy, sizeof(copy), "%s", wanted ? wanted : "");
	while ((name = strsep(&rest, ",")) != NULL)
		if (*name)
			bits |= bit_of(name);
	return bits;
}

unsigned long long fan_plant_present(void)
{
	unsigned long long is = __atomic_load_n(&present, __ATOMIC_RELAXED);

	if (is == 0) {
		is = read_present();
		__atomic_store_n(&present, is, __ATOMIC_RELAXED);
	}
	return is;
}
