/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/seal.h"

#include <errno.h>
#include <rte_prefetch.h>
#include <sodium.h>
#include <sys/mman.h>

#include "dataplane/fanout.h"

#define SEAL_TAG_OFF	FAN_SEALED_HEADER_LEN /* of a delivery header */
#define SCHEDULES_AHEAD 4

/* ---- life ---- */

/* Pages as large as there are, mapped now, not while there is work; never in a dump. */
static void *memory_take(size_t len)
{
	void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, len, MADV_HUGEPAGE);
	madvise(memory, len, MADV_DONTDUMP);
	madvise(memory, len, MADV_POPULATE_WRITE);
	return memory;
}

static void memory_give(void *memory, size_t len)
{
	if (!memory)
		return;
	sodium_memzero(memory, len);
	munmap(memory, len);
}

static size_t keys_len(const struct plane *plane)
{
	return (size_t)plane->table.group_cnt * sizeof(struct seal_key);
}

static size_t schedules_len(const struct plane *plane)
{
	return (size_t)plane->config.seal_schedules * sizeof(struct seal_schedule);
}

int seal_init(struct plane *plane)
{
	plane->seal = plane->table.registry->seal;
	if (!plane->seal)
		return 0;
	plane->seal_keys = memory_take(keys_len(plane));
	return plane->seal_keys ? 0 : -ENOMEM;
}

void seal_fini(struct plane *plane)
{
	memory_give(plane->seal_keys, keys_len(plane));
	plane->seal_keys = NULL;
}

int seal_worker_init(struct worker *w)
{
	if (!w->plane->seal)
		return 0;
	w->schedules = memory_take(schedules_len(w->plane));
	return w->schedules ? 0 : -ENOMEM;
}

void seal_worker_fini(struct worker *w)
{
	memory_give(w->schedules, schedules_len(w->plane));
	w->schedules = NULL;
}

/* ---- keys ---- */

static bool stream_same(const struct seal_stream *a, const struct seal_stream *b)
{
	return a->incarnation == b->incarnation &&
	       (a->epoch == b->epoch || fan_planted(PLANT_SEAL_EPOCH_NOT_COMPARED)) &&
	       (a->generation == b->generation || fan_planted(PLANT_SEAL_GENERATION_NOT_COMPARED));
}

static void key_derive(const struct worker *w, struct seal_key *key, const struct fan_group *group,
		       const struct seal_stream *stream)
{
	uint8_t user_key[FAN_KEY_LEN];

	fan_user_key(user_key, w->roots.seal_root, group->user_generation, group->handle);
	fan_stream_key(key->bytes, user_key, group->channel, stream->epoch);
	sodium_memzero(user_key, sizeof(user_key));
	key->stream = *stream;
}

static struct seal_key *key_at(const struct worker *w, const struct fan_group *group)
{
	return &w->plane->seal_keys[fan_group_idx(&w->plane->table, group)];
}

/* The key of the event's stream, derived where it is not there. */
static const struct seal_key *key_of(struct worker *w, const struct fan_group *group,
				     const struct packet *packet)
{
	struct seal_key *key = key_at(w, group);
	const struct seal_stream stream = {
		.incarnation = group->incarnation,
		.epoch = packet->result.epoch,
		.generation = w->roots.generation,
	};

	if (unlikely(!stream_same(&key->stream, &stream))) {
		key_derive(w, key, group, &stream);
		COUNT(w, seal_keys_derived);
	}
	return key;
}

void seal_prefetch(const struct worker *w, const struct fan_group *group)
{
	if (w->plane->seal)
		rte_prefetch0(key_at(w, group));
}

/* ---- sealing ---- */

static struct seal_schedule *schedule_at(const struct worker *w, const struct fan_group *group)
{
	uint32_t idx = fan_group_idx(&w->plane->table, group);

	return &w->schedules[idx % w->plane->config.seal_schedules];
}

static const struct gcm_key_data *schedule_of(struct worker *w, const struct fan_group *group,
					      const struct seal_key *key)
{
	struct seal_schedule *schedule = schedule_at(w, group);

	if (!stream_same(&schedule->stream, &key->stream)) {
		IMB_AES256_GCM_PRE(w->crypto, key->bytes, &schedule->gcm);
		schedule->stream = key->stream;
		COUNT(w, seal_schedules_made);
	}
	return &schedule->gcm;
}

static void schedule_prefetch(const struct worker *w, unsigned idx)
{
	const char *schedule;

	if (idx >= w->event_cnt || !w->groups[idx])
		return;
	schedule = (const char *)schedule_at(w, w->groups[idx]);
	for (size_t off = 0; off < sizeof(struct seal_schedule); off += RTE_CACHE_LINE_SIZE)
		rte_prefetch0(schedule + off);
}

static void event_seal(struct worker *w, const struct fan_group *group, struct packet *packet)
{
	const struct seal_key *key = key_of(w, group, packet);
	uint8_t *image = fanout_image(packet), *payload = image + FAN_DELIVERY_LEN;
	uint8_t header[FAN_SEALED_HEADER_LEN], nonce[FAN_NONCE_LEN];
	struct gcm_context_data context;

	fan_sealed_header(header, image);
	if (fan_planted(PLANT_SEAL_WITHOUT_HANDLE))
		memset(header + FAN_DELIVERY_HANDLE_OFF, 0, FAN_HANDLE_LEN);
	fan_nonce(nonce, FAN_DIRECTION_DELIVER,
		  fan_planted(PLANT_SEAL_NONCE_CONSTANT) ? 1 : packet->result.sequence);
	IMB_AES256_GCM_ENC(w->crypto, schedule_of(w, group, key), &context, payload, payload,
			   packet->publish.payload_len, nonce, header, sizeof(header),
			   image + SEAL_TAG_OFF, FAN_TAG_LEN);
}

void seal_burst(struct worker *w)
{
	if (!w->plane->seal)
		return;
	for (unsigned i = 0; i < w->event_cnt; i++) {
		schedule_prefetch(w, i + SCHEDULES_AHEAD);
		if (w->groups[i])
			event_seal(w, w->groups[i], packet_of(w->events[i]));
	}
}
