/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/row_mac.h"

#include <sodium.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 10
#define VALUE_MAX  256 /* bytes; of a longer one, which only damage makes, its hash */

_Static_assert(ROW_MAC_KEY_LEN == crypto_shorthash_KEYBYTES, "SipHash's key");

struct encoding {
	size_t len;
	uint8_t bytes[VALUES_MAX * (1 + 4 + VALUE_MAX)];
};

static void put(struct encoding *e, const void *bytes, size_t len)
{
	memcpy(e->bytes + e->len, bytes, len);
	e->len += len;
}

/* Type, length, bytes: no two rows have the same encoding. */
static void put_value(struct encoding *e, sqlite3_value *value)
{
	uint8_t type = (uint8_t)sqlite3_value_type(value), hash[32];
	const void *bytes;
	int64_t number;
	double real;
	uint32_t len;

	if (type == SQLITE_INTEGER) {
		number = sqlite3_value_int64(value);
		bytes = &number;
		len = sizeof(number);
	} else if (type == SQLITE_FLOAT) {
		real = sqlite3_value_double(value);
		bytes = &real;
		len = sizeof(real);
	} else { /* NULL has no bytes */
		bytes = sqlite3_value_blob(value);
		len = bytes ? (uint32_t)sqlite3_value_bytes(value) : 0;
	}
	put(e, &type, sizeof(type));
	put(e, &len, sizeof(len));
	if (len > VALUE_MAX) {
		crypto_generichash(hash, sizeof(hash), bytes, len, NULL, 0);
		bytes = hash;
		len = sizeof(hash);
	}
	if (len)
		put(e, bytes, len);
}

static void row_mac(sqlite3_context *context, int cnt, sqlite3_value **values)
{
	struct encoding e;
	int64_t mac;

	if (cnt > VALUES_MAX) {
		sqlite3_result_error(context, "row_mac: too many values", -1);
		return;
	}
	e.len = 0;
	for (int i = 0; i < cnt; i++)
		put_value(&e, values[i]);
	crypto_shorthash((uint8_t *)&mac, e.bytes, e.len, sqlite3_user_data(context));
	sqlite3_result_int64(context, mac);
}

static void key_free(void *key)
{
	sodium_memzero(key, ROW_MAC_KEY_LEN);
	free(key);
}

int row_mac_register(struct sqlite3 *db, const uint8_t key[ROW_MAC_KEY_LEN])
{
	uint8_t *copy = malloc(ROW_MAC_KEY_LEN);

	if (!copy)
		return SQLITE_NOMEM;
	memcpy(copy, key, ROW_MAC_KEY_LEN);
	return sqlite3_create_function_v2(db, "row_mac", -1,
					  SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY,
					  copy, row_mac, NULL, NULL, key_free);
}
