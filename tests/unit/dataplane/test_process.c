/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The program itself, as it is installed: a process on a port that needs no interface, and regions
 * that the test writes in fanwired's place. memif connects it with the test; pcap replays a
 * capture.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "dataplane/regions.h"
#include "tests/unit/dataplane/pipeline.h"

#define USERS	   20
#define EVENTS	   100 /* of each user */
#define WAIT_MS	   20000
#define SECOND_NS  UINT64_C(1000000000)
#define FIRST_PORT 25500

static char dir[64], names[USERS][16];
static struct region_fixture regions;
static struct plane plane; /* the state region, to look at */
static pid_t child;
static cpu_set_t cores_allowed; /* before an EAL of our own pins us */

/* ---- regions, configuration, process ---- */

static bool never(void)
{
	return false;
}

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void heartbeat(uint64_t age_ns)
{
	__atomic_store_n(&regions.root->heartbeat_ns, monotonic_ns() - age_ns, __ATOMIC_RELAXED);
}

/* The state region is made here, so that sessions of it can be there before the process is. */
static void state_make(void)
{
	struct plane maker = {.worker_cnt = 1};
	uint64_t epoch;
	char path[128];

	snprintf(maker.config.region_dir, sizeof(maker.config.region_dir), "%s", dir);
	cr_assert_eq(regions_open_registry(&maker, 1, never), 0);
	cr_assert_eq(regions_open_state(&maker), 0);
	epoch = maker.state->header.creation_epoch;
	regions_close(&maker);
	for (uint32_t slot = 0; slot < 2; slot++)
		region_add_session(&regions, slot, epoch, receiver4,
				   (uint16_t)(TEST_PUBLISHER_PORT + slot), 4, 0);
	snprintf(path, sizeof(path), "%s/%s", dir, FAN_STATE_FILE);
	cr_assert_eq(fan_region_open_reader(&plane.state_region, path, FAN_REGION_MAGIC_STATE,
					    sizeof(struct fan_state), NULL),
		     0);
	plane.state = plane.state_region.base;
	plane.worker_states = (void *)((char *)plane.state + plane.state->workers_off);
}

static void open_one(void)
{
	snprintf(dir, sizeof(dir), "/dev/shm/fanwire-test-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(sched_getaffinity(0, sizeof(cores_allowed), &cores_allowed), 0);
	cr_assert_geq(sodium_init(), 0);
	fan_log_init("test", "error");
	region_fixture_init(&regions, dir);
	region_add_nexthop(&regions, 0, 4, engine4, 1500);
	for (unsigned i = 0; i < USERS; i++) {
		snprintf(names[i], sizeof(names[i]), "user-%u", i);
		region_add_group(&regions, names[i], 0, 2, 4, 0, (uint16_t)(FIRST_PORT + 2 * i));
	}
	heartbeat(0);
	state_make();
}

static int entry_remove(const char *path, const struct stat *status, int type, struct FTW *at)
{
	return remove(path);
}

static void close_one(void)
{
	char runtime[128];

	if (child) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	fan_region_close(&plane.state_region);
	region_fixture_fini(&regions);
	nftw(dir, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
	for (unsigned i = 0; i < 2; i++) { /* EAL leaves them behind */
		snprintf(runtime, sizeof(runtime), "/var/run/dpdk/fanwire-unit-%d%s", getpid(),
			 i ? "-peer" : "");
		nftw(runtime, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
	}
}

TestSuite(process, .init = open_one, .fini = close_one, .timeout = 60);

static void config_write(const char *path, const char *port, const char *cores)
{
	FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	fprintf(file,
		"instance: { name = \"unit-%d\"; run_dir = \"%s\"; region_dir = \"%s\"; "
		"state_dir = \"%s\"; };\n"
		"network: { engine_addresses = [ \"198.18.0.1\", \"fd00:f1::1\" ]; "
		"engine_port = %d; interface = \"\"; static_mac = \"02:00:00:00:00:02\"; "
		"receiver_addresses = [ \"198.18.0.2\" ]; port_first = 25500; port_last = 25599; "
		"};\n"
		"dataplane: { port = \"%s\"; cores = %s; huge_pages = false; mbuf_cnt = 8192; "
		"telemetry = false; };\n",
		getpid(), dir, dir, dir, TEST_ENGINE_PORT, port, cores);
	fclose(file);
}

static void start(const char *port, const char *cores)
{
	char config[96], log[96];

	snprintf(config, sizeof(config), "%s/conf", dir);
	snprintf(log, sizeof(log), "%s/log", dir);
	config_write(config, port, cores);
	child = fork();
	if (child)
		return;
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	sched_setaffinity(0, sizeof(cores_allowed), &cores_allowed);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execl(DATAPLANE, "fanwire-dataplane", "--config", config, NULL);
	_exit(127);
}

/* Its exit status after SIGTERM; -1 where a signal ended it. */
static int stop(void)
{
	int status;

	kill(child, SIGTERM);
	cr_assert_eq(waitpid(child, &status, 0), child);
	child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool logged(const char *text)
{
	char path[96], all[8192];
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "%s/log", dir);
	file = fopen(path, "r");
	if (!file)
		return false;
	len = fread(all, 1, sizeof(all) - 1, file);
	fclose(file);
	all[len] = '\0';
	return strstr(all, text) != NULL;
}

static bool logged_soon(const char *text)
{
	for (unsigned ms = 0; ms < WAIT_MS; ms += 10) {
		if (logged(text))
			return true;
		usleep(10000);
	}
	return false;
}

static uint64_t told(unsigned worker, enum fan_counter idx)
{
	return __atomic_load_n(&plane.worker_states[worker].counters[idx], __ATOMIC_RELAXED);
}

/* ---- what comes out ---- */

static struct seen {
	uint64_t next[USERS][2], acked[2];
	unsigned copies;
} seen;

static void see(struct frame *frame)
{
	struct fan_result results[FAN_ACK_RESULT_MAX];
	struct fan_delivery d;
	uint64_t cumulative;
	uint32_t slot;

	frame_check(frame);
	if (frame->wire[1] == FAN_TYPE_DELIVERY) {
		unsigned endpoint = frame->target_port - (unsigned)FIRST_PORT;

		cr_assert_lt(endpoint, 2 * USERS);
		cr_assert_eq(fan_delivery_decode(frame->wire, frame->wire_len, &d), FAN_WIRE_OK);
		cr_expect_eq(memcmp(d.handle, regions.groups[endpoint / 2].handle, 16), 0);
		cr_expect_eq(d.sequence, ++seen.next[endpoint / 2][endpoint % 2], "out of order");
		seen.copies++;
		return;
	}
	slot = frame->wire[15];
	cr_assert_lt(slot, 2);
	for (unsigned i = ack_open(frame, slot, &cumulative, results); i-- > 0;
	     seen.acked[slot]++) {
		cr_expect_eq(results[i].status, FAN_RESULT_OK);
		cr_expect_eq(results[i].sent, 2);
	}
}

/* ---- pcap ---- */

static void pcap_write(const char *path)
{
	static const uint32_t header[6] = {0xa1b2c3d4, 4u << 16 | 2, 0, 0, 65535, 1};
	FILE *file = fopen(path, "w");
	uint8_t frame[2048];

	cr_assert_not_null(file);
	fwrite(header, sizeof(header), 1, file);
	for (unsigned i = 0; i < USERS * EVENTS; i++) {
		uint16_t len = publish_make(
			frame, &(struct publish_spec){.sequence = i + 1,
						      .user = names[i % USERS],
						      .payload_len = (uint16_t)(i % 1000)});
		uint32_t record[4] = {i, 0, len, len};

		fwrite(record, sizeof(record), 1, file);
		fwrite(frame, len, 1, file);
	}
	cr_assert_eq(fclose(file), 0);
}

static void pcap_read(const char *path)
{
	FILE *file = fopen(path, "r");
	uint32_t record[4];
	struct frame frame;

	cr_assert_not_null(file);
	cr_assert_eq(fseek(file, 24, SEEK_SET), 0);
	while (fread(record, sizeof(record), 1, file) == 1) {
		cr_assert_leq(record[2], sizeof(frame.bytes));
		frame.len = (uint16_t)record[2];
		cr_assert_eq(fread(frame.bytes, frame.len, 1, file), 1);
		see(&frame);
	}
	fclose(file);
}

/* A capture goes in, and what the dataplane makes of it is a capture again. */
Test(process, replays_a_capture)
{
	char in[96], out[96], port[256];

	snprintf(in, sizeof(in), "%s/in.pcap", dir);
	snprintf(out, sizeof(out), "%s/out.pcap", dir);
	snprintf(port, sizeof(port), "net_pcap0,rx_pcap=%s,tx_pcap=%s", in, out);
	pcap_write(in);
	start(port, "[ 0 ]");
	for (unsigned ms = 0;
	     ms < WAIT_MS && told(0, FAN_COUNTER_publishes_accepted) < USERS * EVENTS; ms++)
		usleep(1000);
	cr_expect_eq(stop(), 0);
	pcap_read(out);
	cr_expect_eq(seen.copies, 2 * USERS * EVENTS);
	cr_expect_eq(seen.acked[0], USERS * EVENTS);
	cr_expect_eq(plane.state->run, 2);
}

/* ---- memif ---- */

static struct rte_mempool *pool;

/* The other end of the memif: this process. */
static void memif_open(const char *socket)
{
	char prefix[64], vdev[160], *argv[] = {"test",
					       "--no-huge",
					       "--no-pci",
					       "--no-telemetry",
					       "--log-level=warning",
					       "-m",
					       "96",
					       "--lcores=0@0",
					       "--no-shconf",
					       prefix,
					       vdev};
	struct rte_eth_conf conf = {0};

	snprintf(prefix, sizeof(prefix), "--file-prefix=fanwire-unit-%d-peer", getpid());
	snprintf(vdev, sizeof(vdev), "--vdev=net_memif0,role=server,socket-abstract=no,socket=%s",
		 socket);
	cr_assert_geq(rte_eal_init(RTE_DIM(argv), argv), 0);
	pool = rte_pktmbuf_pool_create("peer", 8191, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	cr_assert_not_null(pool);
	cr_assert_eq(rte_eth_dev_configure(0, 2, 2, &conf), 0);
	for (uint16_t i = 0; i < 2; i++) {
		cr_assert_eq(rte_eth_rx_queue_setup(0, i, 1024, 0, NULL, pool), 0);
		cr_assert_eq(rte_eth_tx_queue_setup(0, i, 1024, 0, NULL), 0);
	}
	cr_assert_eq(rte_eth_dev_start(0), 0);
}

static bool memif_is_up(void)
{
	struct rte_eth_link link = {0};

	for (unsigned ms = 0; ms < WAIT_MS; ms++) {
		if (rte_eth_link_get_nowait(0, &link) == 0 && link.link_status)
			return true;
		usleep(1000);
	}
	return false;
}

static void memif_send(uint16_t queue, const struct publish_spec *spec)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(pool);
	uint8_t bytes[2048];
	uint16_t len = publish_make(bytes, spec);

	cr_assert_not_null(mbuf);
	memcpy(rte_pktmbuf_append(mbuf, len), bytes, len);
	while (rte_eth_tx_burst(0, queue, &mbuf, 1) == 0)
		usleep(10);
}

/* Which queue each came from. */
static unsigned memif_receive(unsigned from[2])
{
	struct rte_mbuf *mbufs[64];
	struct frame frame;
	unsigned cnt = 0;

	for (uint16_t queue = 0; queue < 2; queue++) {
		uint16_t got = rte_eth_rx_burst(0, queue, mbufs, 64);

		for (uint16_t i = 0; i < got; i++) {
			frame.len = mbufs[i]->data_len;
			memcpy(frame.bytes, rte_pktmbuf_mtod(mbufs[i], void *), frame.len);
			see(&frame);
		}
		rte_pktmbuf_free_bulk(mbufs, got);
		from[queue] += got;
		cnt += got;
	}
	return cnt;
}

/* Two queues, two workers, and each owns groups and a session; all publishes come in at the other.
 */
Test(process, two_workers_own_groups_over_memif)
{
	char socket[96], port[256];
	unsigned from[2] = {0}, expected = 2 * USERS * EVENTS;

	snprintf(socket, sizeof(socket), "%s/memif", dir);
	snprintf(port, sizeof(port), "net_memif0,role=client,socket-abstract=no,socket=%s", socket);
	memif_open(socket);
	start(port, "[ 0, 1 ]");
	cr_assert(memif_is_up());
	cr_assert(logged_soon("ready"));
	for (unsigned event = 0; event < EVENTS; event++) {
		for (unsigned i = 0; i < USERS; i++)
			memif_send((event + 1) % 2,
				   &(struct publish_spec){.slot = event % 2,
							  .sequence = event / 2 * USERS + i + 1,
							  .user = names[i],
							  .payload_len = 300});
		/* one session's event after the other's, so that each user's order is known */
		for (unsigned ms = 0; ms < WAIT_MS && seen.next[USERS - 1][1] <= event; ms++)
			if (memif_receive(from) == 0)
				usleep(100);
	}
	for (unsigned ms = 0; ms < WAIT_MS && (seen.copies < expected ||
					       seen.acked[0] + seen.acked[1] < USERS * EVENTS);
	     ms++)
		if (memif_receive(from) == 0)
			usleep(1000);
	cr_expect_eq(seen.copies, expected, "%u copies", seen.copies);
	cr_expect_eq(seen.acked[0], USERS * EVENTS / 2);
	cr_expect_eq(seen.acked[1], USERS * EVENTS / 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_expect_gt(from[i], 0, "nothing came from queue %u", i);
		cr_expect_gt(told(i, FAN_COUNTER_copies_sent), 0);
		cr_expect_gt(told(i, FAN_COUNTER_handovers), 0);
		cr_expect_eq(told(i, FAN_COUNTER_publishes_accepted), USERS * EVENTS / 2);
	}
	cr_expect_eq(stop(), 0);
	rte_eth_dev_stop(0);
	rte_eth_dev_close(0);
	rte_eal_cleanup();
}

/* ---- fanwired's absence ---- */

Test(process, tells_that_fanwired_is_away)
{
	heartbeat(8 * SECOND_NS);
	start("net_null0,no-rx=1", "[ 0 ]");
	cr_assert(logged_soon("ready"));
	usleep(1200000);
	cr_expect_not(logged("away"), "ten seconds are not over");
	cr_assert(logged_soon("fanwired has been away for more than 10 s"));
	cr_expect_gt(monotonic_ns(), regions.root->heartbeat_ns + 10 * SECOND_NS);
	heartbeat(0);
	cr_expect(logged_soon("fanwired is back"));
	cr_expect_eq(stop(), 0);
}

Test(process, leaves_with_a_status_of_its_own_when_the_registry_is_made_anew)
{
	int status;

	start("net_null0,no-rx=1", "[ 0 ]");
	cr_assert(logged_soon("ready"));
	region_fixture_fini(&regions);
	region_fixture_init(&regions, dir);
	cr_assert_eq(waitpid(child, &status, 0), child);
	child = 0;
	cr_assert(WIFEXITED(status));
	cr_expect_eq(WEXITSTATUS(status), 3);
}
