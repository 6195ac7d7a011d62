/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/frame.h"

#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_udp.h>

#define TTL 64

/* Partial sum of 16-bit words in memory order; len is even. */
static inline uint32_t words_sum(const void *bytes, unsigned len)
{
	const unaligned_uint16_t *words = bytes;
	uint32_t sum = 0;

	for (unsigned i = 0; i < len / 2; i++)
		sum += words[i];
	return sum;
}

static inline uint16_t sum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void template_ipv4(struct frame_template *template, const uint8_t source[16])
{
	struct rte_ipv4_hdr *ip = (void *)(template->bytes + RTE_ETHER_HDR_LEN);

	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG);
	ip->time_to_live = TTL;
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->src_addr, source + 12, 4);
	template->ip_sum = words_sum(ip, sizeof(*ip));
	template->udp_sum = words_sum(source + 12, 4);
	template->len = RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(struct rte_udp_hdr);
}

static void template_ipv6(struct frame_template *template, const uint8_t source[16])
{
	struct rte_ipv6_hdr *ip = (void *)(template->bytes + RTE_ETHER_HDR_LEN);

	ip->vtc_flow = htonl(UINT32_C(6) << 28);
	ip->proto = IPPROTO_UDP;
	ip->hop_limits = TTL;
	memcpy(ip->src_addr, source, 16);
	template->udp_sum = words_sum(source, 16);
	template->len = RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(struct rte_udp_hdr);
}

static void template_make(struct worker *w, struct frame_template *template, uint32_t nexthop)
{
	const struct fan_nexthop *hop = &w->plane->table.nexthops[nexthop];
	uint64_t mac =
		__atomic_load_n(&hop->mac, __ATOMIC_ACQUIRE); /* set_mac in control/registry */
	uint16_t port = htons(w->plane->config.engine_port);
	struct rte_ether_hdr *ethernet = (void *)template->bytes;
	struct rte_udp_hdr *udp;

	memset(template, 0, sizeof(*template));
	template->burst = w->burst_no;
	template->family = hop->family;
	template->mtu = hop->mtu;
	template->reason = FAN_COUNTER_drop_nexthop;
	if (!(mac & FAN_NEXTHOP_RESOLVED) || (hop->family != 4 && hop->family != 6))
		return;
	memcpy(&ethernet->dst_addr, &mac, RTE_ETHER_ADDR_LEN); /* first byte lowest, as stored */
	memcpy(&ethernet->src_addr, w->plane->mac, RTE_ETHER_ADDR_LEN);
	ethernet->ether_type = htons(hop->family == 4 ? RTE_ETHER_TYPE_IPV4 : RTE_ETHER_TYPE_IPV6);
	if (hop->family == 4)
		template_ipv4(template, hop->source);
	else
		template_ipv6(template, hop->source);
	udp = (void *)(template->bytes + template->len - sizeof(*udp));
	udp->src_port = port;
	template->udp_sum += port + htons(IPPROTO_UDP);
	template->usable = true;
}

const struct frame_template *frame_template_get(struct worker *w, uint32_t nexthop, uint8_t family,
						uint16_t len)
{
	struct frame_template *template = &w->templates[nexthop];

	if (unlikely(nexthop >= w->plane->table.nexthop_cnt)) {
		COUNT(w, drop_endpoint_range);
		return NULL;
	}
	if (unlikely(template->burst != w->burst_no))
		template_make(w, template, nexthop);
	if (unlikely(!template->usable)) {
		w->counters[template->reason]++;
		return NULL;
	}
	if (unlikely(template->family != family)) {
		COUNT(w, drop_endpoint_range);
		return NULL;
	}
	if (unlikely(template->len - RTE_ETHER_HDR_LEN + len > template->mtu)) {
		COUNT(w, drop_mtu);
		return NULL;
	}
	return template;
}

void frame_begin(uint8_t *frame, const struct frame_template *template, uint16_t payload_len,
		 uint16_t payload_sum, uint32_t *ip_sum, uint32_t *udp_sum)
{
	struct rte_udp_hdr *udp = (void *)(frame + template->len - sizeof(*udp));
	uint16_t udp_len = htons((uint16_t)(sizeof(*udp) + payload_len));

	*ip_sum = 0;
	if (template->family == 4) {
		struct rte_ipv4_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);

		memcpy(frame, template->bytes, RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(*udp));
		ip->total_length = htons((uint16_t)(sizeof(*ip) + sizeof(*udp) + payload_len));
		*ip_sum = template->ip_sum + ip->total_length;
	} else {
		struct rte_ipv6_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);

		memcpy(frame, template->bytes, RTE_ETHER_HDR_LEN + sizeof(*ip) + sizeof(*udp));
		ip->payload_len = udp_len;
	}
	udp->dgram_len = udp_len;
	/* The length counts twice: in the pseudo header and in UDP's own. */
	*udp_sum = template->udp_sum + payload_sum + 2u * udp_len;
}

static void write_ipv4(uint8_t *at, const uint8_t address[16], uint32_t sum)
{
	struct rte_ipv4_hdr *ip = (void *)at;

	memcpy(&ip->dst_addr, address + 12, 4);
	ip->hdr_checksum = (uint16_t)~sum_fold(sum + words_sum(address + 12, 4));
}

void frame_build(uint8_t *frame, const struct frame_template *template, const uint8_t address[16],
		 uint16_t port, uint16_t payload_len, uint16_t payload_sum)
{
	struct rte_udp_hdr *udp = (void *)(frame + template->len - sizeof(*udp));
	unsigned skip = template->family == 4 ? 12 : 0;
	uint32_t ip_sum, sum;

	frame_begin(frame, template, payload_len, payload_sum, &ip_sum, &sum);
	if (template->family == 4)
		write_ipv4(frame + RTE_ETHER_HDR_LEN, address, ip_sum);
	else
		memcpy(((struct rte_ipv6_hdr *)(frame + RTE_ETHER_HDR_LEN))->dst_addr, address, 16);
	udp->dst_port = htons(port);
	sum += udp->dst_port + words_sum(address + skip, 16 - skip);
	udp->dgram_cksum = (uint16_t)~sum_fold(sum);
	if (udp->dgram_cksum == 0) /* 0 means "none" */
		udp->dgram_cksum = 0xffff;
}
