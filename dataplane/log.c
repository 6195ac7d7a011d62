/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Order of the stores of one record, so that the process may die between any two of them
 * (docs/shared-memory.md argues each): position = 0; head and image; position; the worker's head;
 * the group's tail; the publish's result as logged. The stores of an image go around the caches:
 * nobody reads it but a replay.
 */
#include "dataplane/log.h"

#include <errno.h>
#include <immintrin.h>
#include <inttypes.h>

#include "common/log.h"
#include "common/plant.h"
#include "dataplane/fanout.h"
#include "dataplane/session.h"
#include "dataplane/status.h"

#define SUBJECT	   "log"
#define POSITION   (~FAN_LOG_RING_BIT) /* without its ring */
#define CHECK_FROM offsetof(struct fan_log_record, image_len)
#define LINE	   64u

#define LOG_HEAD_MOST (UINT64_C(1) << 60)

_Static_assert(LINE == FAN_LOG_ALIGN && sizeof(struct fan_log_record) == LINE,
	       "an image begins on a line");

/* ---- geometry ---- */

static uint64_t part_of(const struct plane *plane)
{
	return plane->state->log_bytes / plane->tx_queue_cnt / LINE * LINE;
}

static uint64_t ring_size(uint64_t part, unsigned ring)
{
	uint64_t first = part / 4 * 3 / LINE * LINE;

	return ring == 0 ? first : part - first;
}

/* Heads are whole lines, and no log writes 2^60 bytes. */
static bool head_is_damaged(uint64_t head)
{
	return head % LINE || head >= LOG_HEAD_MOST;
}

static bool heads_are_damaged(const struct plane *plane)
{
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++)
			if (head_is_damaged(plane->worker_states[i].log_head[ring]))
				return true;
	return false;
}

/* Behind everything that was ever logged: no position is used twice, and no old one is found. */
static void heads_void(struct plane *plane, uint64_t part)
{
	uint64_t behind = 0;

	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++) {
			uint64_t head = plane->worker_states[i].log_head[ring];

			behind = head_is_damaged(head) ? behind : RTE_MAX(behind, head);
		}
	behind = RTE_ALIGN_CEIL(behind + part + 2 * LOG_RECORD_MAX, LINE);
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++)
			__atomic_store_n(&plane->worker_states[i].log_head[ring], behind,
					 __ATOMIC_RELEASE);
}

/*
 * What a predecessor was writing when it died lies behind its head, over the oldest records: these
 * are given up, by as much as it could have begun.
 */
static void heads_settle(struct plane *plane)
{
	for (unsigned i = 0; i < FAN_WORKERS_MAX; i++)
		for (unsigned ring = 0; ring < FAN_LOG_RINGS; ring++) {
			uint64_t *head = &plane->worker_states[i].log_head[ring];

			__atomic_store_n(head, *head + 2 * LOG_RECORD_MAX, __ATOMIC_RELEASE);
		}
}

void log_init(struct plane *plane)
{
	struct fan_state *state = plane->state;
	uint64_t part = part_of(plane);

	if (heads_are_damaged(plane)) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"the event log's heads are damaged: what it held cannot be had again");
	} else if (state->log_workers == plane->tx_queue_cnt) {
		heads_settle(plane);
		return;
	} else if (state->log_workers) {
		fan_log(FAN_LOG_WARNING, SUBJECT,
			"the event log is divided anew among %u workers: what it held cannot be "
			"had again",
			plane->tx_queue_cnt);
	}
	state->log_workers = 0; /* until then it is nobody's: see heads_void() */
	heads_void(plane, part);
	__atomic_store_n(&state->log_workers, plane->tx_queue_cnt, __ATOMIC_RELEASE);
}

static void count_shares(struct worker *w)
{
	uint64_t began_tsc = rte_rdtsc();
	unsigned cnt = log_shares_count(w);

	if (cnt)
		fan_log(FAN_LOG_INFO, SUBJECT,
			"worker %u takes over %u records of the event log: counted in %" PRIu64
			" ms",
			w->idx, cnt, (rte_rdtsc() - began_tsc) * 1000 / rte_get_tsc_hz());
}

int log_open(struct worker *w)
{
	const struct plane *plane = w->plane;
	uint64_t part = part_of(plane), share = (uint64_t)plane->config.log_user_kb << 10;
	uint8_t *bytes = plane->logs + w->idx * part;
	struct log *log = calloc(1, sizeof(*log));

	if (!log)
		return -ENOMEM;
	w->log = log;
	if (w->idx >= plane->tx_queue_cnt) /* owns no groups */
		return 0;
	for (unsigned i = 0; i < FAN_LOG_RINGS; i++) {
		struct log_ring *ring = &log->rings[i];

		ring->bytes = bytes;
		ring->size = ring_size(part, i);
		ring->head = w->shared->log_head[i];
		ring->at = ring->head % ring->size;
		bytes += ring->size;
	}
	share = share ? share : log->rings[0].size / LOG_SHARE_OF;
	log->share_max = (uint32_t)(RTE_MIN(share, log->rings[0].size) / LINE);
	count_shares(w);
	return 0;
}

void log_close(struct worker *w)
{
	free(w->log);
	w->log = NULL;
}

/* ---- reading ---- */

/* Where a position of the ring lies. */
static uint8_t *place_of(const struct log_ring *ring, uint64_t position)
{
	uint64_t back = ring->head - position;

	return ring->bytes + (back <= ring->at ? ring->at - back : ring->at + ring->size - back);
}

/* NULL: outside of what the ring holds. */
static const struct fan_log_record *record_of(const struct worker *w, uint64_t position)
{
	const struct log_ring *ring = &w->log->rings[position >> 63];
	uint64_t at = position & POSITION;

	if (at == 0 || at % LINE || at >= ring->head || ring->head - at > ring->size)
		return NULL;
	return (const void *)place_of(ring, at);
}

uint64_t log_tail(const struct worker *w, const struct fan_group_state *state)
{
	return fan_log_position(__atomic_load_n(&state->log_tail, __ATOMIC_RELAXED),
				w->shared->log_head);
}

void log_prefetch(const struct worker *w, const struct fan_group_state *state)
{
	const struct fan_log_record *record = record_of(w, log_tail(w, state));

	if (record)
		__builtin_prefetch(record);
}

enum log_get log_get(const struct worker *w, uint64_t position, uint64_t incarnation,
		     uint64_t before, const struct fan_log_record **record)
{
	*record = record_of(w, position);
	if (!*record)
		return LOG_GONE;
	if (__atomic_load_n(&(*record)->position, __ATOMIC_ACQUIRE) == position &&
	    ((*record)->incarnation == incarnation || fan_planted(PLANT_RECORD_NOT_COMPARED)) &&
	    (*record)->sequence < before)
		return LOG_FOUND;
	*record = NULL;
	return LOG_TORN;
}

/*
 * CRC-32C (Castagnoli's polynomial, RFC 3720 B.4, not inverted) by the processor's instruction,
 * which answers after three cycles, but takes one a cycle: so an image's words go round four lanes.
 * The check of a record is that of its head, then of the lanes' four.
 */
#define LANES 4

static inline void line_check(uint64_t lanes[LANES], const uint8_t line[LINE])
{
	uint64_t words[LINE / sizeof(uint64_t)];

	memcpy(words, line, LINE);
	for (unsigned i = 0; i < RTE_DIM(words); i++)
		lanes[i % LANES] = _mm_crc32_u64(lanes[i % LANES], words[i]);
}

static uint32_t record_check(const struct fan_log_record *head, const uint64_t lanes[LANES])
{
	const uint8_t *bytes = (const uint8_t *)head + CHECK_FROM;
	uint64_t sum = 0, word;
	uint32_t first;

	memcpy(&first, bytes, sizeof(first));
	sum = _mm_crc32_u32(0, first);
	for (size_t at = sizeof(first); at < sizeof(*head) - CHECK_FROM; at += sizeof(word)) {
		memcpy(&word, bytes + at, sizeof(word));
		sum = _mm_crc32_u64(sum, word);
	}
	for (unsigned i = 0; i < LANES; i++)
		sum = _mm_crc32_u64(sum, lanes[i]);
	return (uint32_t)sum;
}

/* As it stands: its last line is zero behind the image. */
static uint32_t check_of(const struct fan_log_record *record)
{
	uint64_t lanes[LANES] = {0};

	for (size_t at = 0; at < record->image_len; at += LINE)
		line_check(lanes, log_image(record) + at);
	return record_check(record, lanes);
}

bool log_is_whole(const struct fan_log_record *record)
{
	return check_of(record) == record->check;
}

bool log_check(const struct worker *w, const struct fan_log_record *record,
	       const struct fan_group *group, uint64_t epoch)
{
	const struct log_ring *ring = &w->log->rings[record->position >> 63];
	size_t room = (size_t)(ring->bytes + ring->size - log_image(record));
	struct fan_delivery delivery;

	if (record->image_len > room || record->image_len < FAN_DELIVERY_LEN ||
	    !log_is_whole(record))
		return false;
	return fan_delivery_decode(log_image(record), record->image_len, &delivery) ==
		       FAN_WIRE_OK &&
	       delivery.type == FAN_TYPE_DELIVERY && delivery.sequence == record->sequence &&
	       (fan_planted(PLANT_RECORD_NOT_COMPARED) ||
		(delivery.epoch == epoch && delivery.channel == group->channel &&
		 delivery.user_generation == group->user_generation &&
		 memcmp(delivery.handle, group->handle, FAN_HANDLE_LEN) == 0));
}

/* ---- writing ---- */

/* Ring 0, until the user has used up his share of it. */
static unsigned ring_choose(struct worker *w, const struct fan_group *group, uint64_t len)
{
	struct log *log = w->log;
	struct log_share *share = log_share_of(w, group->handle);
	uint32_t window = (uint32_t)(log->rings[0].head / log->rings[0].size);
	uint32_t units = (uint32_t)(len / LINE);

	if (share->window != window) {
		share->last = share->window + 1 == window ? share->cnt : 0;
		share->cnt = 0;
		share->window = window;
	}
	if (share->cnt + share->last + units <= log->share_max ||
	    fan_planted(PLANT_LOG_SHARE_IGNORED)) {
		share->cnt += units;
		return 0;
	}
	COUNT(w, log_heavy);
	return 1;
}

/* Position of the next record. What is left before the ring's end is skipped. */
static uint64_t ring_begin(struct log_ring *ring, uint64_t len)
{
	/* Its place must not be 0, which is "none". */
	while (unlikely(ring->size - ring->at < len || fan_log_place(ring->head) == 0)) {
		uint64_t left = ring->size - ring->at, skip = left < len ? left : LINE;

		ring->head += skip;
		ring->at = skip == left ? 0 : ring->at + skip;
	}
	return ring->head;
}

static void ring_end(struct worker *w, unsigned idx, uint64_t len)
{
	struct log_ring *ring = &w->log->rings[idx];

	ring->head += len;
	ring->at += len;
	if (ring->at == ring->size)
		ring->at = 0;
	/* pairs with fanwired's acquire; before the tail that is whole beside it only */
	__atomic_store_n(&w->shared->log_head[idx], ring->head, __ATOMIC_RELEASE);
}

/* What leads from the record to those before it. */
static void links(const struct worker *w, const struct fan_group_state *state,
		  struct fan_log_record *head)
{
	const struct fan_log_record *before;
	uint64_t tail = log_tail(w, state);

	if (log_get(w, tail, head->incarnation, head->sequence, &before) != LOG_FOUND)
		return;
	head->previous = tail;
	for (unsigned i = 0; i < FAN_LOG_SKIPS; i++) {
		uint64_t step = UINT64_C(1) << (FAN_LOG_SKIP_BITS * (i + 1));

		head->skip[i] = before->sequence % step ? before->skip[i] : tail;
	}
}

static inline void line_store(uint8_t *to, const uint8_t line[LINE])
{
	for (size_t at = 0; at < LINE; at += sizeof(__m128i))
		_mm_stream_si128((void *)(to + at), _mm_loadu_si128((const void *)(line + at)));
}

/* Whole lines, and nothing of what stands behind the image; goes into the lanes of its check. */
static void image_store(uint8_t *to, const uint8_t *image, size_t len, uint64_t lanes[LANES])
{
	uint8_t last[LINE] = {0};
	size_t whole = len / LINE * LINE;

	for (size_t at = 0; at < whole; at += LINE) {
		line_check(lanes, image + at);
		line_store(to + at, image + at);
	}
	if (whole == len)
		return;
	memcpy(last, image + whole, len - whole);
	line_check(lanes, last);
	line_store(to + whole, last);
}

static void log_one(struct worker *w, const struct fan_group *group, const struct packet *packet)
{
	struct fan_group_state *state =
		&w->plane->group_states[fan_group_idx(&w->plane->table, group)];
	size_t image_len = FAN_DELIVERY_LEN + packet->publish.payload_len;
	uint64_t len = RTE_ALIGN_CEIL(sizeof(struct fan_log_record) + image_len, LINE);
	unsigned idx = ring_choose(w, group, len);
	struct log_ring *ring = &w->log->rings[idx];
	uint64_t position = ring_begin(ring, len) | (uint64_t)idx << 63;
	struct fan_log_record *record = (void *)(ring->bytes + ring->at);
	struct fan_log_record head = {
		.image_len = (uint16_t)image_len,
		.incarnation = group->incarnation,
		.sequence = packet->result.sequence,
	};
	uint64_t lanes[LANES] = {0};

	links(w, state, &head);
	__atomic_store_n(&record->position, 0, __ATOMIC_RELEASE);
	image_store((uint8_t *)(record + 1), fanout_image(packet), image_len, lanes);
	head.check = record_check(&head, lanes);
	memcpy((uint8_t *)record + sizeof(head.position), (uint8_t *)&head + sizeof(head.position),
	       sizeof(head) - sizeof(head.position));
	/* pairs with log_get()'s acquire in the next run */
	__atomic_store_n(&record->position, position, __ATOMIC_RELEASE);
	ring_end(w, idx, len);
	__atomic_store_n(&state->log_tail, fan_log_place(position), __ATOMIC_RELEASE);
	status_event(w, fan_group_idx(&w->plane->table, group), state);
	COUNT(w, events_logged);
	COUNT_N(w, log_bytes, len);
}

void log_burst(struct worker *w)
{
	for (unsigned i = 0; i < w->event_cnt; i++)
		if (w->groups[i] && !fan_planted(PLANT_EVENT_NOT_LOGGED))
			log_one(w, w->groups[i], packet_of(w->events[i]));
	_mm_sfence(); /* the images are in memory before anybody is told that they are */
	for (unsigned i = 0; i < w->event_cnt; i++)
		if (w->groups[i])
			session_logged(w, packet_of(w->events[i]));
}
