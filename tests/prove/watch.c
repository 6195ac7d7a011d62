/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Beside every scoped socket, at all times: a capture of what arrives at the receivers' host,
 * judged by who held the port at that moment (places.h), and a forger that sends what it captured
 * to whom it is not for, from the engine's own address and port. Its packets carry a mark in their
 * type of service; what does not carry it came from the engine. To each socket that ended go its
 * own packets, and to each that a port was handed on to, its former holder's, until they have
 * arrived.
 *
 * usage: watch CAPTURE_FD FORGER_FD INTERFACE ADDRESS PLACES PORT_FIRST PORT_CNT SEED
 * Standard input: "still N": N packets are forged, none besides from then on, and their number is
 * printed; its end: prints one JSON object.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/wire/wire.h"
#include "tests/prove/content.h"
#include "tests/prove/places.h"

#define MARK	     4
#define SNAP	     448
#define BLOCK_LEN    (1 << 20)
#define BLOCK_CNT    64
#define BLOCK_MS     5
#define FORGED_RATE  3 /* a millisecond */
#define FORGED_BURST 64
#define SWEEP_MS     20
#define STILL_GAP_US 50
#define UDP_AT	     (14 + 20)
#define PAYLOAD_AT   (UDP_AT + 8)

enum kind { ANOTHER, FORMER, HANDLE, TAG, GENERATION, ENDED, KIND_CNT };

static const char *const kind_names[KIND_CNT] = {"another", "former",	  "handle",
						 "tag",	    "generation", "ended"};

struct packet {
	uint16_t len;
	uint8_t bytes[SNAP];
};

/* Of a port: the number of the newest holding, counted from 1, of which something is known. */
struct seen {
	struct packet own, former;	/* the last two users' here */
	uint32_t ended, ended_hit;	/* was sent its own packet; one arrived */
	uint32_t handed, handed_hit;	/* was sent its former holder's; one arrived */
	uint32_t ended_sum, handed_sum; /* is among the hits */
};

struct watch {
	int capture, forger;
	bool still; /* forges only what it is told to */
	struct sockaddr_in to;
	struct place *places;
	struct seen *seen;
	uint16_t port_first;
	uint32_t port_cnt, next_block;
	uint8_t *ring;
	uint64_t random, sent[KIND_CNT], sweep_ms, budget_ms;
	uint64_t own, foreign_forged, foreign_engine, after_end, after_revocation, captured;
	uint64_t ended, ended_hit, handed, handed_hit;
};

static uint64_t draw(struct watch *w)
{
	return content_mix(w->random += UINT64_C(0x9e3779b97f4a7c15));
}

static const uint8_t *handle_of(const uint8_t *packet)
{
	return packet + FAN_DELIVERY_HANDLE_OFF;
}

static bool same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, FAN_HANDLE_LEN) == 0;
}

/* ---- what arrived ---- */

/* Whose the place was at that moment: the number of the holding + 1, or 0. */
static uint32_t holding_at(struct place *place, uint64_t ns)
{
	uint32_t cnt = atomic_load_explicit(&place->cnt, memory_order_acquire);

	for (uint32_t n = cnt; n > 0 && n + PLACE_HOLDINGS > cnt + 1; n--)
		if (place_holding(place, n - 1)->since_ns <= ns)
			return n;
	return 0;
}

static void tell_foreign(const struct watch *w, uint32_t idx, const uint8_t *packet)
{
	if (w->foreign_engine < 5)
		fprintf(stderr,
			"watch: the engine sent type %02x of %02x%02x%02x%02x.. to port %u, which "
			"another user holds\n",
			packet[1], packet[8], packet[9], packet[10], packet[11],
			w->port_first + idx);
}

static void judge(struct watch *w, uint32_t idx, uint8_t service, uint64_t ns,
		  const uint8_t *packet)
{
	struct place *place = &w->places[idx];
	uint32_t n = holding_at(place, ns);
	struct holding *h;
	uint64_t until_ns;

	if (n == 0)
		return;
	h = place_holding(place, n - 1);
	until_ns = atomic_load_explicit(&h->until_ns, memory_order_acquire);
	if (until_ns && ns >= until_ns) {
		w->after_end++;
		w->after_revocation += h->way == PLACE_REVOKED;
		if (same(handle_of(packet), h->handle))
			w->seen[idx].ended_hit = n;
	} else if (same(handle_of(packet), h->handle)) {
		w->own++;
	} else if (service == MARK) {
		w->foreign_forged++;
		if (w->seen[idx].former.len &&
		    same(handle_of(packet), handle_of(w->seen[idx].former.bytes)))
			w->seen[idx].handed_hit = n;
	} else {
		tell_foreign(w, idx, packet);
		w->foreign_engine++;
	}
}

/* What the engine sent here, for the forger. */
static void keep(struct watch *w, uint32_t idx, const uint8_t *packet, uint16_t len)
{
	struct seen *seen = &w->seen[idx];

	if (packet[1] != FAN_TYPE_DELIVERY || len > SNAP)
		return;
	if (seen->own.len && !same(handle_of(seen->own.bytes), handle_of(packet)))
		seen->former = seen->own;
	seen->own.len = len;
	memcpy(seen->own.bytes, packet, len);
}

static void see(struct watch *w, const struct tpacket3_hdr *header)
{
	const uint8_t *frame = (const uint8_t *)header + header->tp_mac;
	const uint8_t *packet = frame + PAYLOAD_AT;
	uint32_t len = header->tp_snaplen, idx;
	uint64_t ns = (uint64_t)header->tp_sec * 1000000000 + header->tp_nsec;

	if (len < PAYLOAD_AT + FAN_DELIVERY_LEN || frame[14] != 0x45 || frame[23] != IPPROTO_UDP)
		return;
	idx = (uint32_t)(frame[UDP_AT + 2] << 8 | frame[UDP_AT + 3]) - w->port_first;
	if (idx >= w->port_cnt)
		return;
	w->captured++;
	judge(w, idx, frame[15], ns, packet);
	if (frame[15] != MARK && header->tp_len == header->tp_snaplen)
		keep(w, idx, packet, (uint16_t)(len - PAYLOAD_AT));
}

static void read_ring(struct watch *w)
{
	for (unsigned blocks = 0; blocks < BLOCK_CNT; blocks++) {
		struct tpacket_block_desc *block =
			(void *)(w->ring + (size_t)w->next_block * BLOCK_LEN);
		const uint8_t *at = (const uint8_t *)block;

		if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) &
		      TP_STATUS_USER))
			return;
		at += block->hdr.bh1.offset_to_first_pkt;
		for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
			see(w, (const struct tpacket3_hdr *)at);
			at += ((const struct tpacket3_hdr *)at)->tp_next_offset;
		}
		__atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		w->next_block = (w->next_block + 1) % BLOCK_CNT;
	}
}

/* ---- what is forged ---- */

static bool send_to(struct watch *w, uint32_t idx, const uint8_t *packet, size_t len,
		    enum kind kind)
{
	w->to.sin_port = htons((uint16_t)(w->port_first + idx));
	if (sendto(w->forger, packet, len, MSG_DONTWAIT, (struct sockaddr *)&w->to,
		   sizeof(w->to)) != (ssize_t)len)
		return false;
	w->sent[kind]++;
	return true;
}

/* Who holds it now, and accepts what is his; NULL: nobody. */
static const uint8_t *holder_of(struct place *place)
{
	uint32_t cnt = atomic_load_explicit(&place->cnt, memory_order_acquire);
	struct holding *h = place_holding(place, cnt - 1);

	return cnt && !atomic_load_explicit(&h->until_ns, memory_order_acquire) ? h->handle : NULL;
}

static bool is_for(const uint8_t *holder, const struct packet *packet)
{
	return holder && same(holder, handle_of(packet->bytes));
}

static bool forge_altered(struct watch *w, uint32_t idx, enum kind kind)
{
	static const struct {
		unsigned first, len;
	} fields[KIND_CNT] = {[HANDLE] = {8, 16}, [TAG] = {92, 8}, [GENERATION] = {56, 4}};
	struct packet altered = w->seen[idx].own;
	uint64_t drawn = draw(w);

	altered.bytes[fields[kind].first + drawn % fields[kind].len] ^= 1 << (drawn >> 32) % 8;
	return send_to(w, idx, altered.bytes, altered.len, kind);
}

static bool forge(struct watch *w)
{
	uint32_t idx = (uint32_t)(draw(w) % w->port_cnt);
	enum kind kind = draw(w) % ENDED;
	const struct seen *seen = &w->seen[idx];
	const struct packet *packet = &seen->former;
	const uint8_t *holder = holder_of(&w->places[idx]);

	if (!seen->own.len)
		return false;
	if (kind != ANOTHER && kind != FORMER)
		return forge_altered(w, idx, kind);
	if (kind == ANOTHER)
		packet = &w->seen[draw(w) % w->port_cnt].own;
	if (!packet->len || is_for(holder, packet) || is_for(handle_of(seen->own.bytes), packet))
		return false; /* his own, perhaps: no forgery */
	return send_to(w, idx, packet->bytes, packet->len, kind);
}

/* One place's newest holding: what it must have been sent, and whether that has arrived. */
static void visit(struct watch *w, uint32_t idx)
{
	struct place *place = &w->places[idx];
	struct seen *seen = &w->seen[idx];
	uint32_t cnt = atomic_load_explicit(&place->cnt, memory_order_acquire);
	const uint8_t *holder = holder_of(place);

	if (cnt == 0 || !seen->own.len)
		return;
	if (!holder && same(handle_of(seen->own.bytes), place_holding(place, cnt - 1)->handle)) {
		w->ended += seen->ended != cnt;
		seen->ended = cnt;
		if (seen->ended_hit != cnt)
			send_to(w, idx, seen->own.bytes, seen->own.len, ENDED);
	}
	if (holder && same(handle_of(seen->own.bytes), holder) && seen->former.len &&
	    !is_for(holder, &seen->former)) {
		w->handed += seen->handed != cnt;
		seen->handed = cnt;
		if (seen->handed_hit != cnt)
			send_to(w, idx, seen->former.bytes, seen->former.len, FORMER);
	}
}

/* What has arrived of it since the last sweep. */
static void count_hits(struct watch *w)
{
	for (uint32_t idx = 0; idx < w->port_cnt; idx++) {
		struct seen *seen = &w->seen[idx];

		w->ended_hit += seen->ended_hit == seen->ended && seen->ended_sum != seen->ended;
		w->handed_hit +=
			seen->handed_hit == seen->handed && seen->handed_sum != seen->handed;
		if (seen->ended_hit == seen->ended)
			seen->ended_sum = seen->ended;
		if (seen->handed_hit == seen->handed)
			seen->handed_sum = seen->handed;
	}
}

static void sweep(struct watch *w)
{
	if (w->still || now_ms() - w->sweep_ms < SWEEP_MS)
		return;
	w->sweep_ms = now_ms();
	count_hits(w);
	for (uint32_t idx = 0; idx < w->port_cnt; idx++)
		visit(w, idx);
}

static void forge_due(struct watch *w)
{
	uint64_t due = (now_ms() - w->budget_ms) * FORGED_RATE;

	w->budget_ms = now_ms();
	for (uint64_t i = 0; !w->still && i < due && i < FORGED_BURST; i++)
		forge(w);
}

/* ---- the whole ---- */

static void still(struct watch *w, uint64_t wanted)
{
	uint64_t sent = 0;

	w->still = true;
	for (uint64_t tries = 0; sent < wanted && tries < 100 * wanted; tries++) {
		if (!forge(w))
			continue;
		sent++;
		usleep(STILL_GAP_US);
		read_ring(w);
	}
	printf("%lu\n", sent);
	fflush(stdout);
}

/* False at the end of standard input. */
static bool obey(struct watch *w, const struct pollfd *input)
{
	char line[64];

	if (!(input->revents & (POLLIN | POLLHUP)))
		return true;
	if (!fgets(line, sizeof(line), stdin))
		return false;
	if (strncmp(line, "still ", 6) == 0)
		still(w, strtoull(line + 6, NULL, 0));
	return true;
}

static int open_ring(struct watch *w, const char *interface)
{
	struct tpacket_req3 ring = {.tp_block_size = BLOCK_LEN,
				    .tp_block_nr = BLOCK_CNT,
				    .tp_frame_size = 2048,
				    .tp_frame_nr = BLOCK_CNT * (BLOCK_LEN / 2048),
				    .tp_retire_blk_tov = BLOCK_MS};
	struct sock_filter snap = BPF_STMT(BPF_RET | BPF_K, PAYLOAD_AT + SNAP);
	struct sock_fprog filter = {.len = 1, .filter = &snap};
	struct sockaddr_ll here = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
	struct ifreq name = {0};
	int version = TPACKET_V3;

	snprintf(name.ifr_name, sizeof(name.ifr_name), "%s", interface);
	if (ioctl(w->capture, SIOCGIFINDEX, &name) < 0 ||
	    setsockopt(w->capture, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
	    setsockopt(w->capture, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ||
	    setsockopt(w->capture, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)) < 0)
		return -1;
	here.sll_ifindex = name.ifr_ifindex;
	w->ring = mmap(NULL, (size_t)BLOCK_LEN * BLOCK_CNT, PROT_READ | PROT_WRITE, MAP_SHARED,
		       w->capture, 0);
	return w->ring == MAP_FAILED || bind(w->capture, (struct sockaddr *)&here, sizeof(here)) < 0
		       ? -1
		       : 0;
}

static void report(struct watch *w)
{
	struct tpacket_stats_v3 stats = {0};
	socklen_t len = sizeof(stats);

	getsockopt(w->capture, SOL_PACKET, PACKET_STATISTICS, &stats, &len);
	printf("{\"captured\":%lu,\"overlooked\":%u,\"own\":%lu,\"foreign_forged\":%lu,"
	       "\"foreign_engine\":%lu,\"after_end\":%lu,\"after_revocation\":%lu,\"ended\":%lu,"
	       "\"ended_hit\":%lu,\"handed\":%lu,\"handed_hit\":%lu,\"forged\":{",
	       w->captured, stats.tp_drops, w->own, w->foreign_forged, w->foreign_engine,
	       w->after_end, w->after_revocation, w->ended, w->ended_hit, w->handed, w->handed_hit);
	for (unsigned i = 0; i < KIND_CNT; i++)
		printf("%s\"%s\":%lu", i ? "," : "", kind_names[i], w->sent[i]);
	puts("}}");
}

static void run(struct watch *w)
{
	struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.fd = w->capture, .events = POLLIN}};

	setvbuf(stdin, NULL, _IONBF, 0);
	w->budget_ms = now_ms();
	do {
		poll(fds, 2, 5);
		read_ring(w);
		sweep(w);
		forge_due(w);
	} while (obey(w, &fds[0]));
	usleep(100000);
	read_ring(w);
	count_hits(w);
	report(w);
}

int main(int argc, char **argv)
{
	struct watch w = {.to = {.sin_family = AF_INET}};

	if (argc != 9) {
		fputs("usage: watch CAPTURE_FD FORGER_FD INTERFACE ADDRESS PLACES PORT_FIRST "
		      "PORT_CNT SEED\n",
		      stderr);
		return 1;
	}
	w.capture = atoi(argv[1]);
	w.forger = atoi(argv[2]);
	inet_pton(AF_INET, argv[4], &w.to.sin_addr);
	w.port_first = (uint16_t)atoi(argv[6]);
	w.port_cnt = (uint32_t)atoi(argv[7]);
	w.places = places_map(argv[5], w.port_cnt);
	w.seen = calloc(w.port_cnt, sizeof(*w.seen));
	w.random = strtoull(argv[8], NULL, 0);
	if (!w.places || !w.seen || open_ring(&w, argv[3]) != 0) {
		perror("watch");
		return 2;
	}
	run(&w);
	return 0;
}
