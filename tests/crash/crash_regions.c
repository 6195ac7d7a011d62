/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Regions that a crash of the machine, a full disk or a fault left damaged: cut at every page and
 * at any length, every byte of the roots changed, bits flipped anywhere, whole lines swapped, no
 * room, no descriptors. Each is opened as both processes do, in a child of its own: it is refused
 * with a sentence, or taken over with a table in which no endpoint stands under another user, also
 * after changes. Killed, hung or silent is a failure.
 *
 * usage: crash-regions [--seed N] [--rounds N]; the last line is JSON for ./dev prove.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/shm/region.h"
#include "common/shm/state.h"
#include "control/registry/registry.h"
#include "tests/unit/registry/image.h"

#define FLIPS	    300 /* a round */
#define PAGE	    4096
#define TOO_LONG_S  20
#define DESCRIPTORS 12 /* more than an open needs */

enum outcome { REFUSED, TAKEN, SILENT, FOREIGN };

static struct image image;
static uint64_t state, tried, through, refused;

static uint32_t draw(uint32_t below)
{
	state ^= state << 13; /* xorshift64, Marsaglia 2003 */
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 32) % below);
}

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	printf("crash-regions: %s\n", what);
	exit(2);
}

/* ---- in the child ---- */

static void read_as_dataplane(void)
{
	struct fan_region region;
	struct fan_table table;
	char why[256] = "";

	if (fan_region_open_reader(&region, image.path[0], FAN_REGION_MAGIC_REGISTRY,
				   sizeof(struct fan_registry), why)) {
		if (!why[0])
			_exit(SILENT);
		return;
	}
	if (fan_table_init(&table, &region) == 0)
		(void)image_foreign(&table); /* compares each, as a worker does before it sends */
	fan_region_close(&region);
}

static void change(struct registry *r)
{
	struct registry_user_keys keys = {.user_generation = 1, .key_generation = 1};
	struct registry_connection c, spec = {.family = 6, .port = 20001, .cookie = 99}, made;
	uint32_t cursor = 0;

	image_handle(spec.handle, 2);
	spec.address[15] = 9;
	if (registry_connection_add(r, &spec, &made) == 0)
		(void)registry_connection_activate(r, made.id, &keys, NULL, 0);
	while (registry_connection_next(r, &cursor, &c))
		if (c.id % 2 && c.state != FAN_CONNECTION_ENDING)
			(void)registry_connection_del(r, c.id, c.generation);
	image_handle(spec.handle, 3);
	(void)registry_user_revoke(r, spec.handle);
	for (uint64_t i = 1; i < 4; i++)
		registry_housekeeping(r, UINT64_C(1) << (50 + i));
}

static void open_damaged(void)
{
	struct registry *r = NULL;
	char why[1024] = "";

	alarm(TOO_LONG_S);
	read_as_dataplane();
	if (registry_open(&r, &image.config, why))
		_exit(strlen(why) > 20 ? REFUSED : SILENT);
	if (image_foreign_anywhere(registry_table(r)))
		_exit(FOREIGN);
	change(r);
	_exit(image_foreign_anywhere(registry_table(r)) ? FOREIGN : TAKEN);
}

/* ---- in the parent ---- */

/* before: called in the child, or NULL. Returns the outcome, or -1 where it died of a signal. */
static int try_one(void (*before)(unsigned), unsigned arg, const char *what, unsigned long detail)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(SILENT);
		if (before)
			before(arg);
		open_damaged();
	}
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	tried++;
	if (WIFEXITED(status) && WEXITSTATUS(status) <= TAKEN) {
		refused += WEXITSTATUS(status) == REFUSED;
		return WEXITSTATUS(status);
	}
	through++;
	printf("%s %lu: %s\n", what, detail,
	       WIFSIGNALED(status)		? strsignal(WTERMSIG(status))
	       : WEXITSTATUS(status) == SILENT	? "refused without a sentence"
	       : WEXITSTATUS(status) == FOREIGN ? "an endpoint under another user"
						: "a sanitizer's finding");
	return WIFSIGNALED(status) ? -1 : WEXITSTATUS(status);
}

static void write_both(void)
{
	image_write(&image, 0, image.len[0]);
	image_write(&image, 1, image.len[1]);
}

static void the_whole_is_taken(void)
{
	image_reset(&image);
	write_both();
	must(try_one(NULL, 0, "whole", 0) == TAKEN, "an undamaged region is not taken over");
}

static void cut(void)
{
	for (unsigned which = 0; which < 2; which++) {
		image_reset(&image);
		write_both();
		for (size_t len = 0; len < image.len[which]; len += PAGE) {
			size_t at = len && draw(2) ? len - 1 - draw(PAGE - 1) : len;

			image_write(&image, which, at);
			if (try_one(NULL, 0, which ? "state cut at" : "registry cut at", at) ==
				    TAKEN &&
			    which == 0) {
				through++;
				printf("registry cut at %zu: taken over\n", at);
			}
		}
	}
}

static void change_roots(void)
{
	static const size_t root_len[] = {sizeof(struct fan_registry), sizeof(struct fan_state)};

	for (unsigned which = 0; which < 2; which++) {
		for (size_t at = 0; at < root_len[which]; at++) {
			image_reset(&image);
			image.work[which][at] ^= (uint8_t)(1u << draw(8));
			write_both();
			try_one(NULL, 0, which ? "state root byte" : "registry root byte", at);
		}
	}
}

/* Most of a file is empty arrays: half of the damage goes where something is. */
static size_t place(unsigned which)
{
	for (;;) {
		size_t at = draw((uint32_t)image.len[which]);

		if (draw(2) || image.work[which][at])
			return at;
	}
}

static void flip_bits(unsigned times)
{
	for (unsigned n = 0; n < times; n++) {
		unsigned cnt = draw(2) ? 1 : 1 + draw(40);

		image_reset(&image);
		while (cnt--) {
			unsigned which = draw(8) == 0;

			image.work[which][place(which)] ^= (uint8_t)(1u << draw(8));
		}
		write_both();
		try_one(NULL, 0, "bit flips, trial", n);
	}
}

/* A line of one place at another: lost and misplaced writes, that are in themselves whole. */
static void swap_lines(unsigned times)
{
	for (unsigned n = 0; n < times; n++) {
		size_t from = place(0) / FAN_CACHE_LINE * FAN_CACHE_LINE;
		size_t to = place(0) / FAN_CACHE_LINE * FAN_CACHE_LINE;
		size_t len = FAN_CACHE_LINE * (1 + draw(4));

		image_reset(&image);
		if (from + len > image.len[0] || to + len > image.len[0])
			continue;
		memmove(image.work[0] + to, image.work[0] + from, len);
		write_both();
		try_one(NULL, 0, "misplaced lines, trial", n);
	}
}

/* ---- what the machine lacks ---- */

static void limit_descriptors(unsigned cnt)
{
	struct rlimit limit = {cnt, cnt};

	for (int fd = 3; fd < 64; fd++)
		close(fd);
	if (setrlimit(RLIMIT_NOFILE, &limit))
		_exit(SILENT);
}

static void want_descriptors(void)
{
	image_reset(&image);
	write_both();
	for (unsigned cnt = 3; cnt < DESCRIPTORS; cnt++) {
		int outcome = try_one(limit_descriptors, cnt, "descriptors", cnt);

		if (cnt == 3 || cnt == DESCRIPTORS - 1)
			must(outcome == (cnt == 3 ? REFUSED : TAKEN), "the limit did not bite");
	}
}

static void mount_small(unsigned pages)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%uk", pages * 4);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", image.config.region_dir, "tmpfs", 0, options))
		_exit(SILENT);
}

/* Created where there is no room, less than enough, just enough. */
static void want_room(void)
{
	unsigned needed = (unsigned)(image.len[0] / PAGE) + 2;
	unsigned taken = 0;

	if (geteuid() != 0) {
		printf("crash-regions: a full disk needs root to be made\n");
		exit(2);
	}
	for (unsigned pages = 1; pages <= needed + 4; pages += 1 + needed / 24) {
		int outcome = try_one(mount_small, pages, "room for pages", pages);

		taken += outcome == TAKEN;
		must(outcome != TAKEN || pages + 3 >= needed, "the disk was not full");
	}
	must(try_one(mount_small, needed + 64, "room for pages", needed + 64) == TAKEN, "room");
}

static void round_of(uint64_t seed)
{
	uint64_t before = through;

	state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	the_whole_is_taken();
	cut();
	change_roots();
	flip_bits(FLIPS);
	swap_lines(FLIPS / 3);
	want_descriptors();
	want_room();
	if (through != before)
		printf("replay with: crash-regions --seed %lu --rounds 1\n", (unsigned long)seed);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"rounds", required_argument, NULL, 'r'},
						{0}};
	unsigned long seed = 1, rounds = 1;
	struct timespec began, now;

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		must(option != '?', "usage: crash-regions [--seed N] [--rounds N]");
		*(option == 's' ? &seed : &rounds) = strtoul(optarg, NULL, 10);
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	image_make(&image);
	for (unsigned long i = 0; i < rounds; i++)
		round_of(seed + i);
	image_remove(&image);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("{\"name\": \"crash-regions\", \"tried\": %lu, \"unit\": \"regions\", "
	       "\"got_through\": %lu, \"seed\": %lu, \"seconds\": %.1f, \"refused\": %lu}\n",
	       (unsigned long)tried, (unsigned long)through, seed,
	       (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9,
	       (unsigned long)refused);
	return through ? 1 : 0;
}
