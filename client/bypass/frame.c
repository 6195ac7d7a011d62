/* SPDX-License-Identifier: BSD-3-Clause */
#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <string.h>

#include "client/bypass/link.h"

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* The payload of what begins at `udp`, which has `room` bytes. */
static enum frame_verdict parse_udp(const uint8_t *at, size_t room, struct frame_datagram *out)
{
	const struct rte_udp_hdr *udp = (const void *)at;
	size_t len;

	if (room < sizeof(*udp))
		return FRAME_MALFORMED;
	len = ntohs(udp->dgram_len);
	if (len < sizeof(*udp) || len > room)
		return FRAME_MALFORMED;
	out->port = ntohs(udp->dst_port);
	out->payload = at + sizeof(*udp);
	out->len = (uint32_t)(len - sizeof(*udp));
	return FRAME_OK;
}

static enum frame_verdict parse_ipv4(const uint8_t *at, size_t room, struct frame_datagram *out)
{
	const struct rte_ipv4_hdr *ip = (const void *)at;
	size_t total;

	if (room < sizeof(*ip))
		return FRAME_MALFORMED;
	total = ntohs(ip->total_length);
	if (ip->version_ihl != RTE_IPV4_VHL_DEF || total > room || total < sizeof(*ip) ||
	    (ntohs(ip->fragment_offset) & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)))
		return FRAME_MALFORMED;
	if (ip->next_proto_id != IPPROTO_UDP)
		return FRAME_STRANGE;
	memcpy(out->address, v4_mapped, sizeof(v4_mapped));
	memcpy(out->address + 12, &ip->dst_addr, 4);
	return parse_udp(at + sizeof(*ip), total - sizeof(*ip), out);
}

static enum frame_verdict parse_ipv6(const uint8_t *at, size_t room, struct frame_datagram *out)
{
	const struct rte_ipv6_hdr *ip = (const void *)at;

	if (room < sizeof(*ip) || at[0] >> 4 != 6 || ntohs(ip->payload_len) > room - sizeof(*ip))
		return FRAME_MALFORMED;
	if (ip->proto != IPPROTO_UDP)
		return FRAME_STRANGE;
	memcpy(out->address, ip->dst_addr, 16);
	return parse_udp(at + sizeof(*ip), ntohs(ip->payload_len), out);
}

enum frame_verdict frame_parse(const uint8_t *frame, size_t frame_len, struct frame_datagram *out)
{
	const struct rte_ether_hdr *ethernet = (const void *)frame;

	if (frame_len < sizeof(*ethernet))
		return FRAME_MALFORMED;
	frame_len -= sizeof(*ethernet);
	switch (ntohs(ethernet->ether_type)) {
	case RTE_ETHER_TYPE_IPV4:
		return parse_ipv4(frame + sizeof(*ethernet), frame_len, out);
	case RTE_ETHER_TYPE_IPV6:
		return parse_ipv6(frame + sizeof(*ethernet), frame_len, out);
	default:
		return FRAME_STRANGE;
	}
}
