/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/config/config.h"

static const uint8_t V4_MAPPED[12] = {[10] = 0xff, [11] = 0xff};

int fan_address_parse(struct fan_address *address, const char *text)
{
	struct fan_address parsed = {.family = 4};

	memcpy(parsed.bytes, V4_MAPPED, sizeof(V4_MAPPED));
	if (inet_pton(AF_INET, text, parsed.bytes + sizeof(V4_MAPPED)) != 1) {
		parsed.family = 6;
		/* "::ffff:192.0.2.1" would be an IPv4 address that calls itself IPv6 */
		if (inet_pton(AF_INET6, text, parsed.bytes) != 1 ||
		    memcmp(parsed.bytes, V4_MAPPED, sizeof(V4_MAPPED)) == 0)
			return -EINVAL;
	}
	*address = parsed;
	return 0;
}

void fan_address_format(char text[46], const uint8_t bytes[16], uint8_t family)
{
	const uint8_t *from = family == 4 ? bytes + sizeof(V4_MAPPED) : bytes;

	if (!inet_ntop(family == 4 ? AF_INET : AF_INET6, from, text, 46))
		snprintf(text, 46, "?");
}

/* Whether the leading bits of two addresses are equal. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	if (memcmp(a, b, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8) == 0;
}

bool fan_config_vouches(const struct fan_config *config, const struct fan_address *address)
{
	for (unsigned i = 0; i < config->vouched_cnt; i++) {
		const struct fan_address *prefix = &config->vouched[i].address;
		unsigned bits = config->vouched[i].prefix_len + (prefix->family == 4 ? 96 : 0);

		if (prefix->family == address->family &&
		    same_prefix(prefix->bytes, address->bytes, bits))
			return true;
	}
	return false;
}
