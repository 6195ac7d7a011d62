/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/bypass/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_prefetch.h>
#include <rte_udp.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/error.h"

#define PORT_FIRST   20000
#define PORT_LAST    23999
#define RING_SIZE    4096
#define RING_MOST    16384
#define MEMORY_MB    128
#define FRAME_ROOM   2048
#define POOL_CACHE   256
#define PREFETCH_CNT 8
#define PREFETCH_LEN 192 /* headers, ours among them, and the first of the payload */
#define POLL_BURSTS  16	 /* so that a subscription finds more than one datagram at a time */

/* ---- opening ---- */

static int environment_start(const struct fan_bypass_options *o)
{
	static bool started; /* DPDK has one environment a process, and starts it once */
	char prefix[64], memory[16], lcores[4096],
		*argv[] = {"fanwire-bypass",
			   prefix,
			   lcores,
			   "--main-lcore=0",
			   "--no-pci",
			   "--no-telemetry",
			   "--log-level=warning",
			   o->huge_pages ? "--in-memory" : "--no-huge",
			   "--single-file-segments", /* as memif wants it without copies */
			   "-m",
			   memory};
	size_t len = (size_t)snprintf(lcores, sizeof(lcores), "--lcores=0@(");
	cpu_set_t allowed;
	bool first = true;

	if (started || o->eal_runs)
		return 0;
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return client_error(-errno, "which CPUs this process may use cannot be asked: %s",
				    strerror(errno));
	for (unsigned cpu = 0; cpu < CPU_SETSIZE && len < sizeof(lcores) - 16; cpu++) {
		if (!CPU_ISSET(cpu, &allowed))
			continue;
		len += (size_t)snprintf(lcores + len, sizeof(lcores) - len, "%s%u",
					first ? "" : ",", cpu);
		first = false;
	}
	snprintf(lcores + len, sizeof(lcores) - len, ")");
	snprintf(prefix, sizeof(prefix), "--file-prefix=fanwire-bypass-%d", getpid());
	snprintf(memory, sizeof(memory), "%u", o->memory_mb ? o->memory_mb : MEMORY_MB);
	if (rte_eal_init((int)(sizeof(argv) / sizeof(argv[0])), argv) < 0)
		return client_error(-EIO, "DPDK did not start: %s%s", rte_strerror(rte_errno),
				    o->huge_pages ? "; are there enough free huge pages?" : "");
	started = true;
	return 0;
}

static unsigned ring_exponent(unsigned size)
{
	unsigned exponent = 0;

	while (1u << exponent < size)
		exponent++;
	return exponent;
}

static int port_configure(struct fan_bypass *link, unsigned ring)
{
	struct rte_eth_conf conf = {0};
	struct rte_ether_addr mac;
	int err = rte_eth_dev_configure(link->port_id, 1, 1, &conf);

	if (!err)
		err = rte_eth_rx_queue_setup(link->port_id, 0, (uint16_t)ring,
					     (unsigned)SOCKET_ID_ANY, NULL, link->pool);
	if (!err)
		err = rte_eth_tx_queue_setup(link->port_id, 0, (uint16_t)ring,
					     (unsigned)SOCKET_ID_ANY, NULL);
	if (!err)
		err = rte_eth_dev_start(link->port_id);
	if (!err)
		err = rte_eth_macaddr_get(link->port_id, &mac);
	if (err)
		return client_error(-EIO, "the memif did not start: %s", rte_strerror(-err));
	memcpy(link->mac, mac.addr_bytes, sizeof(link->mac));
	return 0;
}

static int port_open(struct fan_bypass *link, const struct fan_bypass_options *o)
{
	static unsigned number; /* names of pools and ports are the process's */
	unsigned ring = o->ring_size ? o->ring_size : RING_SIZE;
	char name[32], words[512];

	snprintf(name, sizeof(name), "bypass-%u", number);
	link->pool = rte_pktmbuf_pool_create(name, 2 * ring + RECEIVER_QUEUE * 4 - 1, POOL_CACHE, 0,
					     RTE_PKTMBUF_HEADROOM + FRAME_ROOM, SOCKET_ID_ANY);
	if (!link->pool)
		return client_error(-ENOMEM, "no memory for %u packets: raise memory_mb",
				    2 * ring + RECEIVER_QUEUE * 4);
	snprintf(name, sizeof(name), "net_memif%u", 100 + number++);
	snprintf(words, sizeof(words), "role=%s,socket-abstract=no,socket=%s,rsize=%u,bsize=%u%s",
		 o->server ? "server" : "client", o->socket, ring_exponent(ring), FRAME_ROOM,
		 /* the other end writes into our packets: on huge pages only can it map them */
		 o->huge_pages && !o->server && !o->eal_runs ? ",zero-copy=yes" : "");
	if (rte_eal_hotplug_add("vdev", name, words) ||
	    rte_eth_dev_get_port_by_name(name, &link->port_id))
		return client_error(-EIO, "the memif %s could not be made; is its folder there?",
				    o->socket);
	return port_configure(link, ring);
}

static int address_parse(struct fan_bypass *link, const char *text)
{
	static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

	memcpy(link->address, v4_mapped, sizeof(v4_mapped));
	link->family = 4;
	if (inet_pton(AF_INET, text, link->address + 12) == 1)
		return 0;
	link->family = 6;
	return inet_pton(AF_INET6, text, link->address) == 1 ? 0 : -EINVAL;
}

static int options_check(const struct fan_bypass_options *o, struct fan_bypass *link)
{
	if (!o || !o->socket || !o->address)
		return client_error(-EINVAL, "a link needs a socket and an address");
	if (strlen(o->socket) >= 108 || strchr(o->socket, ','))
		return client_error(-EINVAL, "\"%s\" cannot be a memif's socket", o->socket);
	if (o->ring_size > RING_MOST || (o->ring_size & (o->ring_size - 1)))
		return client_error(-EINVAL, "a ring has a power of two of slots, at most %d",
				    RING_MOST);
	if (address_parse(link, o->address))
		return client_error(-EINVAL, "\"%s\" is no address", o->address);
	link->port_first = o->port_first ? o->port_first : PORT_FIRST;
	link->port_last = o->port_last ? o->port_last : PORT_LAST;
	if (link->port_first > link->port_last)
		return client_error(-EINVAL, "no ports from %u to %u", link->port_first,
				    link->port_last);
	return 0;
}

int fan_bypass_open(struct fan_bypass **bypass, const struct fan_bypass_options *options)
{
	struct fan_bypass *link = calloc(1, sizeof(*link));
	int status;

	if (!link)
		return client_error(-ENOMEM, "out of memory for a link");
	link->port_id = RTE_MAX_ETHPORTS;
	status = options_check(options, link);
	if (status < 0)
		goto fail;
	link->receivers = calloc(link->port_last - link->port_first + 1u, sizeof(*link->receivers));
	link->ready = calloc(link->port_last - link->port_first + 1u, sizeof(*link->ready));
	status = link->receivers && link->ready ? environment_start(options)
						: client_error(-ENOMEM, "out of memory for a link");
	if (status == 0)
		status = port_open(link, options);
	if (status < 0)
		goto fail;
	*bypass = link;
	return 0;
fail:
	fan_bypass_close(link);
	return status;
}

void fan_bypass_close(struct fan_bypass *link)
{
	char name[RTE_ETH_NAME_MAX_LEN];

	if (!link)
		return;
	if (link->port_id < RTE_MAX_ETHPORTS &&
	    rte_eth_dev_get_name_by_port(link->port_id, name) == 0) {
		rte_eth_dev_stop(link->port_id);
		rte_eal_hotplug_remove("vdev", name);
	}
	rte_mempool_free(link->pool);
	free(link->receivers);
	free(link->ready);
	free(link);
}

void fan_bypass_counts(const struct fan_bypass *link, struct fan_bypass_counts *counts)
{
	*counts = link->counts;
}

/* ---- receivers ---- */

struct receiver *link_receiver_add(struct fan_bypass *link)
{
	unsigned cnt = link->port_last - link->port_first + 1u, idx = 0;
	struct receiver *receiver;

	while (idx < cnt && link->receivers[idx])
		idx++;
	if (idx == cnt)
		return NULL;
	receiver = calloc(1, sizeof(*receiver));
	if (!receiver)
		return NULL;
	receiver->link = link;
	receiver->port = (uint16_t)(link->port_first + idx);
	link->receivers[idx] = receiver;
	return receiver;
}

void link_receiver_del(struct receiver *receiver)
{
	struct fan_bypass *link = receiver->link;

	while (receiver->tail != receiver->head)
		rte_pktmbuf_free(receiver->queue[receiver->tail++ % RECEIVER_QUEUE].mbuf);
	for (unsigned i = 0; i < link->ready_cnt; i++)
		if (link->ready[i] == receiver)
			link->ready[i--] = link->ready[--link->ready_cnt];
	link->receivers[receiver->port - link->port_first] = NULL;
	sodium_memzero(&receiver->scope, sizeof(receiver->scope));
	free(receiver);
}

/* ---- what comes in ---- */

/* The counter of what was not let through. */
static uint64_t *counter_of(struct fan_bypass_counts *counts, enum bypass_verdict verdict)
{
	switch (verdict) {
	case BYPASS_ACCEPTED:
		return &counts->accepted;
	case BYPASS_DROP_SHORT:
		return &counts->short_header;
	case BYPASS_DROP_LENGTH:
		return &counts->length;
	case BYPASS_DROP_VERSION:
		return &counts->version;
	case BYPASS_DROP_TYPE:
		return &counts->type;
	case BYPASS_DROP_FOREIGN_USER:
		return &counts->foreign_user;
	case BYPASS_DROP_USER_GENERATION:
		return &counts->user_generation;
	case BYPASS_DROP_KEY_GENERATION:
		return &counts->key_generation;
	default:
		return &counts->tag;
	}
}

static struct receiver *receiver_of(const struct fan_bypass *link,
				    const struct frame_datagram *datagram)
{
	if (datagram->port < link->port_first || datagram->port > link->port_last ||
	    memcmp(datagram->address, link->address, sizeof(link->address)) != 0)
		return NULL;
	return link->receivers[datagram->port - link->port_first];
}

/* Of a burst: what is for a receiver of ours and waits to be judged. */
struct arrivals {
	struct rte_mbuf *mbufs[LINK_BURST];
	struct receiver *receivers[LINK_BURST];
	struct bypass_case cases[LINK_BURST];
	unsigned cnt;
};

/* NULL: among the arrivals; else the counter of why not, and the mbuf is still the caller's. */
static uint64_t *assign(struct fan_bypass *link, struct rte_mbuf *mbuf, struct arrivals *arrivals)
{
	struct fan_bypass_counts *counts = &link->counts;
	struct frame_datagram datagram;
	enum frame_verdict parsed;
	struct receiver *receiver;

	if (mbuf->nb_segs != 1) /* as a datagram that receive offload has joined */
		return &counts->super_packet;
	parsed = frame_parse(rte_pktmbuf_mtod(mbuf, const uint8_t *), mbuf->data_len, &datagram);
	if (parsed == FRAME_MALFORMED)
		return &counts->malformed;
	receiver = parsed == FRAME_OK ? receiver_of(link, &datagram) : NULL;
	if (!receiver || !receiver->scoped) {
		if (link->stranger)
			link->stranger(link->stranger_arg, mbuf);
		return &counts->not_ours;
	}
	arrivals->mbufs[arrivals->cnt] = mbuf;
	arrivals->receivers[arrivals->cnt] = receiver;
	arrivals->cases[arrivals->cnt++] =
		(struct bypass_case){&receiver->scope, datagram.payload, datagram.len, 0};
	return NULL;
}

/* NULL: queued; else as assign(). */
static uint64_t *deliver(struct fan_bypass *link, struct receiver *receiver, struct rte_mbuf *mbuf,
			 const struct bypass_case *judged)
{
	if (judged->verdict != BYPASS_ACCEPTED)
		return counter_of(&link->counts, judged->verdict);
	if (receiver->head - receiver->tail == RECEIVER_QUEUE)
		return &link->counts.queue_full;
	receiver->queue[receiver->head++ % RECEIVER_QUEUE] =
		(struct receiver_datagram){mbuf, judged->packet, (uint32_t)judged->len};
	if (!receiver->ready)
		link->ready[link->ready_cnt++] = receiver;
	receiver->ready = true;
	memcpy(link->peer_mac, rte_pktmbuf_mtod(mbuf, const uint8_t *) + RTE_ETHER_ADDR_LEN,
	       RTE_ETHER_ADDR_LEN);
	link->counts.accepted++;
	return NULL;
}

/* The lines of a frame that are looked at: mbuf's data_len is known to be there. */
static void frame_prefetch(const struct rte_mbuf *mbuf)
{
	const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);

	for (unsigned off = 0; off < PREFETCH_LEN; off += RTE_CACHE_LINE_SIZE)
		rte_prefetch0(frame + off);
}

static void drop(struct rte_mbuf *mbuf, uint64_t *counter)
{
	(*counter)++;
	rte_pktmbuf_free(mbuf);
}

unsigned link_poll(struct fan_bypass *link)
{
	struct rte_mbuf *mbufs[LINK_BURST];
	struct arrivals arrivals;
	unsigned cnt = rte_eth_rx_burst(link->port_id, 0, mbufs, LINK_BURST);
	uint64_t *dropped;

	arrivals.cnt = 0;
	for (unsigned i = 0; i < RTE_MIN(cnt, PREFETCH_CNT + 0u); i++)
		frame_prefetch(mbufs[i]);
	for (unsigned i = 0; i < cnt; i++) {
		if (i + PREFETCH_CNT < cnt)
			frame_prefetch(mbufs[i + PREFETCH_CNT]);
		dropped = assign(link, mbufs[i], &arrivals);
		if (dropped)
			drop(mbufs[i], dropped);
	}
	bypass_judge(arrivals.cases, arrivals.cnt);
	for (unsigned i = 0; i < arrivals.cnt; i++) {
		dropped =
			deliver(link, arrivals.receivers[i], arrivals.mbufs[i], &arrivals.cases[i]);
		if (dropped)
			drop(arrivals.mbufs[i], dropped);
	}
	link->counts.received += cnt;
	return cnt;
}

unsigned fan_bypass_poll(struct fan_bypass *link, struct fan_subscription **ready, unsigned max)
{
	unsigned cnt = 0;

	link->polled = true;
	link->now_ns = clock_now_ns();
	for (unsigned i = 0; i < POLL_BURSTS && link_poll(link) == LINK_BURST; i++)
		;
	for (unsigned i = 0; i < link->ready_cnt && cnt < max; i++) {
		struct receiver *receiver = link->ready[i];

		if (receiver->head != receiver->tail && receiver->subscription) {
			ready[cnt++] = receiver->subscription;
			continue;
		}
		receiver->ready = false;
		link->ready[i--] = link->ready[--link->ready_cnt];
	}
	return cnt;
}

/* ---- what goes out ---- */

static void ipv4_fill(struct rte_ipv4_hdr *ip, const uint8_t from[16], const uint8_t to[16],
		      size_t udp_len)
{
	memset(ip, 0, sizeof(*ip));
	ip->version_ihl = RTE_IPV4_VHL_DEF;
	ip->total_length = htons((uint16_t)(sizeof(*ip) + udp_len));
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	memcpy(&ip->src_addr, from + 12, 4);
	memcpy(&ip->dst_addr, to + 12, 4);
	ip->hdr_checksum = rte_ipv4_cksum(ip);
}

static void ipv6_fill(struct rte_ipv6_hdr *ip, const uint8_t from[16], const uint8_t to[16],
		      size_t udp_len)
{
	memset(ip, 0, sizeof(*ip));
	ip->vtc_flow = htonl(UINT32_C(6) << 28);
	ip->payload_len = htons((uint16_t)udp_len);
	ip->proto = IPPROTO_UDP;
	ip->hop_limits = 64;
	memcpy(ip->src_addr, from, 16);
	memcpy(ip->dst_addr, to, 16);
}

void link_send(struct fan_bypass *link, uint16_t from_port, const uint8_t to[16], uint16_t to_port,
	       const uint8_t *payload, size_t len)
{
	size_t ip_len =
		link->family == 4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr);
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(link->pool);
	uint8_t *frame = mbuf ? (uint8_t *)rte_pktmbuf_append(
					mbuf, (uint16_t)(RTE_ETHER_HDR_LEN + ip_len + 8 + len))
			      : NULL;
	struct rte_ether_hdr *ethernet = (void *)frame;
	struct rte_udp_hdr *udp;

	if (!frame) {
		rte_pktmbuf_free(mbuf);
		return;
	}
	memcpy(&ethernet->dst_addr, link->peer_mac, RTE_ETHER_ADDR_LEN);
	memcpy(&ethernet->src_addr, link->mac, RTE_ETHER_ADDR_LEN);
	ethernet->ether_type = htons(link->family == 4 ? RTE_ETHER_TYPE_IPV4 : RTE_ETHER_TYPE_IPV6);
	udp = (void *)(frame + RTE_ETHER_HDR_LEN + ip_len);
	*udp = (struct rte_udp_hdr){.src_port = htons(from_port),
				    .dst_port = htons(to_port),
				    .dgram_len = htons((uint16_t)(sizeof(*udp) + len))};
	memcpy(udp + 1, payload, len);
	if (link->family == 4) {
		ipv4_fill((void *)(ethernet + 1), link->address, to, sizeof(*udp) + len);
		udp->dgram_cksum = rte_ipv4_udptcp_cksum((void *)(ethernet + 1), udp);
	} else {
		ipv6_fill((void *)(ethernet + 1), link->address, to, sizeof(*udp) + len);
		udp->dgram_cksum = rte_ipv6_udptcp_cksum((void *)(ethernet + 1), udp);
	}
	if (rte_eth_tx_burst(link->port_id, 0, &mbuf, 1) == 0)
		rte_pktmbuf_free(mbuf);
}
