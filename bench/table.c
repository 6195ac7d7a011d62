/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fanwire-bench-table: lookups in a table and changes of it, Fanwire's own or another's.
 *
 * Keys are made outside the timed part, into memory that stays in cache, as a packet that was just
 * read does; which ones is drawn at random, so each lookup finds another bucket and another entry.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <x86intrin.h>

#include "bench/step.h"
#include "bench/table_kinds.h"

#define KEYS	   8192 /* looked up or changed in one timed part */
#define ROUNDS_MAX 64
#define CYCLES_FOR 50 /* ms, to learn how fast the time stamp counter is */

enum what { LOOKUPS, CHANGES };
static const char *const whats[] = {"lookups", "changes"};

struct bench {
	const struct table_kind *kind;
	void *table;
	struct table_options options;
	enum what what;
	uint64_t random, next_idx;
	double hz;
	struct table_key *keys;
	uint64_t *hashes;
	struct table_change *live, *arriving, *leaving; /* live: options.entries of them */
};

struct table_key table_key_at(uint64_t idx)
{
	uint64_t state = idx * UINT64_C(0x632be59bd9b4e019) + 7, words[2];
	struct table_key key = {.channel = 0};

	words[0] = table_random(&state);
	words[1] = table_random(&state);
	memcpy(key.handle, words, sizeof(key.handle));
	return key;
}

static uint64_t cycles_now(void)
{
	unsigned cpu;

	_mm_lfence();
	return __rdtscp(&cpu);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cycles_a_second(void)
{
	uint64_t start = cycles_now();
	double since = now_s();

	while (now_s() - since < CYCLES_FOR / 1e3)
		;
	return (double)(cycles_now() - start) / (now_s() - since);
}

/* ---- lookups ---- */

static void keys_draw(struct bench *b, bool there)
{
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t draw = table_random(&b->random) >> 32;

		b->keys[i] = table_key_at((there ? 0 : TABLE_ABSENT) +
					  (draw * b->options.entries >> 32));
		if (b->options.hashed)
			b->hashes[i] = b->kind->hash(b->table, &b->keys[i]);
	}
}

/* Keys that are all there, or none of them. */
static int kind_run(struct bench *b, bool there, unsigned ms, json_t *run, char *why,
		    size_t why_size)
{
	uint64_t cycles = 0, cnt = 0, found = 0, start;

	for (double end = now_s() + ms / 1e3; now_s() < end; cnt += KEYS) {
		keys_draw(b, there);
		start = cycles_now();
		found += b->kind->look_up(b->table, b->keys, b->options.hashed ? b->hashes : NULL,
					  KEYS);
		cycles += cycles_now() - start;
	}
	if (found != (there ? cnt : 0)) {
		snprintf(why, why_size, "%s: %llu of %llu keys were found, %s should have been",
			 b->kind->name, (unsigned long long)found, (unsigned long long)cnt,
			 there ? "all" : "none");
		return -EPROTO;
	}
	json_object_set_new(run, there ? "hits_per_s" : "misses_per_s",
			    json_real((double)cnt * b->hz / (double)cycles));
	json_object_set_new(run, there ? "cycles_per_hit" : "cycles_per_miss",
			    json_real((double)cycles / (double)cnt));
	return 0;
}

static int lookups_run(struct bench *b, unsigned ms, json_t *run, char *why, size_t why_size)
{
	int err = kind_run(b, true, (ms + 1) / 2, run, why, why_size);

	return err ? err : kind_run(b, false, (ms + 1) / 2, run, why, why_size);
}

/* ---- changes ---- */

struct change_times {
	uint64_t add, replace, remove;
};

static void arrivals_make(struct bench *b)
{
	for (unsigned i = 0; i < KEYS; i++) {
		uint64_t idx = b->next_idx++;

		b->arriving[i] = (struct table_change){.key = table_key_at(idx), .id = idx + 1};
	}
}

/* KEYS entries out of those that live, at random; they change places with the last. */
static void leavers_draw(struct bench *b, uint32_t cnt)
{
	for (uint32_t i = 0; i < KEYS; i++) {
		uint32_t at = (uint32_t)((table_random(&b->random) >> 32) * (cnt - i) >> 32);

		b->leaving[i] = b->live[at];
		b->live[at] = b->live[cnt - 1 - i];
	}
}

/* There are `entries` before and after; in between KEYS more. */
static int round_run(struct bench *b, struct change_times *times)
{
	uint32_t cnt = b->options.entries;
	uint64_t start;
	int err;

	arrivals_make(b);
	start = cycles_now();
	err = b->kind->add(b->table, b->arriving, KEYS);
	times->add += cycles_now() - start;
	memcpy(b->live + cnt, b->arriving, KEYS * sizeof(*b->live));
	cnt += KEYS;

	leavers_draw(b, cnt);
	arrivals_make(b);
	start = cycles_now();
	err = err ? err : b->kind->replace(b->table, b->leaving, b->arriving, KEYS);
	times->replace += cycles_now() - start;
	memcpy(b->live + cnt - KEYS, b->arriving, KEYS * sizeof(*b->live));

	leavers_draw(b, cnt);
	start = cycles_now();
	err = err ? err : b->kind->remove(b->table, b->leaving, KEYS);
	times->remove += cycles_now() - start;
	return err;
}

static int changes_run(struct bench *b, unsigned ms, json_t *run, char *why, size_t why_size)
{
	struct change_times times = {0};
	double cnt = 0;
	int err = 0;

	for (double end = now_s() + ms / 1e3; !err && now_s() < end; cnt += KEYS)
		err = round_run(b, &times);
	if (err) {
		snprintf(why, why_size, "%s refused a change: %s", b->kind->name, strerror(-err));
		return err;
	}
	json_object_set_new(run, "adds_per_s", json_real(cnt * b->hz / (double)times.add));
	json_object_set_new(run, "removes_per_s", json_real(cnt * b->hz / (double)times.remove));
	json_object_set_new(run, "replaces_per_s", json_real(cnt * b->hz / (double)times.replace));
	return 0;
}

static int run(void *context, unsigned ms, json_t *figures, char *why, size_t why_size)
{
	struct bench *b = context;

	return b->what == CHANGES ? changes_run(b, ms, figures, why, why_size)
				  : lookups_run(b, ms, figures, why, why_size);
}

/* ---- setting up ---- */

static int fill(struct bench *b)
{
	int err = 0;

	for (uint32_t i = 0; i < b->options.entries && !err; i += KEYS) {
		uint32_t cnt = b->options.entries - i < KEYS ? b->options.entries - i : KEYS;

		arrivals_make(b);
		b->next_idx = i + cnt;
		err = b->kind->add(b->table, b->arriving, cnt);
		memcpy(b->live + i, b->arriving, cnt * sizeof(*b->live));
	}
	return err;
}

static bool memory_get(struct bench *b)
{
	b->keys = calloc(KEYS, sizeof(*b->keys));
	b->hashes = calloc(KEYS, sizeof(*b->hashes));
	b->arriving = calloc(KEYS, sizeof(*b->arriving));
	b->leaving = calloc(KEYS, sizeof(*b->leaving));
	b->live = calloc((size_t)b->options.entries + KEYS, sizeof(*b->live));
	return b->keys && b->hashes && b->arriving && b->leaving && b->live;
}

static int serve(struct bench *b)
{
	json_t *versions = json_object(), *settings;
	char why[768] = "no memory";
	int status;

	b->table = memory_get(b) ? b->kind->open(&b->options, why, sizeof(why)) : NULL;
	if (!b->table)
		return step_fail("%s", why);
	if (fill(b) != 0)
		return step_fail("%s does not take %u entries, made for %u", b->kind->name,
				 b->options.entries, b->options.capacity);
	b->kind->versions(versions);
	settings = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:f}", "with", b->kind->name, "what",
			     whats[b->what], "entries", (json_int_t)b->options.entries, "capacity",
			     (json_int_t)b->options.capacity, "burst", (json_int_t)b->options.burst,
			     "hashed_beforehand", b->options.hashed, "bytes_beyond_key",
			     b->kind->bytes_beyond_key(b->table));
	status = step_serve(settings, versions, run, b);
	b->kind->close(b->table);
	return status;
}

static const char help[] =
	"usage: fanwire-bench-table [OPTION]...\n"
	"Lookups in a table, or changes of it; driven line by line, see docs/benchmarks.md.\n"
	"  --with KIND     fanwire, rte_hash or lfht (fanwire)\n"
	"  --what WHAT     lookups or changes (lookups)\n"
	"  --entries N     in the table (1000000)\n"
	"  --capacity N    that it is made for (as many as entries; for changes some more)\n"
	"  --burst N       keys looked up at once, 1..256 (256; rte_hash takes 64 at most)\n"
	"  --hashed        keys are hashed outside the timed part\n";

static const struct table_kind *kind_of(const char *name)
{
	static const struct table_kind *const kinds[] = {
		&table_fanwire,
		&table_rte_hash,
#ifdef TABLE_LFHT
		&table_lfht,
#endif
	};

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(name, kinds[i]->name) == 0)
			return kinds[i];
	return NULL;
}

static bool number(const char *text, uint32_t least, uint32_t most, uint32_t *value)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	*value = (uint32_t)n;
	return *text && !*end && n >= least && n <= most;
}

static bool what_parse(const char *text, enum what *what)
{
	for (*what = LOOKUPS; *what <= CHANGES; (*what)++)
		if (strcmp(text, whats[*what]) == 0)
			return true;
	return false;
}

static bool option_take(struct bench *b, int option)
{
	uint32_t burst;

	switch (option) {
	case 'w':
		b->kind = kind_of(optarg);
		return b->kind != NULL;
	case 'x':
		return what_parse(optarg, &b->what);
	case 'e':
		return number(optarg, KEYS, 64000000, &b->options.entries);
	case 'c':
		return number(optarg, KEYS, 80000000, &b->options.capacity);
	case 'b':
		if (!number(optarg, 1, 256, &burst))
			return false;
		b->options.burst = burst;
		return true;
	case 'h':
		b->options.hashed = true;
		return true;
	default:
		return false;
	}
}

static bool options_parse(struct bench *b, int argc, char **argv)
{
	static const struct option table[] = {
		{"with", required_argument, NULL, 'w'},
		{"what", required_argument, NULL, 'x'},
		{"entries", required_argument, NULL, 'e'},
		{"capacity", required_argument, NULL, 'c'},
		{"burst", required_argument, NULL, 'b'},
		{"hashed", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1)
		if (!option_take(b, option))
			return false;
	if (!b->options.capacity)
		b->options.capacity = b->options.entries + (b->what == CHANGES ? 4 * KEYS : 0);
	return optind == argc && b->options.capacity >= b->options.entries;
}

int main(int argc, char **argv)
{
	struct bench b = {
		.kind = &table_fanwire,
		.options = {.entries = 1000000, .burst = 256},
		.random = UINT64_C(0x9d5c0f3ab1e64c27),
	};

	if (!options_parse(&b, argc, argv)) {
		fputs(help, stderr);
		return step_fail("an option is wrong; the help stands on standard error");
	}
	b.hz = cycles_a_second();
	return serve(&b);
}
