// SPDX-License-Identifier: BSD-3-Clause
#include "bench/filter_host.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "common/wire/handle.h"
#include "common/wire/wire.h"
#include "control/agent/scope/pins.h"
#include "control/agent/scope/scoped_socket.h"

#define ENGINE	     "198.18.0.1"
#define RECEIVER     "198.18.0.2"
#define ENGINE_PORT  7400
#define HOST_DIR     "/mnt" /* a tmpfs of this process's own stands there */
#define ENGINE_MAC   "02:fa:00:00:00:01"
#define RECEIVER_MAC "02:fa:00:00:00:02"
#define WAIT_MS	     10

static const uint8_t master[FAN_KEY_LEN] = "a master key of 32 bytes, known";

static int fail(char why[256], int result, const char *what)
{
	snprintf(why, 256, "cannot %s: %s", what, strerror(-result));
	return result;
}

static int command(const char *text, char why[256])
{
	if (system(text) == 0)
		return 0;
	snprintf(why, 256, "a command failed: %.200s", text);
	return -EIO;
}

/* The process ends up in the receivers' namespace; *engine_ns is where the sender belongs. */
static int namespaces_make(const struct filter_host *host, int *engine_ns, char why[256])
{
	char text[512];
	int receiver_ns;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", HOST_DIR, "tmpfs", 0, NULL))
		return fail(why, -errno, "make namespaces (it must run as root)");
	receiver_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (host->loopback) {
		*engine_ns = receiver_ns;
		return command("ip link set lo up && ip addr add " ENGINE "/32 dev lo && "
			       "ip addr add " RECEIVER "/32 dev lo",
			       why);
	}
	if (receiver_ns < 0 || unshare(CLONE_NEWNET))
		return fail(why, -errno, "make a second network namespace");
	*engine_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	snprintf(text, sizeof(text),
		 "ip link add fan0 address " ENGINE_MAC
		 " type veth peer name fan1 address " RECEIVER_MAC " netns /proc/%d/fd/%d && "
		 "ip addr add " ENGINE "/24 dev fan0 && ip link set fan0 up",
		 getpid(), receiver_ns);
	if (command(text, why))
		return -EIO;
	if (setns(receiver_ns, CLONE_NEWNET))
		return fail(why, -errno, "go back to the receivers' namespace");
	close(receiver_ns);
	return command("ip link set lo up && ip addr add " RECEIVER "/24 dev fan1 && "
		       "ip link set fan1 up",
		       why);
}

static struct sockaddr_in name_of(const char *address, uint16_t port)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, address, &name.sin_addr);
	return name;
}

/* A bound UDP socket without scope. */
static int socket_plain(const char *address, uint16_t port)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), size = 8 << 20;
	struct sockaddr_in name = name_of(address, port);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) ||
	    bind(fd, (struct sockaddr *)&name, sizeof(name))) {
		int result = -errno;

		close(fd);
		return result;
	}
	return fd;
}

/* As the engine's port sends: frames, past routing, queueing and every hook for sockets. */
static int socket_raw(bool offload)
{
	struct sockaddr_ll name = {.sll_family = AF_PACKET, .sll_protocol = 0};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1, with = offload, result;

	if (fd < 0)
		return -errno;
	name.sll_ifindex = (int)if_nametoindex("fan0");
	if (!setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) &&
	    !setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &with, sizeof(with)) &&
	    !bind(fd, (struct sockaddr *)&name, sizeof(name)))
		return fd;
	result = -errno;
	close(fd);
	return result;
}

static int sender_make(struct filter_host *host, int engine_ns, char why[256])
{
	int receiver_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (receiver_ns < 0 || setns(engine_ns, CLONE_NEWNET))
		return fail(why, -errno, "enter the engine's namespace");
	host->sender =
		host->loopback ? socket_plain(ENGINE, ENGINE_PORT) : socket_raw(host->offload);
	if (setns(receiver_ns, CLONE_NEWNET))
		return fail(why, -errno, "go back to the receivers' namespace");
	close(receiver_ns);
	close(engine_ns);
	return host->sender < 0 ? fail(why, host->sender, "open the sender's socket") : 0;
}

static int accept_load(struct filter_host *host, char why[256])
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};

	host->accept_fd =
		bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "accept_all", "BSD", code, 2, NULL);
	return host->accept_fd < 0 ? fail(why, -errno, "load a program that accepts everything")
				   : 0;
}

void filter_host_scope(struct scope *scope, unsigned user)
{
	char name[32];

	snprintf(name, sizeof(name), "user-%u", user);
	memset(scope, 0, sizeof(*scope));
	fan_handle(scope->handle, name, strlen(name));
	scope->user_generation = 1;
	scope->key_generation = scope->previous_key_generation = 1;
	fan_tag_key((uint8_t *)scope->tag_key, master, 1, scope->handle);
	memcpy(scope->previous_tag_key, scope->tag_key, sizeof(scope->tag_key));
}

/* One receiving socket, as the case has it. */
static int receiver_make(struct filter_host *host, unsigned user, uint16_t port, char why[256])
{
	struct scoped_socket made;
	struct scope scope;
	uint64_t cookie;
	int fd, result;

	filter_host_scope(&scope, user);
	if (filter_host_has_filter(host)) {
		result = scoped_socket_open(host->maps, &scope, &host->config.receiver_address[0],
					    port, &made, why);
		host->fds[user] = result ? -1 : made.fd;
		return result;
	}
	host->fds[user] = fd = socket_plain(RECEIVER, port);
	if (fd < 0)
		return fail(why, fd, "open a receiver's socket");
	if (host->kind == CASE_ACCEPT &&
	    setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &host->accept_fd, sizeof(host->accept_fd)))
		return fail(why, -errno, "attach a filter that accepts everything");
	if (host->kind != CASE_GUARD)
		return 0;
	result = socket_cookie(fd, &cookie);
	if (!result)
		result = scope_set(host->maps, cookie, &scope);
	return result ? fail(why, result, "enter a scope in the kernel") : 0;
}

static void packet_make(struct filter_host *host, unsigned user)
{
	struct fan_delivery delivery = {.type = FAN_TYPE_DELIVERY,
					.flags = FAN_FLAG_BEGIN | FAN_FLAG_END,
					.key_generation = 1,
					.payload_len = (uint16_t)host->payload_len,
					.epoch = 0x0123456789abcdef,
					.sequence = user,
					.user_generation = 1};
	uint8_t *packet = host->packets[user];
	struct scope scope;
	size_t len;

	filter_host_scope(&scope, user);
	memcpy(delivery.handle, scope.handle, sizeof(delivery.handle));
	len = fan_delivery_encode(packet, &delivery);
	fan_filter_tag(packet, (const uint8_t *)scope.tag_key);
	memset(packet + len, 'x', host->payload_len);
	host->packet_len = len + host->payload_len;
}

static uint32_t sum_of(const uint8_t *bytes, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	return len % 2 ? sum + (uint32_t)(bytes[len - 1] << 8) : sum;
}

static uint16_t checksum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* One's complement sum of the UDP pseudo header. */
static uint32_t pseudo_sum(const struct iphdr *ip, size_t udp_len)
{
	return sum_of((const uint8_t *)&ip->saddr, 8) + IPPROTO_UDP + (uint32_t)udp_len;
}

/* How a port with checksum offload is told what to fill in; its receiver takes it as verified. */
static size_t offload_header(uint8_t *at)
{
	const struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					      .csum_start = sizeof(struct ether_header) +
							    sizeof(struct iphdr),
					      .csum_offset = offsetof(struct udphdr, check)};

	memcpy(at, &header, sizeof(header));
	return sizeof(header);
}

size_t filter_host_frame(const struct filter_host *host, uint8_t *frame,
			 const struct sockaddr_in *to, const uint8_t *packet)
{
	static const uint8_t ethernet[] = {2, 0xfa, 0, 0, 0, 2, 2, 0xfa, 0, 0, 0, 1, 8, 0};
	struct sockaddr_in from = name_of(ENGINE, ENGINE_PORT);
	size_t len = host->packet_len, udp_len = sizeof(struct udphdr) + len;
	struct udphdr udp = {
		.source = from.sin_port, .dest = to->sin_port, .len = htons((uint16_t)udp_len)};
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .ttl = 64,
			   .protocol = IPPROTO_UDP,
			   .tot_len = htons((uint16_t)(sizeof(ip) + udp_len)),
			   .saddr = from.sin_addr.s_addr,
			   .daddr = to->sin_addr.s_addr};
	uint8_t *at = frame + (host->offload ? offload_header(frame) : 0);
	uint32_t sum = pseudo_sum(&ip, udp_len);

	memcpy(at, ethernet, sizeof(ethernet));
	at += sizeof(ethernet);
	ip.check = checksum(sum_of((uint8_t *)&ip, sizeof(ip)));
	memcpy(at, &ip, sizeof(ip));
	at += sizeof(ip);
	if (host->offload)
		udp.check = (uint16_t)~checksum(sum);
	else
		udp.check =
			checksum(sum + sum_of((uint8_t *)&udp, sizeof(udp)) + sum_of(packet, len));
	memcpy(at, &udp, sizeof(udp));
	memcpy(at + sizeof(udp), packet, len);
	return (size_t)(at - frame) + udp_len;
}

/*
 * Scopes of other sockets, as a full host has them: the cookies that follow these sockets', moved
 * up to where no socket of this machine has them.
 */
static int scopes_fill(struct filter_host *host, char why[256])
{
	uint64_t cookie = 0;
	struct scope scope;
	int result = socket_cookie(host->fds[host->socket_cnt - 1], &cookie);

	cookie += (UINT64_C(1) << 40) + 1;
	for (unsigned i = host->socket_cnt; i < host->scopes && !result; i++) {
		filter_host_scope(&scope, i);
		result = scope_set(host->maps, cookie++, &scope);
	}
	return result ? fail(why, result, "fill the map of scopes") : 0;
}

static int receivers_make(struct filter_host *host, char why[256])
{
	int result = 0;

	for (unsigned i = 0; i < host->socket_cnt && !result; i++) {
		uint16_t port = (uint16_t)(host->config.port_first + i);

		host->names[i] = name_of(RECEIVER, port);
		result = receiver_make(host, i, port, why);
		packet_make(host, i);
		host->frame_len =
			filter_host_frame(host, host->frames[i], &host->names[i], host->packets[i]);
	}
	return result;
}

static void config_make(struct fan_config *config, const struct filter_host *host)
{
	strcpy(config->instance, "bench-filter");
	strcpy(config->bpf_dir, HOST_DIR "/bpf");
	config->engine_address_cnt = config->receiver_address_cnt = 1;
	fan_address_parse(&config->engine_address[0], ENGINE);
	fan_address_parse(&config->receiver_address[0], RECEIVER);
	config->engine_port = ENGINE_PORT;
	config->port_last = (uint16_t)(config->port_first + host->socket_cnt);
	config->max_connections = host->scopes;
	config->port_guard = false; /* see filter_host_start() */
	config->receive_buffer_bytes = 8 << 20;
}

int filter_host_open(struct filter_host *host, char why[256])
{
	char reason[1024];
	int engine_ns = -1, result;

	host->sender = host->stranger = host->accept_fd = -1;
	memset(host->fds, 0xff, sizeof(host->fds));
	config_make(&host->config, host);
	result = namespaces_make(host, &engine_ns, why);
	if (!result)
		result = sender_make(host, engine_ns, why);
	if (!result)
		result = accept_load(host, why);
	if (result)
		return result;
	result = scope_maps_open(&host->maps, &host->config, reason);
	if (result) {
		snprintf(why, 256, "%.255s", reason);
		return result;
	}
	result = receivers_make(host, why);
	if (!result)
		result = scopes_fill(host, why);
	if (result)
		return result;
	host->stranger = socket_plain(RECEIVER, host->config.port_last);
	return host->stranger < 0 ? fail(why, host->stranger, "open a socket without scope") : 0;
}

/* Whether a packet that is sent to the socket arrives there. */
static bool arrives(struct filter_host *host, int fd, const struct sockaddr_in *to,
		    const uint8_t *packet)
{
	struct pollfd poll_fd = {fd, POLLIN, 0};
	uint8_t bytes[FILTER_PACKET_MAX];
	ssize_t sent;

	if (host->loopback)
		sent = sendto(host->sender, packet, host->packet_len, 0,
			      (const struct sockaddr *)to, sizeof(*to));
	else
		sent = send(host->sender, bytes, filter_host_frame(host, bytes, to, packet), 0);
	return sent > 0 && poll(&poll_fd, 1, WAIT_MS) == 1 &&
	       recv(fd, bytes, sizeof(bytes), 0) == (ssize_t)host->packet_len;
}

/* What is measured acts: a forged packet meets the filter, one to a socket without scope the guard.
 */
static int case_check(struct filter_host *host, char why[256])
{
	uint8_t forged[FILTER_PACKET_MAX];
	struct sockaddr_in stray = name_of(RECEIVER, host->config.port_last);

	memcpy(forged, host->packets[0], host->packet_len);
	forged[20] ^= 1;
	for (unsigned tries = 0; !arrives(host, host->fds[0], &host->names[0], host->packets[0]);
	     tries++)
		if (tries == 20)
			return snprintf(why, 256, "a valid delivery does not arrive"), -EIO;
	if (arrives(host, host->fds[0], &host->names[0], forged) == filter_host_has_filter(host))
		return snprintf(why, 256, "the scope filter does not do what this case says"), -EIO;
	if (arrives(host, host->stranger, &stray, host->packets[0]) == filter_host_has_guard(host))
		return snprintf(why, 256, "the port guard does not do what this case says"), -EIO;
	return 0;
}

int filter_host_start(struct filter_host *host, char why[256])
{
	char reason[1024];
	int scopes_fd, slots_fd, result;

	if (filter_host_has_guard(host)) {
		scopes_fd = pin_get(host->config.bpf_dir, "scopes");
		slots_fd = pin_get(host->config.bpf_dir, "scope_slots");
		result = guard_open(&host->guard, &host->config, scopes_fd, slots_fd, reason);
		close(scopes_fd);
		close(slots_fd);
		if (result) {
			snprintf(why, 256, "%.255s", reason);
			return result;
		}
		host->guarded = true;
	}
	result = case_check(host, why);
	if (result)
		filter_host_stop(host);
	return result;
}

void filter_host_stop(struct filter_host *host)
{
	if (!host->guarded)
		return;
	guard_remove(host->config.bpf_dir);
	guard_close(&host->guard);
	host->guarded = false;
}

void filter_host_close(struct filter_host *host)
{
	filter_host_stop(host);
	for (unsigned i = 0; i < host->socket_cnt; i++)
		if (host->fds[i] >= 0)
			close(host->fds[i]);
	scope_maps_close(host->maps);
}
