/* SPDX-License-Identifier: BSD-3-Clause */
#include "bench/peers/link_publisher.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_udp.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/publisher.h"

#define WINDOW	    512 /* under the 1,024 results that the engine keeps a session */
#define BURST	    32
#define OVERDUE_NS  UINT64_C(20000000)
#define HEADERS_LEN (RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) + sizeof(struct rte_udp_hdr))
#define ACK_MAX	    (FAN_ACK_LEN + 8 + FAN_ACK_RESULT_MAX * FAN_ACK_RESULT_LEN + FAN_TAG_LEN)

struct link_publisher {
	struct fan_publisher *session;
	struct fan_bypass *link;
	unsigned event_len;
	uint16_t frame_len, port;      /* port: the session's own */
	uint64_t next, sent, accepted; /* sequences: to give, first not sent, accepted up to */
	uint64_t progress_ns;
	uint8_t headers[HEADERS_LEN];
	uint8_t *frames; /* WINDOW of frame_len */
};

static uint8_t *frame_at(struct link_publisher *p, uint64_t sequence)
{
	return p->frames + sequence % WINDOW * p->frame_len;
}

/* All frames are alike up to the UDP payload. */
static int headers_fill(struct link_publisher *p)
{
	const struct sockaddr_in *engine = (const void *)&p->session->engine;
	struct rte_ether_hdr *ethernet = (void *)p->headers;
	struct rte_ipv4_hdr *ip = (void *)(ethernet + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);
	uint16_t udp_len = (uint16_t)(p->frame_len - RTE_ETHER_HDR_LEN - sizeof(*ip));
	struct sockaddr_in own;
	socklen_t len = sizeof(own);

	if (getsockname(p->session->udp, (struct sockaddr *)&own, &len) ||
	    own.sin_family != AF_INET)
		return client_error(-EAFNOSUPPORT, "the session has no IPv4 address");
	p->port = ntohs(own.sin_port);
	memset(&ethernet->dst_addr, 0xff, RTE_ETHER_ADDR_LEN);
	memcpy(&ethernet->src_addr, p->link->mac, RTE_ETHER_ADDR_LEN);
	ethernet->ether_type = htons(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->total_length = htons((uint16_t)(sizeof(*ip) + udp_len));
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	ip->src_addr = own.sin_addr.s_addr;
	ip->dst_addr = engine->sin_addr.s_addr;
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	udp->src_port = own.sin_port;
	udp->dst_port = engine->sin_port;
	udp->dgram_len = htons(udp_len);
	return 0;
}

static void ack_take(struct link_publisher *p, const struct frame_datagram *datagram)
{
	const uint8_t *packet = datagram->payload;
	uint8_t body[ACK_MAX];
	struct fan_ack ack;
	uint64_t accepted;

	if (fan_ack_decode(packet, datagram->len, &ack) != FAN_WIRE_OK ||
	    datagram->len > sizeof(body) || ack.session != p->session->session ||
	    seal_open(&p->session->seal, FAN_DIRECTION_ACK, ack.counter, packet, FAN_ACK_LEN,
		      packet + FAN_ACK_LEN, datagram->len - FAN_ACK_LEN - FAN_TAG_LEN, body))
		return;
	memcpy(&accepted, body, sizeof(accepted));
	accepted = be64toh(accepted);
	if (accepted > p->accepted && accepted < p->next) {
		p->accepted = accepted;
		p->progress_ns = 0;
	}
}

static void on_stranger(void *arg, struct rte_mbuf *mbuf)
{
	struct link_publisher *p = arg;
	struct frame_datagram datagram;

	if (frame_parse(rte_pktmbuf_mtod(mbuf, const uint8_t *), mbuf->data_len, &datagram) ==
		    FRAME_OK &&
	    datagram.port == p->port)
		ack_take(p, &datagram);
}

int link_publisher_open(struct link_publisher **publisher, struct fan_bypass *link,
			const char *client_socket, const struct fan_credential *credential,
			unsigned len)
{
	struct link_publisher *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return client_error(-ENOMEM, "no memory for a publisher");
	p->link = link;
	p->event_len = len;
	p->frame_len = (uint16_t)(HEADERS_LEN + FAN_PUBLISH_LEN + len + FAN_TAG_LEN);
	p->next = p->sent = 1;
	p->frames = calloc(WINDOW, p->frame_len);
	err = p->frames ? fan_publisher_open(&p->session, client_socket, credential) : -ENOMEM;
	if (!err)
		err = headers_fill(p);
	if (err) {
		link_publisher_close(p);
		return err;
	}
	link->stranger = on_stranger;
	link->stranger_arg = p;
	*publisher = p;
	return 0;
}

void link_publisher_close(struct link_publisher *p)
{
	if (!p)
		return;
	p->link->stranger = NULL;
	if (p->session)
		fan_publisher_close(p->session);
	free(p->frames);
	free(p);
}

bool link_publish(struct link_publisher *p, const uint8_t handle[FAN_HANDLE_LEN], const void *event)
{
	uint8_t *frame = frame_at(p, p->next), *packet = frame + HEADERS_LEN;
	struct fan_publish header = {.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
				     .payload_len = (uint16_t)p->event_len,
				     .session = p->session->session,
				     .publisher_sequence = p->next};

	if (p->next - p->accepted > WINDOW)
		return false;
	memcpy(header.handle, handle, FAN_HANDLE_LEN);
	memcpy(frame, p->headers, HEADERS_LEN);
	fan_publish_encode(packet, &header);
	if (seal_close(&p->session->seal, FAN_DIRECTION_PUBLISH, p->next, packet, FAN_PUBLISH_LEN,
		       event, p->event_len, packet + FAN_PUBLISH_LEN))
		return false;
	p->next++;
	return true;
}

void link_publisher_flush(struct link_publisher *p)
{
	struct rte_mbuf *mbufs[BURST];

	while (p->sent < p->next) {
		unsigned cnt = (unsigned)RTE_MIN(p->next - p->sent, (uint64_t)BURST), taken;

		if (rte_pktmbuf_alloc_bulk(p->link->pool, mbufs, cnt))
			return; /* as lost: sent again later */
		for (unsigned i = 0; i < cnt; i++)
			memcpy(rte_pktmbuf_append(mbufs[i], p->frame_len), frame_at(p, p->sent + i),
			       p->frame_len);
		taken = rte_eth_tx_burst(p->link->port_id, 0, mbufs, (uint16_t)cnt);
		rte_pktmbuf_free_bulk(mbufs + taken, cnt - taken);
		p->sent += taken;
		if (taken < cnt)
			return;
	}
}

void link_publisher_step(struct link_publisher *p, uint64_t now_ns)
{
	if (p->accepted + 1 == p->next || p->progress_ns == 0)
		p->progress_ns = now_ns;
	if (now_ns - p->progress_ns < OVERDUE_NS)
		return;
	p->sent = p->accepted + 1; /* the engine waits at the gap: again from there */
	p->progress_ns = now_ns;
}
