/* SPDX-License-Identifier: BSD-3-Clause */
/* Malformed and foreign frames: each has its counter, and none gets further. */
#include <criterion/criterion.h>

#include "tests/unit/dataplane/pipeline.h"

static struct pipeline p;
static uint8_t bytes[2048];
static uint16_t len;

static void open_one(void)
{
	pipeline_open(&p, 1);
}

static void close_one(void)
{
	pipeline_close(&p);
}

TestSuite(parse, .init = open_one, .fini = close_one);

/* A good publish with byte `off` set to `value`, cut or grown by `grow`. */
static void wrong(uint32_t slot, unsigned off, uint8_t value, int grow, enum fan_counter reason)
{
	uint64_t before = counter(&p, reason);

	len = publish_make(bytes,
			   &(struct publish_spec){.slot = slot, .sequence = 1, .payload_len = 20});
	bytes[off] = value;
	feed(&p, bytes, (uint16_t)(len + grow));
	cr_expect_eq(counter(&p, reason), before + 1, "byte %u = %#x, %+d bytes: not %s", off,
		     value, grow, fan_counter_name(reason));
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_accepted), 0);
}

Test(parse, ipv4)
{
	wrong(0, 12, 0x81, 0, FAN_COUNTER_drop_not_ours);  /* VLAN */
	wrong(0, 13, 0x06, 0, FAN_COUNTER_drop_not_ours);  /* ARP */
	wrong(0, 14, 0x46, 0, FAN_COUNTER_drop_ip_header); /* options */
	wrong(0, 14, 0x55, 0, FAN_COUNTER_drop_ip_header); /* version */
	wrong(0, 17, 0xff, 0, FAN_COUNTER_drop_ip_header); /* total length over the frame */
	wrong(0, 17, 10, 0, FAN_COUNTER_drop_ip_header);   /* total length under a header */
	wrong(0, 20, 0x20, 0, FAN_COUNTER_drop_ip_header); /* more fragments */
	wrong(0, 21, 0x01, 0, FAN_COUNTER_drop_ip_header); /* fragment offset */
	wrong(0, 23, 6, 0, FAN_COUNTER_drop_not_ours);	   /* TCP */
	wrong(0, 33, 9, 0, FAN_COUNTER_drop_not_ours);	   /* another address */
	wrong(0, 37, 1, 0, FAN_COUNTER_drop_not_ours);	   /* another port */
	wrong(0, 39, 0xff, 0, FAN_COUNTER_drop_ip_header); /* UDP length over the packet */
	wrong(0, 39, 7, 0, FAN_COUNTER_drop_ip_header);	   /* UDP length under its header */
}

Test(parse, ipv6)
{
	wrong(2, 14, 0x40, 0, FAN_COUNTER_drop_ip_header);
	wrong(2, 19, 0xff, 0, FAN_COUNTER_drop_ip_header); /* payload length over the frame */
	wrong(2, 20, 44, 0, FAN_COUNTER_drop_ip_header);   /* fragment */
	wrong(2, 20, 0, 0, FAN_COUNTER_drop_not_ours);	   /* hop by hop */
	wrong(2, 53, 9, 0, FAN_COUNTER_drop_not_ours);
	wrong(2, 19, 4, 0, FAN_COUNTER_drop_ip_header); /* no room for UDP */
}

Test(parse, wire)
{
	wrong(0, 42, 2, 0, FAN_COUNTER_drop_version);
	wrong(0, 43, 0x77, 0, FAN_COUNTER_drop_type);
	wrong(0, 43, FAN_TYPE_DELIVERY, 0, FAN_COUNTER_drop_type);
	wrong(0, 43, FAN_TYPE_ACK, 0, FAN_COUNTER_drop_type);
	wrong(0, 44, 0x80, 0, FAN_COUNTER_drop_flags);
	wrong(0, 44, FAN_FLAG_REPLAY, 0, FAN_COUNTER_drop_flags);
	wrong(0, 46, 0xff, 0, FAN_COUNTER_drop_length);
	wrong(0, 47, 21, 0, FAN_COUNTER_drop_short);
	wrong(0, 47, 19, 0, FAN_COUNTER_drop_long);
	wrong(0, 57, 60, 0, FAN_COUNTER_drop_session_unknown); /* another slot */
}

Test(parse, every_truncation)
{
	uint64_t accepted = FAN_COUNTER_publishes_accepted;

	len = publish_make(bytes, &(struct publish_spec){.sequence = 1, .payload_len = 20});
	for (uint16_t cut = 0; cut < len; cut++)
		feed(&p, bytes, cut);
	cr_expect_eq(counter(&p, FAN_COUNTER_rx_packets), len);
	cr_expect_eq(counter(&p, FAN_COUNTER_drop_ip_header) +
			     counter(&p, FAN_COUNTER_drop_not_ours),
		     len);
	cr_expect_eq(counter(&p, (enum fan_counter)accepted), 0);
}

Test(parse, padding_of_a_short_frame_is_no_error)
{
	len = publish_make(bytes, &(struct publish_spec){.sequence = 1});
	memset(bytes + len, 0, 30);
	feed(&p, bytes, (uint16_t)(len + 30));
	cr_expect_eq(counter(&p, FAN_COUNTER_publishes_accepted), 1);
}

Test(parse, every_packet_is_counted_once)
{
	uint64_t drops = 0;
	uint32_t random = 1;

	for (unsigned i = 0; i < 20000; i++) { /* noise of every length, half of it nearly right */
		len = publish_make(bytes, &(struct publish_spec){.sequence = 1 + i, .slot = i % 4});
		for (unsigned j = 0; j < 3; j++) {
			random = random * 1664525 + 1013904223;
			bytes[(random >> 8) % len] = (uint8_t)(random >> 24);
		}
		feed(&p, bytes, i % 2 ? len : (uint16_t)((random >> 4) % len));
		take_all(&p);
	}
	for (unsigned i = FAN_COUNTER_drop_not_ours; i < FAN_COUNTER_CNT; i++)
		drops += counter(&p, i);
	cr_expect_eq(drops + counter(&p, FAN_COUNTER_publishes_accepted) +
			     counter(&p, FAN_COUNTER_publishes_repeated),
		     20000);
}
