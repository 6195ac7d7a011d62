/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The database's schema: made anew, upgraded from any older one, checked when it is opened. Inside
 * the store, whose thread calls.
 */
#pragma once

#include "control/engine/store.h"

struct sqlite3;

/*
 * Each table but the vouched connections'. 0, or -EPROTO with a sentence. row_mac() is registered.
 */
int schema_check_tables(struct sqlite3 *db, const char *path, char why[1024]);
/*
 * Makes or upgrades it where that is needed, in one transaction: 1 where something was written,
 * else 0. Refused: another's database, one that was lost, a later schema.
 */
int schema_take(struct sqlite3 *db, const struct store_owner *owner, const char *path,
		char why[1024]);

int schema_refuse_damaged(const char *path, const char *found, char why[1024]);
int schema_refuse_lost(const char *path, const char *found, char why[1024]);
