/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A keyed checksum in each row of the database whose change could give a wrong scope: a flipped bit
 * that SQLite still reads as a row must never be another user's address, generation or credential.
 *
 * The SQL function row_mac(TABLE, VALUE...) is SipHash-2-4 (Aumasson, Bernstein 2012) of the
 * table's name and of the values with their types and lengths. Its key derives from the master key:
 * what another instance wrote, or a hand, does not hold either. Whoever writes a row writes it
 * along; whoever reads one asks for ROW_HOLDS(...), which is 1 where it is as it was written.
 */
#pragma once

#include <stdint.h>

#define ROW_MAC_KEY_LEN 16

/* Of the columns of a row that is there. */
#define ROW_MAC_USERS	   "row_mac('users', handle, name, generation)"
#define ROW_MAC_VOUCHED	   "row_mac('vouched', row, id, user, generation, address, port, since)"
#define ROW_MAC_BATCH	   "row_mac('vouched_batch', batch, first, last)"
#define ROW_MAC_OPEN	   "row_mac('vouched_open', work, first, last, id)"
#define ROW_MAC_STATE	   "row_mac('vouched_state', region, rules)"
#define ROW_MAC_KEYS	   "row_mac('key_generation', generation, next, since)"
#define ROW_MAC_PUBLISHERS "row_mac('publishers', id, name, user, salt, secret_hash, created)"
#define ROW_HOLDS(mac)	   "mac IS " mac

struct sqlite3;

/* The connection knows the function from then on. 0, or SQLite's error. */
int row_mac_register(struct sqlite3 *db, const uint8_t key[ROW_MAC_KEY_LEN]);
