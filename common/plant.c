/* SPDX-License-Identifier: BSD-3-Clause */
/* Of builds with -Dplant=true only. */
#include "common/plant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNREAD (-1)

/* Of the process, since there is one environment. __atomic: any thread may be the first to ask. */
static int present = UNREAD;

static int read_present(void)
{
	static const char *const names[] = {
#define NAME(name) #name,
		FAN_PLANTS(NAME)
#undef NAME
	};
	const char *wanted = getenv("FANWIRE_PLANT");

	if (!wanted || !*wanted)
		return PLANT_CNT;
	for (int i = 0; i < PLANT_CNT; i++)
		if (strcmp(names[i], wanted) == 0)
			return i;
	fprintf(stderr, "FANWIRE_PLANT=%s is no planted bug; they are listed in common/plant.h\n",
		wanted);
	abort();
}

int fan_plant_present(void)
{
	int is = __atomic_load_n(&present, __ATOMIC_RELAXED);

	if (is == UNREAD) {
		is = read_present();
		__atomic_store_n(&present, is, __ATOMIC_RELAXED);
	}
	return is;
}
