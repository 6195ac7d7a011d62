/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions about vouched connections. */
#include <stdlib.h>
#include <string.h>

#include "control/engine/vouched_private.h"

/* ---- questions ------------------------------------------------------------------------------- */

static json_t *json_row(const struct vouch *item)
{
	char id[17], address[46];
	json_t *user = json_stringn(item->user, item->user_len);

	fan_id_format(id, item->id);
	fan_address_format(address, item->address.bytes, item->address.family);
	return json_pack("{s:I, s:s, s:o, s:s, s:i, s:I}", "row", (json_int_t)item->row, "id", id,
			 "user", user ? user : json_null(), "address", address, "port",
			 (int)item->address.port, "since", (json_int_t)item->since_s);
}

static void list_user(struct vouched *v, const char *user, uint64_t after, unsigned limit,
		      json_t *list, uint64_t *next)
{
	unsigned cnt, max = v->engine->config->max_connections_per_user;
	uint64_t *ids = calloc(max + 1, sizeof(*ids));
	char name[FAN_NAME_MAX + 1];
	uint8_t handle[FAN_HANDLE_LEN];
	struct registry_connection c;
	struct vouch item;

	fan_handle(handle, user, strlen(user));
	cnt = ids ? registry_user_connections(v->engine->registry, handle, ids, max) : 0;
	for (unsigned i = (unsigned)after; i < cnt && i < max; i++) {
		if (json_array_size(list) == limit) {
			*next = i;
			break;
		}
		if (registry_connection(v->engine->registry, ids[i], &c) && c.vouched &&
		    rows_read(&v->rows, vouched_row(&c), &item, name) > 0)
			json_array_append_new(list, json_row(&item));
	}
	free(ids);
}

json_t *vouched_list(struct vouched *v, const char *user, uint64_t after, unsigned limit,
		     uint64_t *next)
{
	struct vouch *items = calloc(limit + 1, sizeof(*items));
	char(*names)[FAN_NAME_MAX + 1] = calloc(limit + 1, sizeof(*names));
	json_t *list = json_array();
	int cnt = 0;

	*next = 0;
	if (items && names && user)
		list_user(v, user, after, limit, list, next);
	else if (items && names)
		cnt = rows_run(&v->rows, after, ROW_MAX, items, names, limit + 1);
	for (int i = 0; i < cnt && i < (int)limit; i++)
		if (items[i].user)
			json_array_append_new(list, json_row(&items[i]));
	if (cnt > (int)limit)
		*next = items[limit - 1].row;
	free(items);
	free(names);
	return list;
}

json_t *vouched_user(struct vouched *v, const struct registry_connection *c)
{
	char name[FAN_NAME_MAX + 1];
	struct vouch item;
	json_t *text = NULL;

	if (rows_read(&v->rows, vouched_row(c), &item, name) > 0)
		text = json_stringn(item.user, item.user_len);
	return text ? text : json_null();
}

void vouched_status(const struct vouched *v, struct vouched_status *status)
{
	*status = (struct vouched_status){.total = v->cnt,
					  .waiting = v->working ? v->work.left : 0,
					  .loading = v->loading,
					  .loaded = v->loaded,
					  .to_load = v->to_load,
					  .failed = v->load_failed};
}

bool vouched_is_loading(const struct vouched *v)
{
	return v && v->loading;
}

uint32_t vouched_count(const struct vouched *v)
{
	if (!v)
		return 0;
	return v->loading && v->to_load > v->cnt ? (uint32_t)v->to_load : v->cnt;
}
