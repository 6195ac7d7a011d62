/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/engine/vouched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "control/engine/registrations.h"
#include "control/engine/users.h"
#include "control/engine/vouched_private.h"

#define KNOW_AFTER_NS (3 * ENGINE_NS_PER_S)
#define KNOW_EACH     20000 /* records a tick whose places are noted */
#define AHEAD	      16    /* places noted while others' lines are under way */

/* ---- places that rest ------------------------------------------------------------------------ */

static struct leaving **leaving_of(struct vouched *v, uint64_t id)
{
	return &v->leaving[id * UINT64_C(0x9e3779b97f4a7c15) >> 52 & (LEAVING_CHAINS - 1)];
}

static void rest(struct vouched *v, uint64_t id, uint64_t mark, bool vouched)
{
	struct leaving *leaving = calloc(1, sizeof(*leaving)), **chain = leaving_of(v, id);

	places_add(&v->places, mark, id); /* where it was not known yet */
	if (!leaving)
		return; /* the place is lost to all until the next start */
	*leaving = (struct leaving){*chain, id, mark, vouched};
	*chain = leaving;
}

void vouched_rest(struct vouched *v, uint64_t id, uint64_t mark)
{
	rest(v, id, mark, true);
}

bool vouched_has_place(struct vouched *v, const struct message_address *place)
{
	vouched_know_places(v, UINT32_MAX);
	return places_find(&v->places, places_mark(&v->places, place->bytes, place->port)) != 0;
}

void vouched_rest_place(struct vouched *v, const struct message_address *place, uint64_t id)
{
	if (v && place->family && !vouched_place_is_scoped(v->engine->config, place))
		rest(v, id, places_mark(&v->places, place->bytes, place->port), false);
}

bool vouched_on_free(struct vouched *v, uint64_t id)
{
	struct leaving **link = v ? leaving_of(v, id) : NULL, *leaving;
	bool vouched;

	while (link && *link && (*link)->id != id)
		link = &(*link)->next;
	if (!link || !*link)
		return false;
	leaving = *link;
	*link = leaving->next;
	vouched = leaving->vouched;
	places_del(&v->places, leaving->mark, id);
	free(leaving);
	return vouched;
}

/* ---- into the region, and out of it ---------------------------------------------------------- */

uint64_t vouched_mark(const struct vouched *v, const struct registry_connection *c)
{
	return places_mark(&v->places, c->address, c->port);
}

int vouched_end(struct vouched *v, const struct registry_connection *c)
{
	int err = registry_connection_del(v->engine->registry, c->id, c->generation);

	if (err)
		return err;
	vouched_rest(v, c->id, vouched_mark(v, c));
	v->cnt--;
	return 0;
}

static void keys_of(struct vouched *v, const struct vouch *item, struct registry_user_keys *keys)
{
	const struct fan_registry *root = registry_root(v->engine->registry);

	*keys = (struct registry_user_keys){.user_generation = item->generation,
					    .key_generation = (uint8_t)root->key_generation};
	fan_tag_key(keys->tag_key, fan_root_of(root, keys->key_generation)->tag_root,
		    item->generation, item->handle);
}

/* No room, but something rests that will make some. */
static int judge_room(const struct vouched *v, int err)
{
	struct registry_counts counts;

	if (err != -ENOSPC)
		return err;
	registry_counts(v->engine->registry, &counts);
	return counts.retired ? -EAGAIN : err;
}

static int add(struct vouched *v, const struct vouch *item)
{
	struct registry_connection c = {.id = item->id,
					.token_expiry_s = item->row,
					.since_s = item->since_s,
					.user_generation = item->generation,
					.nexthop = item->hop,
					.port = item->address.port,
					.family = item->address.family};
	struct registry_user_keys keys;
	int err;

	err = places_add(&v->places, item->mark, item->id);
	if (err == -EEXIST) {
		struct registry_connection holder;
		uint64_t id = places_find(&v->places, item->mark);

		return registry_connection(v->engine->registry, id, &holder) &&
				       holder.state == FAN_CONNECTION_ENDING
			       ? -EAGAIN
			       : -EADDRINUSE;
	}
	if (err)
		return err;
	memcpy(c.handle, item->handle, FAN_HANDLE_LEN);
	memcpy(c.address, item->address.bytes, sizeof(c.address));
	keys_of(v, item, &keys);
	err = registry_connection_vouch(v->engine->registry, &c, &keys, NULL, 0, &c);
	if (err)
		places_del(&v->places, item->mark, item->id);
	else
		v->cnt++;
	return judge_room(v, err);
}

static bool is_as(const struct registry_connection *c, const struct vouch *item)
{
	return c->state == FAN_CONNECTION_ACTIVE && vouched_row(c) == item->row &&
	       c->user_generation == item->generation && c->port == item->address.port &&
	       memcmp(c->address, item->address.bytes, sizeof(c->address)) == 0;
}

int vouched_apply(struct vouched *v, struct vouch *item)
{
	struct registry_connection c;

	if (users_generation(v->engine->users, item->handle) != item->generation)
		return 0; /* revoked meanwhile, and its row is gone */
	if (!registry_connection(v->engine->registry, item->id, &c))
		return add(v, item);
	if (c.state == FAN_CONNECTION_ENDING)
		return -EAGAIN;
	if (!c.vouched || memcmp(c.handle, item->handle, FAN_HANDLE_LEN) != 0)
		return -EEXIST;
	if (is_as(&c, item))
		return 0;
	vouched_end(v, &c);
	return -EAGAIN;
}

/* ---- start and time -------------------------------------------------------------------------- */

static void know(struct vouched *v, const struct registry_connection *c, uint64_t mark)
{
	if (c->state == FAN_CONNECTION_ENDING)
		vouched_rest(v, c->id, mark);
	else if (places_add(&v->places, mark, c->id))
		fan_log(FAN_LOG_ERROR, "vouched",
			"connection %016" PRIx64 " has an address and port that another one has",
			c->id);
}

void vouched_know_places(struct vouched *v, uint32_t records_max)
{
	struct registry_connection c[AHEAD];
	uint64_t marks[AHEAD];

	while (!v->places_whole && records_max) {
		unsigned cnt = 0;

		for (; cnt < AHEAD &&
		       registry_vouched_next(v->engine->registry, &v->places_cursor, &c[cnt]);
		     cnt++) {
			marks[cnt] = vouched_mark(v, &c[cnt]);
			places_prefetch(&v->places, marks[cnt]);
		}
		for (unsigned i = 0; i < cnt; i++)
			know(v, &c[i], marks[i]);
		v->places_whole = cnt < AHEAD;
		records_max -= cnt < records_max ? cnt : records_max;
	}
}

void vouched_tick(struct vouched *v, struct moment now)
{
	/* who serves again must not wait for the memory of it; who needs it first waits */
	if (now.mono_ns - v->engine->started.mono_ns >= KNOW_AFTER_NS)
		vouched_know_places(v, KNOW_EACH);
	if (v->working && v->work.left)
		vouched_work(v, now);
}

/* Places of registrations that the last run ended, while the dataplane has not let go of them. */
static void rest_of_last_run(struct vouched *v)
{
	struct registry_connection c;
	struct message_address place;
	uint32_t cursor = 0;

	while (registry_socket_next(v->engine->registry, &cursor, &c)) {
		if (c.state != FAN_CONNECTION_ENDING)
			continue;
		place.family = c.family;
		place.port = c.port;
		memcpy(place.bytes, c.address, sizeof(place.bytes));
		vouched_rest_place(v, &place, c.id);
	}
}

int vouched_open(struct vouched **out, struct engine *engine, char why[1024])
{
	static const char label[] = "fanwire vouched ids";
	struct vouched *v = calloc(1, sizeof(*v));
	struct registry_counts counts;
	int err = -ENOMEM;

	if (!v)
		return err;
	v->engine = engine;
	v->queue_end = &v->queue;
	crypto_generichash(v->rows.id_key, sizeof(v->rows.id_key), (const uint8_t *)label,
			   sizeof(label) - 1, engine->keys.master, sizeof(engine->keys.master));
	registry_counts(engine->registry, &counts);
	v->cnt = counts.connections_active + counts.connections_pending -
		 registrations_count(engine->registrations);
	engine->vouched = v;
	/* what is leaving has its place too; so has what a lowered limit still holds */
	if (places_init(&v->places, registry_root(engine->registry)->connection_cnt) == 0 &&
	    rows_prepare(&v->rows, engine->store)) {
		rest_of_last_run(v);
		err = vouched_load_open(v, why);
	} else
		snprintf(why, 1024,
			 "the table vouched of the database cannot be used: put back a "
			 "copy of the database");
	if (err) {
		engine->vouched = NULL;
		vouched_close(v);
		return err;
	}
	*out = v;
	return 0;
}

void vouched_close(struct vouched *v)
{
	if (!v)
		return;
	vouched_work_close(v);
	vouched_load_close(v);
	for (unsigned i = 0; i < LEAVING_CHAINS; i++)
		for (struct leaving *leaving = v->leaving[i], *next; leaving; leaving = next) {
			next = leaving->next;
			free(leaving);
		}
	places_fini(&v->places);
	free(v);
}
