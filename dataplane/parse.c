/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Receive side: from a frame to a publish or an echo. Every length is checked against the bytes
 * that are there. The UDP checksum is not judged: the AEAD is stronger, and over veth it is
 * partial.
 */
#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_prefetch.h>
#include <rte_udp.h>

#include "common/plant.h"
#include "common/shm/ring.h"
#include "common/wire/handle.h"
#include "dataplane/handover.h"
#include "dataplane/replay.h"
#include "dataplane/worker.h"

/* A datagram's place in the frame, and where it came from. */
struct datagram {
	const uint8_t *source, *target; /* addresses: 4 or 16 bytes */
	uint8_t family;
	uint16_t ip_off, udp_off, len; /* len: from udp_off */
};

#define AHEAD	     8u	  /* packets */
#define PREFETCH_MAX 1536 /* bytes of a frame */

#define PARSE_OK FAN_COUNTER_CNT

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

static unsigned parse_ipv4(const uint8_t *frame, unsigned len, struct datagram *datagram)
{
	const struct rte_ipv4_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);
	unsigned room = len - RTE_ETHER_HDR_LEN, total;

	if (room < sizeof(*ip))
		return FAN_COUNTER_drop_ip_header;
	total = ntohs(ip->total_length);
	/* Options are never needed here, and a fragment has no ports to trust. */
	if (ip->version_ihl != RTE_IPV4_VHL_DEF || total > room || total < sizeof(*ip) ||
	    (ntohs(ip->fragment_offset) & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK)))
		return FAN_COUNTER_drop_ip_header;
	if (ip->next_proto_id != IPPROTO_UDP)
		return FAN_COUNTER_drop_not_ours;
	datagram->family = 4;
	datagram->source = (const uint8_t *)&ip->src_addr;
	datagram->target = (const uint8_t *)&ip->dst_addr;
	datagram->udp_off = RTE_ETHER_HDR_LEN + sizeof(*ip);
	datagram->len = (uint16_t)(total - sizeof(*ip));
	return PARSE_OK;
}

static unsigned parse_ipv6(const uint8_t *frame, unsigned len, struct datagram *datagram)
{
	const struct rte_ipv6_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);
	unsigned room = len - RTE_ETHER_HDR_LEN;

	if (room < sizeof(*ip) || frame[RTE_ETHER_HDR_LEN] >> 4 != 6 ||
	    ntohs(ip->payload_len) > room - sizeof(*ip))
		return FAN_COUNTER_drop_ip_header;
	if (ip->proto == IPPROTO_FRAGMENT)
		return FAN_COUNTER_drop_ip_header;
	if (ip->proto != IPPROTO_UDP)
		return FAN_COUNTER_drop_not_ours;
	datagram->family = 6;
	datagram->source = ip->src_addr;
	datagram->target = ip->dst_addr;
	datagram->udp_off = RTE_ETHER_HDR_LEN + sizeof(*ip);
	datagram->len = ntohs(ip->payload_len);
	return PARSE_OK;
}

static bool address_is_ours(const struct fan_config *config, const struct datagram *datagram)
{
	for (unsigned i = 0; i < config->engine_address_cnt; i++) {
		const struct fan_address *own = &config->engine_address[i];
		unsigned skip = own->family == 4 ? 12 : 0;

		if (own->family == datagram->family &&
		    memcmp(own->bytes + skip, datagram->target, 16 - skip) == 0)
			return true;
	}
	return false;
}

/* Finds the UDP payload and fills what the packet knows of its source. */
static unsigned parse_frame(struct worker *w, struct rte_mbuf *mbuf)
{
	uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
	struct packet *packet = packet_of(mbuf);
	const struct rte_udp_hdr *udp;
	struct datagram datagram;
	unsigned verdict, udp_len;
	uint16_t type;

	if (mbuf->nb_segs != 1) /* more than our buffers were sized for */
		return FAN_COUNTER_drop_long;
	if (mbuf->data_len < RTE_ETHER_HDR_LEN)
		return FAN_COUNTER_drop_not_ours;
	type = ntohs(((const struct rte_ether_hdr *)frame)->ether_type);
	if (type == RTE_ETHER_TYPE_IPV4)
		verdict = parse_ipv4(frame, mbuf->data_len, &datagram);
	else if (type == RTE_ETHER_TYPE_IPV6)
		verdict = parse_ipv6(frame, mbuf->data_len, &datagram);
	else
		verdict = FAN_COUNTER_drop_not_ours;
	if (verdict != PARSE_OK)
		return verdict;
	if (datagram.len < sizeof(*udp))
		return FAN_COUNTER_drop_ip_header;
	udp = (const void *)(frame + datagram.udp_off);
	udp_len = ntohs(udp->dgram_len);
	if (udp_len < sizeof(*udp) || udp_len > datagram.len)
		return FAN_COUNTER_drop_ip_header;
	if (ntohs(udp->dst_port) != w->plane->config.engine_port ||
	    !address_is_ours(&w->plane->config, &datagram))
		return FAN_COUNTER_drop_not_ours;
	memcpy(packet->source, v4_mapped, sizeof(v4_mapped));
	if (datagram.family == 4)
		memcpy(packet->source + 12, datagram.source, 4);
	else
		memcpy(packet->source, datagram.source, 16);
	packet->source_port = ntohs(udp->src_port);
	packet->wire = frame + datagram.udp_off + sizeof(*udp);
	packet->wire_len = (uint16_t)(udp_len - sizeof(*udp));
	return PARSE_OK;
}

static enum fan_counter wire_error_counter(enum fan_wire_error error)
{
	switch (error) {
	case FAN_WIRE_SHORT:
		return FAN_COUNTER_drop_short;
	case FAN_WIRE_LONG:
		return FAN_COUNTER_drop_long;
	case FAN_WIRE_VERSION_UNKNOWN:
		return FAN_COUNTER_drop_version;
	case FAN_WIRE_FLAGS_UNKNOWN:
		return FAN_COUNTER_drop_flags;
	case FAN_WIRE_LENGTH:
		return FAN_COUNTER_drop_length;
	default:
		return FAN_COUNTER_drop_type;
	}
}

static void on_publish(struct worker *w, struct rte_mbuf *mbuf)
{
	struct packet *packet = packet_of(mbuf);
	enum fan_wire_error error;
	unsigned owner;

	error = fan_publish_decode(packet->wire, packet->wire_len, &packet->publish);
	if (error) {
		packet_drop(w, mbuf, wire_error_counter(error));
		return;
	}
	/* A copy's headers will be written in front of the payload, inside this buffer, and whole
	 * blocks be read from there. */
	if (packet->wire + FAN_PUBLISH_LEN <
		    (uint8_t *)mbuf->buf_addr + FRAME_HEADERS_MAX + FAN_DELIVERY_LEN ||
	    packet->wire + packet->wire_len + KERNEL_SLACK >
		    (uint8_t *)mbuf->buf_addr + mbuf->buf_len) {
		packet_drop(w, mbuf, FAN_COUNTER_drop_no_mbuf);
		return;
	}
	packet->hash = fan_table_hash(w->plane->table.seed, packet->publish.handle,
				      packet->publish.channel);
	owner = session_owner(w->plane, packet->publish.session);
	if (owner == w->idx)
		stage_add(w->publishes, &w->publish_cnt, mbuf);
	else
		handover_publish(w, owner, mbuf);
}

/* The proof binds connection, salt and the very address and port that the packet came from. */
static unsigned echo_judge(struct worker *w, const struct packet *packet)
{
	const struct fan_registry *registry = w->plane->table.registry;
	struct fan_report report = {.type = FAN_REPORT_ECHO};
	enum fan_wire_error error;
	struct fan_echo echo;

	error = fan_echo_decode(packet->wire, packet->wire_len, &echo);
	if (error)
		return wire_error_counter(error);
	if (echo.proof != fan_challenge_proof(registry->challenge_key, echo.connection, echo.salt,
					      packet->source, packet->source_port) &&
	    !fan_planted(PLANT_ECHO_NOT_CHECKED))
		return FAN_COUNTER_drop_echo_forged;
	report.connection = echo.connection;
	report.salt = echo.salt;
	if (!fan_ring_try_push(w->shared->reports, FAN_REPORT_CNT, sizeof(report),
			       &w->shared->report_head, &registry->report_tail[w->idx], &report))
		return FAN_COUNTER_drop_report_full;
	return FAN_COUNTER_echoes_accepted;
}

static void on_replay(struct worker *w, struct rte_mbuf *mbuf)
{
	const struct packet *packet = packet_of(mbuf);
	struct fan_replay request;
	enum fan_wire_error error = fan_replay_decode(packet->wire, packet->wire_len, &request);

	if (error)
		packet_drop(w, mbuf, wire_error_counter(error));
	else
		replay_request(w, mbuf, &request);
}

static void parse_one(struct worker *w, struct rte_mbuf *mbuf)
{
	enum fan_wire_error error = FAN_WIRE_OK;
	unsigned verdict = parse_frame(w, mbuf);
	const struct packet *packet = packet_of(mbuf);

	COUNT(w, rx_packets);
	COUNT_N(w, rx_bytes, mbuf->pkt_len);
	if (verdict != PARSE_OK) {
		packet_drop(w, mbuf, verdict);
		return;
	}
	switch (fan_wire_type(packet->wire, packet->wire_len, &error)) {
	case FAN_TYPE_PUBLISH:
		on_publish(w, mbuf);
		break;
	case FAN_TYPE_ECHO: /* the verdict is a counter either way */
		packet_drop(w, mbuf, echo_judge(w, packet));
		break;
	case FAN_TYPE_REPLAY:
		on_replay(w, mbuf);
		break;
	default:
		packet_drop(w, mbuf, error ? wire_error_counter(error) : FAN_COUNTER_drop_type);
	}
}

/* The headers, what we note of the packet, and the payload, which the next stage opens. */
static void prefetch_packet(struct rte_mbuf *mbuf)
{
	const uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
	uint8_t *note = (uint8_t *)packet_of(mbuf);

	for (unsigned off = 0; off < sizeof(struct packet); off += RTE_CACHE_LINE_SIZE)
		__builtin_prefetch(note + off, 1);
	for (unsigned off = 0; off < mbuf->data_len && off < PREFETCH_MAX;
	     off += RTE_CACHE_LINE_SIZE)
		rte_prefetch0(frame + off);
}

void parse_burst(struct worker *w, struct rte_mbuf **received, unsigned cnt)
{
	for (unsigned i = 0; i < RTE_MIN(cnt, AHEAD); i++)
		prefetch_packet(received[i]);
	for (unsigned i = 0; i < cnt; i++) {
		if (i + AHEAD < cnt)
			prefetch_packet(received[i + AHEAD]);
		parse_one(w, received[i]);
	}
}
