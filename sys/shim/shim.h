/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What Rust sees of DPDK beyond its exported functions.
 *
 * Two kinds of things live here: functions that DPDK has only as static inlines (always one call per burst, never one
 * per packet), and functions over scalars or structs of our own wherever DPDK's struct differs between releases. So
 * nothing on the Rust side depends on the release.
 */
#ifndef CULVERT_DPDK_SHIM_H
#define CULVERT_DPDK_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rte_hash;
struct rte_mbuf;
struct rte_mempool;

/*
 * struct rte_mbuf, without its unions and bit-fields. Same size, same offsets: shim.c refuses to compile otherwise.
 * Reserved members are those whose meaning depends on how DPDK was built.
 */
struct shim_mbuf {
	_Alignas(64) void *buf_addr; /* start of the buffer, headroom included */
	uint64_t reserved_iova;      /* buf_iova, or next when DPDK was built without physical addresses */
	uint16_t data_off;           /* first byte of data, from buf_addr */
	uint16_t refcnt;
	uint16_t nb_segs;            /* valid in the first segment only */
	uint16_t port;               /* where it was received */
	uint64_t ol_flags;           /* RTE_MBUF_F_* */
	uint32_t packet_type;        /* RTE_PTYPE_* */
	uint32_t pkt_len;            /* bytes in all segments */
	uint16_t data_len;           /* bytes in this segment */
	uint16_t vlan_tci;           /* CPU order; valid with RTE_MBUF_F_RX_VLAN */
	uint32_t rss_hash;           /* valid with RTE_MBUF_F_RX_RSS_HASH */
	uint32_t reserved_hash;
	uint16_t vlan_tci_outer;
	uint16_t buf_len;            /* bytes of the buffer, headroom included */
	struct rte_mempool *pool;    /* where a free puts it back */
	uint64_t reserved_next;      /* next, or a dynamic field */
	uint64_t tx_offload;         /* l2_len:7 l3_len:9 l4_len:8 tso_segsz:16 outer_l3_len:9 outer_l2_len:7 */
	void *shinfo;
	uint16_t priv_size;
	uint16_t timesync;
	uint32_t dynfield1[9];
};

/* Sizes and offsets as the C compiler sees them in struct rte_mbuf, for the layout test. */
struct shim_layout {
	size_t size;
	size_t align;
	size_t buf_addr;
	size_t data_off;
	size_t refcnt;
	size_t nb_segs;
	size_t port;
	size_t ol_flags;
	size_t packet_type;
	size_t pkt_len;
	size_t data_len;
	size_t vlan_tci;
	size_t rss_hash;
	size_t buf_len;
	size_t pool;
	size_t tx_offload;
};
void shim_mbuf_layout(struct shim_layout *out);

/* The RTE_VERSION this was compiled against, and texts and numbers DPDK has as macros. */
uint32_t shim_compiled_version(void);
int shim_errno(void);
void shim_set_errno(int value);
unsigned int shim_lcore_id(void);
unsigned int shim_max_lcores(void);
uint64_t shim_tsc(void);

/* RTE_MBUF_F_TX_*, in ol_flags. */
#define SHIM_TX_OUTER_UDP_CKSUM (1ULL << 41)
#define SHIM_TX_UDP_SEG         (1ULL << 42)
#define SHIM_TX_TUNNEL_VXLAN    (1ULL << 45)
#define SHIM_TX_TUNNEL_GENEVE   (4ULL << 45)
#define SHIM_TX_TCP_SEG         (1ULL << 50)
#define SHIM_TX_TCP_CKSUM       (1ULL << 52)
#define SHIM_TX_UDP_CKSUM       (3ULL << 52)
#define SHIM_TX_IP_CKSUM        (1ULL << 54)
#define SHIM_TX_IPV4            (1ULL << 55)
#define SHIM_TX_IPV6            (1ULL << 56)
#define SHIM_TX_OUTER_IP_CKSUM  (1ULL << 58)
#define SHIM_TX_OUTER_IPV4      (1ULL << 59)
#define SHIM_TX_OUTER_IPV6      (1ULL << 60)
/* Lowest bits of the fields of tx_offload. */
#define SHIM_L3_LEN             7
#define SHIM_L4_LEN             16
#define SHIM_TSO_SEGSZ          24
#define SHIM_OUTER_L3_LEN       40
#define SHIM_OUTER_L2_LEN       49

/* RTE_ETH_TX_OFFLOAD_*. */
#define SHIM_OFFLOAD_IPV4_CKSUM       (1ULL << 1)
#define SHIM_OFFLOAD_UDP_CKSUM        (1ULL << 2)
#define SHIM_OFFLOAD_TCP_CKSUM        (1ULL << 3)
#define SHIM_OFFLOAD_TCP_TSO          (1ULL << 5)
#define SHIM_OFFLOAD_UDP_TSO          (1ULL << 6)
#define SHIM_OFFLOAD_OUTER_IPV4_CKSUM (1ULL << 7)
#define SHIM_OFFLOAD_VXLAN_TNL_TSO    (1ULL << 9)
#define SHIM_OFFLOAD_GENEVE_TNL_TSO   (1ULL << 12)
#define SHIM_OFFLOAD_OUTER_UDP_CKSUM  (1ULL << 20)

/*
 * Packets.
 *
 * shim_rx_burst hands over single-segment packets only: one that came in several is freed and counted in *oversize.
 */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n, uint16_t *oversize);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **pkts, uint16_t n);
/* Whether the driver can do what a packet asks for, which it may change checksum fields for; 0, or a negative errno. */
int shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf *pkt);
/* Makes checksum fields what DPDK's own helper for drivers thinks they have to be, for tests; 0, or a negative errno. */
int shim_tx_checksums(struct rte_mbuf *pkt);
int shim_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **pkts, unsigned int n);
void shim_free_bulk(struct rte_mbuf **pkts, unsigned int n);

/* Bytes in front of a packet that is received or new. */
uint16_t shim_headroom(void);

/* Ports. Results: 0, or a negative errno. */
struct shim_port_config {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t rx_descriptors; /* in: wanted; out: what the device allows */
	uint16_t tx_descriptors;
	uint16_t mtu;            /* bytes behind the Ethernet header; 0 leaves the device's own */
	bool rx_interrupts;      /* receive queues get descriptors that tell of packets; drivers may refuse */
	uint64_t tx_offloads;    /* RTE_ETH_TX_OFFLOAD_*, of all transmit queues */
};
/*
 * Configures the device and sets all its queues up; buffers for received packets come from `pool`. With several receive
 * queues they are spread by shim_rss_wanted(), as far as the device can.
 */
int shim_port_setup(uint16_t port, struct shim_port_config *config, struct rte_mempool *pool);

/*
 * RTE_ETH_RSS_*: addresses and ports of TCP, UDP and SCTP, addresses alone of fragments and anything else. Of a tunnel's
 * packets, that is the outer UDP header, whose source port differs from flow to flow (RFC 7348).
 */
uint64_t shim_rss_wanted(void);

struct shim_port_info {
	char driver[32];
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint32_t if_index;          /* kernel interface behind the port; 0 if none */
	uint64_t rx_offload_capa;   /* RTE_ETH_RX_OFFLOAD_* */
	uint64_t tx_offload_capa;   /* RTE_ETH_TX_OFFLOAD_* */
	uint64_t rss_capa;          /* of shim_rss_wanted(), what the device can spread received packets by */
};
int shim_port_info(uint16_t port, struct shim_port_info *out);

struct shim_port_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;   /* dropped by the device: no free descriptor */
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;  /* the mempool was empty */
};
int shim_port_stats(uint16_t port, struct shim_port_stats *out);

struct shim_port_link {
	uint32_t speed_mbps; /* UINT32_MAX: unknown */
	bool full_duplex;
	bool up;
};
/* Does not wait for link negotiation. */
int shim_port_link(uint16_t port, struct shim_port_link *out);

int shim_port_get_mac(uint16_t port, uint8_t mac[6]);
int shim_port_set_mac(uint16_t port, const uint8_t mac[6]);

/*
 * A hash table of keys of `key_length` bytes whose readers take no lock while several threads add: what a table of flows
 * would need. With chained buckets, so that all `entries` find room. NULL: see shim_errno.
 */
struct rte_hash *shim_hash_create(const char *name, uint32_t entries, uint32_t key_length);

/* Bytes of EAL's memory that are in use, on all NUMA nodes. */
uint64_t shim_memory_used(void);

/*
 * From now on each line that DPDK logs goes to `sink` (level as in rte_log.h: 1 emergency ... 8 debug; text not
 * terminated, no line end). It may be called from any thread. 0, or a negative errno.
 */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t length);
int shim_log_to(shim_log_sink sink);

#endif
