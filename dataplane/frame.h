/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ethernet, IP and UDP headers of what we send, built from a template of the next hop. Work per
 * frame does not depend on the payload: its partial checksum is the caller's, made once an event.
 * Checksums are always right, IPv4's included (RFC 768, RFC 1071, RFC 8200).
 */
#pragma once

#include "dataplane/worker.h"

/*
 * Template of a next hop for a UDP payload of len bytes; made at most once a burst. NULL where
 * nothing, or nothing so long, can be sent there; the reason is counted.
 */
const struct frame_template *frame_template_get(struct worker *w, uint32_t nexthop, uint8_t family,
						uint16_t len);

/* Writes template->len bytes of headers; payload_sum = rte_raw_cksum of the UDP payload. */
void frame_build(uint8_t *frame, const struct frame_template *template, const uint8_t address[16],
		 uint16_t port, uint16_t payload_len, uint16_t payload_sum);

/*
 * The same but for what differs from copy to copy: destination address and port, and the checksums.
 * ip_sum and udp_sum become the partial sums of all that does not differ, payload included.
 */
void frame_begin(uint8_t *frame, const struct frame_template *template, uint16_t payload_len,
		 uint16_t payload_sum, uint32_t *ip_sum, uint32_t *udp_sum);
