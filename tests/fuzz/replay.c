/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a fuzz target without a fuzzer, as an ordinary test: each file of the corpus as it is, cut
 * at every length, and with every byte changed in a few ways. Takes files and folders.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FILE_MAX       (64 * 1024)
#define MUTATION_DEPTH 2048 /* bytes from the start that are cut and changed */

static unsigned long inputs;

/* An allocation of its exact length, so that AddressSanitizer sees a read past the end. */
static void run_one(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (copy == NULL)
		abort();
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
	inputs++;
}

static void run_mutations(uint8_t *data, size_t len)
{
	static const uint8_t masks[] = {0x01, 0x80, 0xff};
	size_t depth = len < MUTATION_DEPTH ? len : MUTATION_DEPTH;

	for (size_t i = 0; i < depth; i++) {
		run_one(data, i);
		for (size_t mask = 0; mask < sizeof(masks); mask++) {
			data[i] ^= masks[mask];
			run_one(data, len);
			data[i] ^= masks[mask];
		}
	}
}

static int run_file(const char *path)
{
	static uint8_t data[FILE_MAX];
	FILE *file = fopen(path, "rb");
	size_t len;

	if (file == NULL) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -errno;
	}
	len = fread(data, 1, sizeof(data), file);
	fclose(file);
	run_one(data, len);
	run_mutations(data, len);
	return 0;
}

static int run_folder(const char *path)
{
	struct dirent **entries;
	int cnt = scandir(path, &entries, NULL, alphasort);
	int err = cnt < 0 ? -errno : 0;
	char name[4096];

	for (int i = 0; i < cnt; i++) {
		if (entries[i]->d_name[0] != '.' && err == 0) {
			snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
			err = run_file(name);
		}
		free(entries[i]);
	}
	if (cnt >= 0)
		free(entries);
	return err;
}

int main(int argc, char **argv)
{
	struct stat stat_buf;

	for (int i = 1; i < argc; i++) {
		if (stat(argv[i], &stat_buf) != 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
			return 1;
		}
		if ((S_ISDIR(stat_buf.st_mode) ? run_folder : run_file)(argv[i]) != 0)
			return 1;
	}
	printf("replayed %lu inputs\n", inputs);
	return inputs > 0 ? 0 : 1;
}
