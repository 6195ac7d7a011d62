/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/agent/uid_counts.h"

#include <stdlib.h>

struct uid_count {
	LIST_ENTRY(uid_count) link;
	uint32_t uid, cnt;
};

static struct uid_count *find(struct uid_counts *counts, uint32_t uid)
{
	struct uid_count *count;

	LIST_FOREACH(count, &counts->buckets[uid % UID_BUCKETS], link)
	if (count->uid == uid)
		return count;
	return NULL;
}

bool uid_counts_get(struct uid_counts *counts, uint32_t uid)
{
	struct uid_count *count = find(counts, uid);

	if (!count && counts->limit) {
		count = calloc(1, sizeof(*count));
		if (!count)
			return false;
		count->uid = uid;
		LIST_INSERT_HEAD(&counts->buckets[uid % UID_BUCKETS], count, link);
	}
	if (!count || count->cnt >= counts->limit)
		return false;
	count->cnt++;
	return true;
}

void uid_counts_put(struct uid_counts *counts, uint32_t uid)
{
	struct uid_count *count = find(counts, uid);

	if (--count->cnt)
		return;
	LIST_REMOVE(count, link);
	free(count);
}
