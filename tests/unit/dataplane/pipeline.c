/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/dataplane/pipeline.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_lcore.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire/handle.h"
#include "dataplane/plane.h"
#include "dataplane/port.h"
#include "dataplane/regions.h"

#define RING_CNT 8192
#define POOL_CNT 12287

const uint8_t engine4[16] = {[10] = 0xff, 0xff, 198, 18, 0, 1};
const uint8_t receiver4[16] = {[10] = 0xff, 0xff, 198, 18, 0, 2};
const uint8_t engine6[16] = {0xfd, 0, 0, 0xf1, [15] = 1};
const uint8_t receiver6[16] = {0xfd, 0, 0, 0xf1, [15] = 2};

const char *pipeline_pool_ops = "ring_mp_mc";

/* ---- start and stop ---- */

static void eal(void)
{
	char prefix[64], lcores[64], pool[64], *argv[] = {"test",
							  "--no-huge",
							  "--no-pci",
							  "--no-shconf",
							  "--log-level=warning",
							  "-m",
							  "96",
							  "--main-lcore=0",
							  "--iova-mode=va",
							  lcores,
							  pool,
							  prefix};
	long last = sysconf(_SC_NPROCESSORS_ONLN) - 1;

	snprintf(prefix, sizeof(prefix), "--file-prefix=fanwire-test-%d", getpid());
	snprintf(pool, sizeof(pool), "--mbuf-pool-ops-name=%s", pipeline_pool_ops);
	snprintf(lcores, sizeof(lcores), "--lcores=0@0,1@0,2@%ld", last);
	cr_assert_geq(rte_eal_init(RTE_DIM(argv), argv), 0);
	cr_assert_geq(sodium_init(), 0);
	fan_log_init("test", "error");
}

static void config(struct fan_config *config, const char *dir, unsigned workers)
{
	snprintf(config->region_dir, sizeof(config->region_dir), "%s", dir);
	config->engine_port = TEST_ENGINE_PORT;
	config->engine_address_cnt = 2;
	memcpy(config->engine_address[0].bytes, engine4, 16);
	config->engine_address[0].family = 4;
	memcpy(config->engine_address[1].bytes, engine6, 16);
	config->engine_address[1].family = 6;
	config->payload_limit = FAN_PAYLOAD_DEFAULT;
	config->burst = 64;
	config->idle_sleep_us = 50;
	config->core_cnt = workers;
	config->seal_schedules = 256;
	config->log_mb = 1;
}

static bool never(void)
{
	return false;
}

static void regions(struct pipeline *p)
{
	cr_assert_eq(regions_open_registry(&p->plane, 1, never), 0);
	cr_assert_eq(regions_open_state(&p->plane), 0);
}

static void sessions(struct pipeline *p)
{
	uint64_t epoch = p->plane.state->header.creation_epoch;

	for (uint32_t slot = 0; slot < 4; slot++)
		region_add_session(&p->regions, slot, epoch, slot < 2 ? receiver4 : receiver6,
				   (uint16_t)(TEST_PUBLISHER_PORT + slot), slot < 2 ? 4 : 6,
				   slot < 2 ? 0 : 1);
}

static void ports(struct pipeline *p, unsigned workers)
{
	char name[32];

	for (unsigned i = 0; i < workers; i++) {
		snprintf(name, sizeof(name), "rx%u", i);
		p->rx[i] = rte_ring_create(name, RING_CNT, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
		snprintf(name, sizeof(name), "tx%u", i);
		p->tx[i] = rte_ring_create(name, RING_CNT, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	}
	cr_assert_geq(rte_eth_from_rings("test", p->rx, workers, p->tx, workers, 0), 0);
	cr_assert_eq(port_make_pool(&p->plane, POOL_CNT), 0);
	cr_assert_eq(port_start(&p->plane), 0);
}

void pipeline_open(struct pipeline *p, unsigned workers)
{
	memset(p, 0, sizeof(*p));
	eal();
	snprintf(p->dir, sizeof(p->dir), "/dev/shm/fanwire-test-XXXXXX");
	cr_assert_not_null(mkdtemp(p->dir));
	config(&p->plane.config, p->dir, workers);
	region_fixture_init(&p->regions, p->dir);
	region_add_nexthop(&p->regions, 0, 4, engine4, 1500);
	region_add_nexthop(&p->regions, 1, 6, engine6, 1500);
	p->plane.worker_cnt = workers;
	regions(p);
	sessions(p);
	ports(p, workers);
	cr_assert_eq(plane_init(&p->plane), 0);
}

void pipeline_open_on(struct pipeline *p, const char *dir, unsigned workers)
{
	memset(p, 0, sizeof(*p));
	eal();
	config(&p->plane.config, dir, workers);
	p->plane.worker_cnt = workers;
	regions(p);
	ports(p, workers);
	cr_assert_eq(plane_init(&p->plane), 0);
}

void pipeline_kill(struct pipeline *p)
{
	plane_fini(&p->plane);
	regions_close(&p->plane);
}

void pipeline_start(struct pipeline *p)
{
	p->plane.worker_cnt = p->plane.config.core_cnt;
	regions(p);
	cr_assert_eq(plane_init(&p->plane), 0);
}

void pipeline_restart(struct pipeline *p)
{
	pipeline_kill(p);
	pipeline_start(p);
}

void pipeline_restart_anew(struct pipeline *p)
{
	pipeline_restart(p);
	for (unsigned slot = 0; slot < 4; slot++)
		p->regions.sessions[slot].state_epoch = p->plane.state->header.creation_epoch;
}

/* Called while a test is torn down, where Criterion prints a failed assertion and passes the test.
 */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

/* EAL leaves its directory behind, and removes the socket in it only at exit. */
static void runtime_dir_remove(void)
{
	char dir[128], path[160];

	snprintf(dir, sizeof(dir), "%s", rte_eal_get_runtime_dir());
	snprintf(path, sizeof(path), "%s/dpdk_telemetry.v2", dir);
	rte_eal_cleanup();
	unlink(path);
	must(rmdir(dir) == 0, "EAL's directory is not empty");
}

void pipeline_close(struct pipeline *p)
{
	char path[128];

	if (p->launched)
		plane_drain(&p->plane);
	take_all(p);
	plane_fini(&p->plane);
	port_stop(&p->plane);
	must(rte_mempool_in_use_count(p->plane.pool) == 0, "packet buffers leaked");
	must(rte_mempool_in_use_count(p->plane.tx_pool) == 0, "frames leaked");
	regions_close(&p->plane);
	snprintf(path, sizeof(path), "%s/%s", p->dir, FAN_STATE_FILE);
	unlink(path);
	region_fixture_fini(&p->regions);
	must(rmdir(p->dir) == 0, "the region directory is not empty");
	runtime_dir_remove();
}

uint64_t pipeline_session(uint32_t slot)
{
	return (UINT64_C(0xabcdef) << 32) | slot;
}

/* ---- making frames ---- */

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

uint16_t datagram_make(uint8_t frame[2048], uint8_t family, uint16_t source_port,
		       const uint8_t *wire, uint16_t wire_len)
{
	unsigned ip = 14, udp = family == 4 ? 34 : 54;

	memset(frame, 0, udp);
	put16(frame + 12, family == 4 ? 0x0800 : 0x86dd);
	if (family == 4) {
		frame[ip] = 0x45;
		put16(frame + ip + 2, 28u + wire_len);
		frame[ip + 8] = 64;
		frame[ip + 9] = 17;
		memcpy(frame + ip + 12, receiver4 + 12, 4);
		memcpy(frame + ip + 16, engine4 + 12, 4);
	} else {
		frame[ip] = 0x60;
		put16(frame + ip + 4, 8u + wire_len);
		frame[ip + 6] = 17;
		frame[ip + 7] = 64;
		memcpy(frame + ip + 8, receiver6, 16);
		memcpy(frame + ip + 24, engine6, 16);
	}
	put16(frame + udp, source_port);
	put16(frame + udp + 2, TEST_ENGINE_PORT);
	put16(frame + udp + 4, 8u + wire_len);
	put16(frame + udp + 6, 0xbad); /* partial over veth: not judged */
	memcpy(frame + udp + 8, wire, wire_len);
	return (uint16_t)(udp + 8 + wire_len);
}

static void nonce_make(uint8_t nonce[12], uint32_t direction, uint64_t cnt)
{
	for (int i = 0; i < 4; i++)
		nonce[i] = (uint8_t)(direction >> (24 - 8 * i));
	for (int i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(cnt >> (56 - 8 * i));
}

/* AES-256-GCM by OpenSSL under the key of a session slot, in place; the tag stands behind. */
static bool gcm(bool seal, uint32_t slot, uint32_t direction, uint64_t cnt, const uint8_t *aad,
		int aad_len, uint8_t *text, int len)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t key[32], nonce[12];
	int done, ok = 1;

	memset(key, (int)slot + 1, sizeof(key));
	nonce_make(nonce, direction, cnt);
	ok &= EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce, seal);
	if (!seal)
		ok &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, 16, text + len);
	ok &= EVP_CipherUpdate(context, NULL, &done, aad, aad_len);
	ok &= EVP_CipherUpdate(context, text, &done, text, len);
	ok &= EVP_CipherFinal_ex(context, text + done, &done);
	if (seal)
		ok &= EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, 16, text + len);
	EVP_CIPHER_CTX_free(context);
	return ok == 1;
}

uint16_t publish_make(uint8_t frame[2048], const struct publish_spec *spec)
{
	const char *user = spec->user ? spec->user : "alice";
	uint16_t port = spec->source_port ? spec->source_port
					  : (uint16_t)(TEST_PUBLISHER_PORT + spec->slot);
	struct fan_publish header = {
		.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
		.payload_len = spec->payload_len,
		.kind = spec->kind,
		.session = spec->session ? spec->session : pipeline_session(spec->slot),
		.publisher_sequence = spec->sequence,
		.channel = spec->channel,
	};
	uint8_t wire[2048];

	fan_handle(header.handle, user, strlen(user));
	fan_publish_encode(wire, &header);
	if (spec->payload)
		memcpy(wire + FAN_PUBLISH_LEN, spec->payload, spec->payload_len);
	else
		memset(wire + FAN_PUBLISH_LEN, 'x', spec->payload_len);
	cr_assert(gcm(true, spec->slot, 1, spec->sequence, wire, FAN_PUBLISH_LEN,
		      wire + FAN_PUBLISH_LEN, spec->payload_len));
	return datagram_make(frame, spec->slot < 2 ? 4 : 6, port, wire,
			     (uint16_t)(FAN_PUBLISH_LEN + spec->payload_len + FAN_TAG_LEN));
}

static struct rte_mbuf *mbuf_of(struct pipeline *p, const uint8_t *frame, uint16_t len)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(p->plane.pool);

	cr_assert_not_null(mbuf);
	memcpy(rte_pktmbuf_append(mbuf, len), frame, len);
	return mbuf;
}

/* ---- in ---- */

/* And what goes on in later bursts, where a group has more than its share. */
static void burst_whole(struct worker *w, struct rte_mbuf **mbufs, unsigned cnt)
{
	worker_burst(w, mbufs, cnt);
	while (w->flow_cnt)
		worker_burst(w, NULL, 0);
}

void feed(struct pipeline *p, const uint8_t *frame, uint16_t len)
{
	struct rte_mbuf *mbuf = mbuf_of(p, frame, len);

	if (p->launched)
		cr_assert_eq(rte_ring_enqueue(p->rx[0], mbuf), 0);
	else
		burst_whole(p->plane.workers[0], &mbuf, 1);
}

void publish(struct pipeline *p, const struct publish_spec *spec)
{
	publish_many(p, spec, 1);
}

void publish_many(struct pipeline *p, const struct publish_spec *specs, unsigned cnt)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	uint8_t frame[2048];

	cr_assert_leq(cnt, BURST_MAX);
	for (unsigned i = 0; i < cnt; i++)
		mbufs[i] = mbuf_of(p, frame, publish_make(frame, &specs[i]));
	if (p->launched)
		cr_assert_eq(rte_ring_enqueue_bulk(p->rx[0], (void **)mbufs, cnt, NULL), cnt);
	else
		burst_whole(p->plane.workers[0], mbufs, cnt);
}

void publish_burst(struct pipeline *p, const struct publish_spec *specs, unsigned cnt)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	uint8_t frame[2048];

	cr_assert_leq(cnt, BURST_MAX);
	for (unsigned i = 0; i < cnt; i++)
		mbufs[i] = mbuf_of(p, frame, publish_make(frame, &specs[i]));
	worker_burst(p->plane.workers[0], mbufs, cnt);
}

/* ---- out ---- */

static uint32_t sum_bytes(uint32_t sum, const uint8_t *bytes, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		sum += (uint32_t)bytes[i] << (i % 2 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

void frame_check(struct frame *f)
{
	const uint8_t *ip = f->bytes + 14, *udp;
	unsigned address_len, room;

	f->family = get16(f->bytes + 12) == 0x0800 ? 4 : 6;
	address_len = f->family == 4 ? 4 : 16;
	udp = ip + (f->family == 4 ? 20 : 40);
	room = (unsigned)(f->bytes + f->len - udp);
	memcpy(f->source, engine4, 12);
	memcpy(f->target, engine4, 12);
	memcpy(f->source + 16 - address_len, ip + (f->family == 4 ? 12 : 8), address_len);
	memcpy(f->target + 16 - address_len, ip + (f->family == 4 ? 16 : 24), address_len);
	if (f->family == 4) {
		cr_expect_eq(ip[0], 0x45);
		cr_expect_eq(ip[9], 17);
		cr_expect_eq(get16(ip + 2), 20 + room);
		cr_expect_eq(sum_bytes(0, ip, 20), 0xffff, "IPv4 header checksum");
	} else {
		cr_expect_eq(ip[0], 0x60);
		cr_expect_eq(ip[6], 17);
		cr_expect_eq(get16(ip + 4), room);
	}
	f->source_port = (uint16_t)get16(udp);
	f->target_port = (uint16_t)get16(udp + 2);
	cr_expect_eq(get16(udp + 4), room);
	cr_expect_neq(get16(udp + 6), 0, "a UDP checksum is always there");
	cr_expect_eq(
		sum_bytes(sum_bytes(17 + room, ip + (f->family == 4 ? 12 : 8), 2 * address_len),
			  udp, room),
		0xffff, "UDP checksum");
	f->wire = udp + 8;
	f->wire_len = (uint16_t)(room - 8);
}

bool take(struct pipeline *p, struct frame *frame)
{
	struct rte_mbuf *mbuf = NULL;

	for (unsigned i = 0; i < p->plane.worker_cnt && !mbuf; i++)
		if (rte_ring_dequeue(p->tx[i], (void **)&mbuf))
			mbuf = NULL;
	if (!mbuf)
		return false;
	frame->len = mbuf->data_len;
	cr_assert_leq(frame->len, sizeof(frame->bytes));
	cr_expect_eq(mbuf->pkt_len, mbuf->data_len);
	memcpy(frame->bytes, rte_pktmbuf_mtod(mbuf, void *), frame->len);
	rte_pktmbuf_free(mbuf);
	frame_check(frame);
	return true;
}

unsigned take_all(struct pipeline *p)
{
	struct frame frame;
	unsigned cnt = 0;

	while (take(p, &frame))
		cnt++;
	return cnt;
}

unsigned ack_open(const struct frame *frame, uint32_t slot, uint64_t *cumulative,
		  struct fan_result results[FAN_ACK_RESULT_MAX])
{
	uint8_t body[2048];
	struct fan_ack ack;
	int len = frame->wire_len - FAN_ACK_LEN - FAN_TAG_LEN;

	cr_assert_eq(fan_ack_decode(frame->wire, frame->wire_len, &ack), FAN_WIRE_OK);
	cr_assert_eq(ack.session, pipeline_session(slot));
	cr_assert_eq(len, 8 + ack.count * FAN_ACK_RESULT_LEN);
	memcpy(body, frame->wire + FAN_ACK_LEN, (size_t)len + FAN_TAG_LEN);
	cr_assert(gcm(false, slot, 2, ack.counter, frame->wire, FAN_ACK_LEN, body, len),
		  "acknowledgement is sealed under another key or nonce");
	*cumulative = 0;
	for (int i = 0; i < 8; i++)
		*cumulative = *cumulative << 8 | body[i];
	for (unsigned i = 0; i < ack.count; i++)
		fan_result_decode(body, i, &results[i]);
	return ack.count;
}

uint64_t counter(const struct pipeline *p, enum fan_counter idx)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < p->plane.worker_cnt; i++)
		sum += __atomic_load_n(&p->plane.worker_states[i].counters[idx], __ATOMIC_RELAXED) +
		       (p->launched ? 0 : p->plane.workers[i]->counters[idx]);
	return sum;
}
