/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Seeded random operations on the real registry, table and fan-out, beside the model; of one worker
 * and of two in turn. A sequence that fails is shrunk and printed, with the command that runs it
 * again.
 *
 * usage: model_test [--seed N] [--sequences N] [--ops N] [--minutes N] [--json]
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/model/model.h"

#define OPS_MAX 1000

static struct world world;
static struct model model;

/* splitmix64 (Steele, Lea & Flood, 2014) */
static uint64_t draw(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void ops_draw(uint64_t seed, struct op *ops, unsigned cnt)
{
	for (unsigned i = 0; i < cnt; i++) {
		uint64_t bits = draw(&seed);

		memcpy(&ops[i], &bits, sizeof(ops[i]));
	}
}

static void run(const struct op *ops, unsigned cnt)
{
	world_begin(&world);
	for (unsigned i = 0; i < cnt; i++)
		model_apply(&model, &ops[i]);
	model_drain(&model);
}

/* Whether both agree throughout. */
static bool agrees(const struct op *ops, unsigned cnt)
{
	memset(&model, 0, sizeof(model));
	model.w = &world;
	world.why[0] = 0;
	if (setjmp(world.failed) == 0)
		run(ops, cnt);
	world_end(&world);
	return !world.why[0];
}

/* Leaves out what the failure does not need: halves first, then less, until no single one can go.
 */
static unsigned shrink(struct op *ops, unsigned cnt)
{
	struct op less[OPS_MAX];

	for (unsigned size = cnt / 2; size; size /= 2) {
		for (unsigned at = 0; at + size <= cnt;) {
			memcpy(less, ops, at * sizeof(*ops));
			memcpy(less + at, ops + at + size, (cnt - at - size) * sizeof(*ops));
			if (agrees(less, cnt - size)) {
				at += size;
				continue;
			}
			cnt -= size;
			memcpy(ops, less, cnt * sizeof(*ops));
		}
	}
	return cnt;
}

static void tell(uint64_t seed, struct op *ops, unsigned cnt, const char *program)
{
	unsigned whole = cnt;

	printf("seed %lu: %s\n", seed, world.why);
	cnt = shrink(ops, cnt);
	agrees(ops, cnt);
	printf("shrunk to %u operations: %s\n", cnt, world.why);
	for (unsigned i = 0; i < cnt; i++)
		printf("  %-9s a %3u b %3u c %3u%s step %u\n", op_name(&ops[i]), ops[i].a, ops[i].b,
		       ops[i].c,
		       (ops[i].event & 3) == 1	  ? ", an event in the middle, at"
		       : (ops[i].event & 15) == 2 ? ", killed at"
						  : ", whole;",
		       ops[i].step % 24);
	printf("again: %s --seed %lu --sequences 1 --ops %u\n", program, seed, whole);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", 1, NULL, 's'}, {"sequences", 1, NULL, 'n'},
						{"ops", 1, NULL, 'o'},	{"minutes", 1, NULL, 'm'},
						{"json", 0, NULL, 'j'}, {0}};
	uint64_t seed = 1, cnt = 300, done = 0;
	unsigned ops_cnt = 100, failed = 0;
	double minutes = 0, began = seconds();
	static struct op ops[OPS_MAX];
	bool json = false;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
		if (o == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (o == 'n')
			cnt = strtoull(optarg, NULL, 0);
		else if (o == 'o')
			ops_cnt = (unsigned)strtoul(optarg, NULL, 0);
		else if (o == 'm')
			minutes = strtod(optarg, NULL);
		else if (o == 'j')
			json = true;
		else
			return 2;
	}
	if (ops_cnt == 0 || ops_cnt > OPS_MAX)
		return fprintf(stderr, "--ops: 1 to %u\n", OPS_MAX), 2;
	for (; failed == 0 && (done < cnt || seconds() - began < minutes * 60); done++) {
		ops_draw(seed + done, ops, ops_cnt);
		world.workers = 1 + (seed + done) % WORKERS_MAX;
		if (agrees(ops, ops_cnt))
			continue;
		failed++;
		tell(seed + done, ops, ops_cnt, argv[0]);
	}
	printf("%lu sequences of %u operations from seed %lu in %.1f s: %u failed\n", done, ops_cnt,
	       seed, seconds() - began, failed);
	if (json)
		printf("{\"name\": \"model\", \"tried\": %lu, \"unit\": \"sequences\", "
		       "\"got_through\": %u, "
		       "\"seed\": %lu, \"seconds\": %.1f}\n",
		       done, failed, seed, seconds() - began);
	rmdir(world.config.region_dir);
	return failed ? 1 : 0;
}
