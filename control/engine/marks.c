/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/marks.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "control/link.h"

struct mark {
	STAILQ_ENTRY(mark) entry;
	uint64_t ref;
	marks_done done;
	void *arg;
};
STAILQ_HEAD(mark_list, mark);

struct marks {
	struct link *link;
	struct mark_list waiting; /* oldest first, as they are answered */
	uint64_t last_ref;
};

struct marks *marks_create(struct link *link)
{
	struct marks *marks = calloc(1, sizeof(*marks));

	if (!marks)
		return NULL;
	marks->link = link;
	STAILQ_INIT(&marks->waiting);
	return marks;
}

static void call_first(struct marks *marks, int status)
{
	struct mark *mark = STAILQ_FIRST(&marks->waiting);

	STAILQ_REMOVE_HEAD(&marks->waiting, entry);
	mark->done(mark->arg, status);
	free(mark);
}

void marks_destroy(struct marks *marks)
{
	if (!marks)
		return;
	while (!STAILQ_EMPTY(&marks->waiting))
		call_first(marks, -ECANCELED);
	free(marks);
}

void marks_when_done(struct marks *marks, marks_done done, void *arg)
{
	struct message message = {.type = MESSAGE_MARK, .ref = ++marks->last_ref};
	struct mark *mark = calloc(1, sizeof(*mark));

	if (!mark) {
		done(arg, -ENOMEM);
		return;
	}
	*mark = (struct mark){.ref = message.ref, .done = done, .arg = arg};
	STAILQ_INSERT_TAIL(&marks->waiting, mark, entry);
	link_to_agent(marks->link, &message);
}

void marks_on_message(struct marks *marks, const struct message *message)
{
	while (!STAILQ_EMPTY(&marks->waiting) && STAILQ_FIRST(&marks->waiting)->ref <= message->ref)
		call_first(marks, 0);
}
