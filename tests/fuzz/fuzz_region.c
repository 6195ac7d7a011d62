/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attaching to damaged regions, as both processes do: refused with a sentence, or harmless. The
 * input is a list of changes to the two regions of a small site, five bytes and more each:
 *   which & length (bit 7 state region, bit 6 cut off there, bits 0-4 length), offset (24 bits),
 *   then that many bytes. An offset beyond the file counts from its beginning again.
 * Random numbers come from a counter, so that an input does the same each time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"
#include "common/shm/region.h"
#include "control/registry/registry.h"
#include "tests/unit/registry/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint64_t drawn;
static struct image image;

ssize_t getrandom(void *buffer, size_t len, unsigned flags)
{
	uint8_t *out = buffer;

	for (size_t i = 0; i < len; i++) {
		drawn = drawn * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		out[i] = (uint8_t)(drawn >> 56);
	}
	return (ssize_t)len;
}

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void clean_up(void)
{
	image_remove(&image);
}

static void prepare(void)
{
	if (image.bytes[0]) {
		image_reset(&image);
		return;
	}
	fan_log_init("fuzz", "error");
	image_make(&image);
	atexit(clean_up);
}

static void damage(const uint8_t *data, size_t len)
{
	size_t size[2] = {image.len[0], image.len[1]};

	while (len >= 4) {
		unsigned which = data[0] >> 7, cut = data[0] >> 6 & 1;
		size_t n = data[0] & 31;
		size_t at = (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];

		data += 4;
		len -= 4;
		at %= image.len[which];
		if (cut) {
			size[which] = at;
			continue;
		}
		for (; n && len && at < image.len[which]; n--, len--)
			image.work[which][at++] = *data++;
	}
	image_write(&image, 0, size[0]);
	image_write(&image, 1, size[1]);
}

/* As the dataplane: it looks up what a publish names, and compares each endpoint before it sends.
 */
static void attach_as_reader(void)
{
	struct fan_region region;
	struct fan_table table;
	char why[256] = "";

	if (fan_region_open_reader(&region, image.path[0], FAN_REGION_MAGIC_REGISTRY,
				   sizeof(struct fan_registry), why)) {
		require(why[0] != '\0');
		return;
	}
	if (fan_table_init(&table, &region) == 0) {
		(void)image_foreign(&table);
		for (uint64_t id = 0; id < 8; id++)
			(void)fan_table_session(&table, id);
	}
	fan_region_close(&region);
}

static void use(struct registry *r)
{
	struct registry_connection c;
	struct fan_report report;
	uint32_t cursor = 0;
	unsigned n = 0;

	require(image_foreign_anywhere(registry_table(r)) == 0);
	while (registry_connection_next(r, &cursor, &c) && n++ < 4)
		if (c.state != FAN_CONNECTION_ENDING)
			(void)registry_connection_del(r, c.id, c.generation);
	for (n = 0; n < 4096 && registry_report(r, &report); n++)
		;
	registry_housekeeping(r, UINT64_C(1) << 40);
	registry_housekeeping(r, UINT64_C(1) << 41);
	require(image_foreign_anywhere(registry_table(r)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char why[1024] = "";
	struct registry *r;

	prepare();
	damage(data, len);
	drawn = 1;
	attach_as_reader();
	if (registry_open(&r, &image.config, why)) {
		require(why[0] != '\0' && memchr(why, '\0', sizeof(why)));
		return 0;
	}
	use(r);
	registry_close(r);
	return 0;
}
