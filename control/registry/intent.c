/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The change in progress. Each store of a change is one word, and whatever subset of them was made
 * is a table that readers and the sweep understand; the intent says which way to leave it. Deletion
 * and revocation go forward. An activation that did not reach the connection's state goes back:
 * nobody was told of it, and going back needs no memory, while right after a restart none is free.
 */
#include <errno.h>
#include <string.h>

#include "common/plant.h"
#include "control/registry/internal.h"

void intent_begin(struct registry *r, enum intent_op op, const struct intent_args *args)
{
	struct fan_intent *intent = &r->root->intent;

	if (fan_planted(PLANT_INTENT_NOT_WRITTEN))
		return;
	step(r, "intent args");
	memcpy(intent->args, args,
	       offsetof(struct intent_args, channels) + args->channel_cnt * sizeof(uint64_t));
	step(r, "intent begin");
	/* Release: the arguments are written. Pairs with the acquire in intent_redo(). */
	__atomic_store_n(&intent->op, op, __ATOMIC_RELEASE);
}

void intent_end(struct registry *r)
{
	step(r, "intent end");
	/* Release: every store of the change is made. Pairs with the acquire in intent_redo(). */
	__atomic_store_n(&r->root->intent.op, INTENT_NONE, __ATOMIC_RELEASE);
	/* The next change's arguments must not be written before this: a kill may fall between. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static int corrupt(struct registry *r, const char *what)
{
	return registry_fail(r, -EPROTO,
			     "%s is corrupt: the change in progress %s; stop fanwired and "
			     "fanwire-dataplane, delete the file and start again (registrations "
			     "end with it)",
			     r->path, what);
}

/* The record that an intent names, where it is still that connection. */
static uint32_t subject(const struct registry *r, const struct intent_args *args)
{
	uint32_t connection = connection_find(r, args->connection);

	if (connection == NONE || r->connections[connection].generation != args->generation)
		return NONE;
	if (r->connection_books[connection].link.user != NONE && /* else it is in no group now */
	    memcmp(connection_handle(r, connection), args->handle, 16) != 0)
		return NONE;
	return connection;
}

/* Groups that the activation made for itself go at once: nobody else knows them. */
static void drop_new_groups(struct registry *r, const struct intent_args *args)
{
	for (uint32_t i = 0; i < args->channel_cnt; i++) {
		uint64_t hash = fan_table_hash(r->table.seed, args->handle, args->channels[i]);
		uint32_t group = bucket_find(r, args->handle, args->channels[i], hash);
		uint32_t first;

		if (group != NONE && r->groups[group].incarnation >= args->incarnation &&
		    group_block(r, group, &first) == 0)
			group_unlink(r, group);
	}
}

static int undo_activate(struct registry *r, const struct intent_args *args)
{
	uint32_t connection = subject(r, args);
	int rc;

	if (connection == NONE || args->channel_cnt == 0 || args->channel_cnt > MEMBERSHIPS_MAX)
		return corrupt(r, "activates a connection that is not there");
	if (connection_state(&r->connections[connection]) != FAN_CONNECTION_PENDING)
		return 0; /* it was complete */
	rc = leave_plan(r, connection);
	if (rc < 0) /* it is the last of each block: leaving takes no memory */
		return corrupt(r, "stands in the middle of a group");
	leave_run(r, connection);
	drop_new_groups(r, args);
	return 0;
}

/*
 * Forward: ENDING first, after which the connection leaves its groups like any that has to wait for
 * memory. One that is ENDING already was found by the sweep, whether it still is in groups or not.
 */
static int redo_del(struct registry *r, const struct intent_args *args)
{
	uint32_t connection = subject(r, args);

	if (connection == NONE)
		return corrupt(r, "deletes a connection that is not there");
	if (connection_state(&r->connections[connection]) == FAN_CONNECTION_ENDING)
		return 0;
	connection_end(r, connection);
	connection_leave_later(r, connection);
	return 0;
}

int intent_redo(struct registry *r)
{
	struct intent_args args;
	int rc = 0;
	/* Pairs with the releases in intent_begin() and intent_end() of the fanwired before. */
	uint32_t op = __atomic_load_n(&r->root->intent.op, __ATOMIC_ACQUIRE);

	if (op == INTENT_NONE)
		return 0;
	memcpy(&args, r->root->intent.args, sizeof(args));
	if (op == INTENT_ACTIVATE)
		rc = undo_activate(r, &args);
	else if (op == INTENT_DEL)
		rc = redo_del(r, &args);
	else if (op == INTENT_REVOKE)
		revoke_run(r, args.handle);
	else
		rc = corrupt(r, "is of no known kind");
	if (rc == 0)
		intent_end(r);
	return rc;
}
