/* SPDX-License-Identifier: Apache-2.0 */

#define _GNU_SOURCE /* fopencookie */

#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_net.h>
#include <rte_version.h>

#define SAME_PLACE(ours, theirs)                                                                                       \
	_Static_assert(offsetof(struct shim_mbuf, ours) == offsetof(struct rte_mbuf, theirs), "rte_mbuf." #theirs " moved")

_Static_assert(sizeof(struct shim_mbuf) == sizeof(struct rte_mbuf), "the size of rte_mbuf changed");
SAME_PLACE(buf_addr, buf_addr);
SAME_PLACE(data_off, data_off);
SAME_PLACE(refcnt, refcnt);
SAME_PLACE(nb_segs, nb_segs);
SAME_PLACE(port, port);
SAME_PLACE(ol_flags, ol_flags);
SAME_PLACE(packet_type, packet_type);
SAME_PLACE(pkt_len, pkt_len);
SAME_PLACE(data_len, data_len);
SAME_PLACE(vlan_tci, vlan_tci);
SAME_PLACE(rss_hash, hash.rss);
SAME_PLACE(vlan_tci_outer, vlan_tci_outer);
SAME_PLACE(buf_len, buf_len);
SAME_PLACE(pool, pool);
SAME_PLACE(tx_offload, tx_offload);
SAME_PLACE(shinfo, shinfo);
SAME_PLACE(priv_size, priv_size);
SAME_PLACE(timesync, timesync);
SAME_PLACE(dynfield1, dynfield1);

#define SAME_BITS(ours, theirs) _Static_assert((ours) == (theirs), #theirs " changed")

SAME_BITS(SHIM_TX_OUTER_UDP_CKSUM, RTE_MBUF_F_TX_OUTER_UDP_CKSUM);
SAME_BITS(SHIM_TX_UDP_SEG, RTE_MBUF_F_TX_UDP_SEG);
SAME_BITS(SHIM_TX_TUNNEL_VXLAN, RTE_MBUF_F_TX_TUNNEL_VXLAN);
SAME_BITS(SHIM_TX_TUNNEL_GENEVE, RTE_MBUF_F_TX_TUNNEL_GENEVE);
SAME_BITS(SHIM_TX_TCP_SEG, RTE_MBUF_F_TX_TCP_SEG);
SAME_BITS(SHIM_TX_TCP_CKSUM, RTE_MBUF_F_TX_TCP_CKSUM);
SAME_BITS(SHIM_TX_UDP_CKSUM, RTE_MBUF_F_TX_UDP_CKSUM);
SAME_BITS(SHIM_TX_IP_CKSUM, RTE_MBUF_F_TX_IP_CKSUM);
SAME_BITS(SHIM_TX_IPV4, RTE_MBUF_F_TX_IPV4);
SAME_BITS(SHIM_TX_IPV6, RTE_MBUF_F_TX_IPV6);
SAME_BITS(SHIM_TX_OUTER_IP_CKSUM, RTE_MBUF_F_TX_OUTER_IP_CKSUM);
SAME_BITS(SHIM_TX_OUTER_IPV4, RTE_MBUF_F_TX_OUTER_IPV4);
SAME_BITS(SHIM_TX_OUTER_IPV6, RTE_MBUF_F_TX_OUTER_IPV6);
SAME_BITS(SHIM_L3_LEN, RTE_MBUF_L3_LEN_OFS);
SAME_BITS(SHIM_L4_LEN, RTE_MBUF_L4_LEN_OFS);
SAME_BITS(SHIM_TSO_SEGSZ, RTE_MBUF_TSO_SEGSZ_OFS);
SAME_BITS(SHIM_OUTER_L3_LEN, RTE_MBUF_OUTL3_LEN_OFS);
SAME_BITS(SHIM_OUTER_L2_LEN, RTE_MBUF_OUTL2_LEN_OFS);
SAME_BITS(SHIM_OFFLOAD_IPV4_CKSUM, RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
SAME_BITS(SHIM_OFFLOAD_UDP_CKSUM, RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
SAME_BITS(SHIM_OFFLOAD_TCP_CKSUM, RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
SAME_BITS(SHIM_OFFLOAD_TCP_TSO, RTE_ETH_TX_OFFLOAD_TCP_TSO);
SAME_BITS(SHIM_OFFLOAD_UDP_TSO, RTE_ETH_TX_OFFLOAD_UDP_TSO);
SAME_BITS(SHIM_OFFLOAD_OUTER_IPV4_CKSUM, RTE_ETH_TX_OFFLOAD_OUTER_IPV4_CKSUM);
SAME_BITS(SHIM_OFFLOAD_VXLAN_TNL_TSO, RTE_ETH_TX_OFFLOAD_VXLAN_TNL_TSO);
SAME_BITS(SHIM_OFFLOAD_GENEVE_TNL_TSO, RTE_ETH_TX_OFFLOAD_GENEVE_TNL_TSO);
SAME_BITS(SHIM_OFFLOAD_OUTER_UDP_CKSUM, RTE_ETH_TX_OFFLOAD_OUTER_UDP_CKSUM);

void shim_mbuf_layout(struct shim_layout *out)
{
	*out = (struct shim_layout){
		.size = sizeof(struct rte_mbuf),
		.align = _Alignof(struct rte_mbuf),
		.buf_addr = offsetof(struct rte_mbuf, buf_addr),
		.data_off = offsetof(struct rte_mbuf, data_off),
		.refcnt = offsetof(struct rte_mbuf, refcnt),
		.nb_segs = offsetof(struct rte_mbuf, nb_segs),
		.port = offsetof(struct rte_mbuf, port),
		.ol_flags = offsetof(struct rte_mbuf, ol_flags),
		.packet_type = offsetof(struct rte_mbuf, packet_type),
		.pkt_len = offsetof(struct rte_mbuf, pkt_len),
		.data_len = offsetof(struct rte_mbuf, data_len),
		.vlan_tci = offsetof(struct rte_mbuf, vlan_tci),
		.rss_hash = offsetof(struct rte_mbuf, hash.rss),
		.buf_len = offsetof(struct rte_mbuf, buf_len),
		.pool = offsetof(struct rte_mbuf, pool),
		.tx_offload = offsetof(struct rte_mbuf, tx_offload),
	};
}

uint32_t shim_compiled_version(void)
{
	return RTE_VERSION;
}

int shim_errno(void)
{
	return rte_errno;
}

void shim_set_errno(int value)
{
	rte_errno = value;
}

unsigned int shim_lcore_id(void)
{
	return rte_lcore_id();
}

unsigned int shim_max_lcores(void)
{
	return RTE_MAX_LCORE;
}

uint64_t shim_tsc(void)
{
	return rte_rdtsc();
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, uint16_t *oversize)
{
	uint16_t got = rte_eth_rx_burst(port, queue, pkts, n);
	uint16_t kept = 0;

	for (uint16_t i = 0; i < got; i++) {
		struct rte_mbuf *m = pkts[i];

		if (unlikely(m->nb_segs != 1))
			rte_pktmbuf_free(m);
		else
			pkts[kept++] = m;
	}
	*oversize = got - kept;
	return kept;
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, pkts, n);
}

int shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf *pkt)
{
	int ret = rte_validate_tx_offload(pkt);

	if (ret != 0)
		return ret;
	if (rte_eth_tx_prepare(port, queue, &pkt, 1) == 1)
		return 0;
	return rte_errno != 0 ? -rte_errno : -EINVAL;
}

int shim_tx_checksums(struct rte_mbuf *pkt)
{
	return rte_net_intel_cksum_prepare(pkt);
}

int shim_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, pkts, n);
}

void shim_free_bulk(struct rte_mbuf **pkts, unsigned int n)
{
	rte_pktmbuf_free_bulk(pkts, n);
}

uint16_t shim_headroom(void)
{
	return RTE_PKTMBUF_HEADROOM;
}

uint64_t shim_rss_wanted(void)
{
	return RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
}

int shim_port_setup(uint16_t port, struct shim_port_config *config, struct rte_mempool *pool)
{
	struct rte_eth_conf conf;
	struct rte_eth_dev_info info;
	int socket = rte_eth_dev_socket_id(port);
	int ret;

	memset(&conf, 0, sizeof(conf));
	ret = rte_eth_dev_info_get(port, &info);
	if (ret != 0)
		return ret;
	conf.intr_conf.rxq = config->rx_interrupts;
	conf.txmode.offloads = config->tx_offloads;
	conf.rxmode.mtu = config->mtu;
	if (conf.rxmode.mtu == 0) {
		ret = rte_eth_dev_get_mtu(port, &config->mtu);
		if (ret != 0)
			return ret;
		conf.rxmode.mtu = config->mtu;
	}
	if (config->rx_queues > 1) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = shim_rss_wanted() & info.flow_type_rss_offloads;
	}
	ret = rte_eth_dev_configure(port, config->rx_queues, config->tx_queues, &conf);
	if (ret != 0)
		return ret;
	ret = rte_eth_dev_adjust_nb_rx_tx_desc(port, &config->rx_descriptors, &config->tx_descriptors);
	if (ret != 0)
		return ret;
	for (uint16_t q = 0; q < config->rx_queues; q++) {
		ret = rte_eth_rx_queue_setup(port, q, config->rx_descriptors, socket, NULL, pool);
		if (ret != 0)
			return ret;
	}
	for (uint16_t q = 0; q < config->tx_queues; q++) {
		ret = rte_eth_tx_queue_setup(port, q, config->tx_descriptors, socket, NULL);
		if (ret != 0)
			return ret;
	}
	return 0;
}

int shim_port_info(uint16_t port, struct shim_port_info *out)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(out, 0, sizeof(*out));
	snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name != NULL ? info.driver_name : "");
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->min_mtu = info.min_mtu;
	out->max_mtu = info.max_mtu;
	out->if_index = info.if_index;
	out->rx_offload_capa = info.rx_offload_capa;
	out->tx_offload_capa = info.tx_offload_capa;
	out->rss_capa = shim_rss_wanted() & info.flow_type_rss_offloads;
	return 0;
}

int shim_port_stats(uint16_t port, struct shim_port_stats *out)
{
	struct rte_eth_stats stats;
	int ret = rte_eth_stats_get(port, &stats);

	if (ret != 0)
		return ret;
	*out = (struct shim_port_stats){
		.rx_packets = stats.ipackets,
		.tx_packets = stats.opackets,
		.rx_bytes = stats.ibytes,
		.tx_bytes = stats.obytes,
		.rx_missed = stats.imissed,
		.rx_errors = stats.ierrors,
		.tx_errors = stats.oerrors,
		.rx_no_mbuf = stats.rx_nombuf,
	};
	return 0;
}

int shim_port_link(uint16_t port, struct shim_port_link *out)
{
	struct rte_eth_link link;
	int ret;

	memset(&link, 0, sizeof(link));
	ret = rte_eth_link_get_nowait(port, &link);
	if (ret != 0)
		return ret;
	out->speed_mbps = link.link_speed;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	return 0;
}

int shim_port_get_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr addr;
	int ret = rte_eth_macaddr_get(port, &addr);

	if (ret == 0)
		memcpy(mac, addr.addr_bytes, 6);
	return ret;
}

int shim_port_set_mac(uint16_t port, const uint8_t mac[6])
{
	struct rte_ether_addr addr;

	memcpy(addr.addr_bytes, mac, 6);
	return rte_eth_dev_default_mac_addr_set(port, &addr);
}

struct rte_hash *shim_hash_create(const char *name, uint32_t entries, uint32_t key_length)
{
	/* No hash_func: DPDK takes CRC32 where the CPU has it. */
	struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries,
		.key_len = key_length,
		.socket_id = SOCKET_ID_ANY,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_MULTI_WRITER_ADD |
			      RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};

	return rte_hash_create(&parameters);
}

uint64_t shim_memory_used(void)
{
	struct rte_malloc_socket_stats stats;
	uint64_t used = 0;

	for (unsigned int i = 0; i < rte_socket_count(); i++)
		if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(i), &stats) == 0)
			used += stats.heap_allocsz_bytes;
	return used;
}

static ssize_t log_write(void *sink, const char *text, size_t length)
{
	size_t end = length;

	while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == '\r'))
		end--;
	if (end > 0)
		((shim_log_sink)sink)((uint32_t)rte_log_cur_msg_loglevel(), text, end);
	return (ssize_t)length;
}

int shim_log_to(shim_log_sink sink)
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie((void *)sink, "w", functions);

	if (stream == NULL)
		return -errno;
	/* A message per line, at once: a crash must not swallow the last words. */
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(stream);
}
