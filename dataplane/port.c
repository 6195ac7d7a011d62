/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane/port.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_mbuf_pool_ops.h>
#include <string.h>

#include "common/log.h"

#define SUBJECT	    "port"
#define DESCRIPTORS 2048
#define POOL_CACHE  256
/* Headers of the larger family, a publish around the payload, what AF_XDP keeps free in front. */
#define FRAME_EXTRA (14u + 40 + 8 + FAN_DELIVERY_LEN + FAN_TAG_LEN + 256 + KERNEL_SLACK)

/*
 * AF_XDP's driver takes the pool for an array: buffer count x size, from its start. Where buffers
 * avoid page boundaries, as DMA wants it, the last ones lie beyond that, and the kernel silently
 * drops what is sent from them. So there: without gaps, and in one piece.
 */
static struct rte_mempool *pool_without_gaps(unsigned cnt, uint16_t room)
{
	struct rte_pktmbuf_pool_private layout = {.mbuf_data_room_size = room,
						  .mbuf_priv_size = PACKET_PRIV_LEN};
	struct rte_mempool *pool = rte_mempool_create_empty(
		"packets", cnt, sizeof(struct rte_mbuf) + PACKET_PRIV_LEN + room, POOL_CACHE,
		sizeof(layout), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);

	if (!pool)
		return NULL;
	if (rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL) == 0) {
		rte_pktmbuf_pool_init(pool, &layout);
		if (rte_mempool_populate_default(pool) >= 0 && pool->nb_mem_chunks == 1) {
			rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
			return pool;
		}
	}
	rte_mempool_free(pool);
	return NULL;
}

static struct rte_mempool *pool_make(const char *name, unsigned cnt, uint16_t priv, uint16_t room)
{
	return rte_pktmbuf_pool_create(name, cnt, RTE_MIN((unsigned)POOL_CACHE, cnt / 4), priv,
				       room, SOCKET_ID_ANY);
}

int port_make_pool(struct plane *plane, unsigned cnt)
{
	unsigned room = RTE_MAX((unsigned)RTE_MBUF_DEFAULT_DATAROOM,
				plane->config.payload_limit + FRAME_EXTRA);
	uint16_t with_headroom = (uint16_t)(RTE_PKTMBUF_HEADROOM + RTE_ALIGN(room, 64));

	if (strncmp(plane->config.port, "net_af_xdp", strlen("net_af_xdp")) == 0) {
		/* It sends from the memory that it receives into. */
		plane->pool = plane->tx_pool = pool_without_gaps(cnt, with_headroom);
	} else {
		/* Apart, so that the few frames that are being made stay in the first cache. */
		plane->pool = pool_make("packets", cnt / 2, PACKET_PRIV_LEN, with_headroom);
		plane->tx_pool = pool_make("frames", cnt / 2, 0, with_headroom);
	}
	if (plane->pool && plane->tx_pool)
		return 0;
	fan_log(FAN_LOG_ERROR, SUBJECT,
		"no memory for %u packet buffers of %u bytes: raise dataplane.hugepage_mb or lower "
		"mbuf_cnt",
		cnt, room);
	return -ENOMEM;
}

/* Traffic of a queue that nobody polls would be lost without a word. */
static int queues_choose(struct plane *plane, const struct rte_eth_dev_info *info)
{
	plane->rx_queue_cnt = RTE_MIN(plane->worker_cnt, info->max_rx_queues);
	plane->tx_queue_cnt = RTE_MIN(plane->worker_cnt, info->max_tx_queues);
	if (plane->tx_queue_cnt == 0 || plane->rx_queue_cnt == 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT, "the port cannot %s: choose another dataplane.port",
			plane->rx_queue_cnt ? "send" : "receive");
		return -ENOTSUP;
	}
	if (strcmp(info->driver_name, "net_af_xdp") == 0 &&
	    info->max_rx_queues > plane->worker_cnt) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"dataplane.port has queue_count=%u but there are %u workers: make them "
			"equal",
			info->max_rx_queues, plane->worker_cnt);
		return -EINVAL;
	}
	return 0;
}

static int port_configure(struct plane *plane, const struct rte_eth_dev_info *info)
{
	uint16_t mtu = (uint16_t)(plane->config.payload_limit + 40 + 8 + FAN_DELIVERY_LEN);
	struct rte_eth_conf conf = {0};
	int err;

	conf.rx_adv_conf.rss_conf.rss_hf =
		(RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP) & info->flow_type_rss_offloads;
	if (plane->rx_queue_cnt > 1 && conf.rx_adv_conf.rss_conf.rss_hf)
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	err = rte_eth_dev_configure(plane->port_id, (uint16_t)plane->rx_queue_cnt,
				    (uint16_t)plane->tx_queue_cnt, &conf);
	if (!err && mtu > RTE_ETHER_MTU)
		err = rte_eth_dev_set_mtu(plane->port_id, mtu);
	return err;
}

static int queues_set_up(struct plane *plane)
{
	uint16_t rx_len = DESCRIPTORS, tx_len = DESCRIPTORS;
	int socket = rte_eth_dev_socket_id(plane->port_id);
	int err = rte_eth_dev_adjust_nb_rx_tx_desc(plane->port_id, &rx_len, &tx_len);

	for (uint16_t i = 0; !err && i < plane->rx_queue_cnt; i++)
		err = rte_eth_rx_queue_setup(plane->port_id, i, rx_len, (unsigned)socket, NULL,
					     plane->pool);
	for (uint16_t i = 0; !err && i < plane->tx_queue_cnt; i++)
		err = rte_eth_tx_queue_setup(plane->port_id, i, tx_len, (unsigned)socket, NULL);
	return err;
}

int port_start(struct plane *plane)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	char name[RTE_ETH_NAME_MAX_LEN] = "";
	int err;

	if (rte_eth_dev_count_avail() == 0) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"dataplane.port \"%s\" gave no port: DPDK's messages above say why, if it "
			"is right",
			plane->config.port);
		return -ENODEV;
	}
	plane->port_id = (uint16_t)rte_eth_find_next(0);
	err = rte_eth_dev_info_get(plane->port_id, &info);
	if (!err)
		err = queues_choose(plane, &info);
	if (!err)
		err = port_configure(plane, &info);
	if (!err)
		err = queues_set_up(plane);
	if (!err)
		err = rte_eth_dev_start(plane->port_id);
	if (!err)
		err = rte_eth_macaddr_get(plane->port_id, &mac);
	if (err) {
		fan_log(FAN_LOG_ERROR, SUBJECT,
			"port \"%s\" did not start: %s; %u buffers (dataplane.mbuf_cnt) may be too "
			"few",
			plane->config.port, rte_strerror(-err), plane->config.mbuf_cnt);
		return err;
	}
	memcpy(plane->mac, mac.addr_bytes, sizeof(plane->mac));
	rte_eth_dev_get_name_by_port(plane->port_id, name);
	snprintf((char *)plane->state->port_name, sizeof(plane->state->port_name), "%s", name);
	fan_log(FAN_LOG_INFO, SUBJECT, "%s (%s): %u workers, %u receive and %u transmit queues",
		name, info.driver_name, plane->worker_cnt, plane->rx_queue_cnt,
		plane->tx_queue_cnt);
	return 0;
}

void port_stop(struct plane *plane)
{
	rte_eth_dev_stop(plane->port_id);
	rte_eth_dev_close(plane->port_id);
}
