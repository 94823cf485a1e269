// What packets begin with. Byte order of addresses and ports is that of headers throughout.

#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct eth {
	__u8 dst[6], src[6];
	__be16 type;
};

struct ipv4 {
	__u8 version_ihl, class;
	__be16 len, id, fragment;
	__u8 ttl, protocol;
	__be16 checksum;
	__be32 src, dst;
};

struct tcp {
	__be16 src, dst;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window, checksum, urgent;
};

struct udp {
	__be16 src, dst, len, checksum;
};

// What a frame of a pod begins with, as it is read.
struct inner {
	__u16 align;
	struct eth eth;
	struct ipv4 ip;
	struct tcp tcp;
};

// What is in front of it when it comes from another node.
struct outer {
	__u16 align;
	struct eth eth;
	struct ipv4 ip;
	struct udp udp;
	__u32 vxlan[2];
};

#define ETH sizeof(struct eth)
#define TCP (ETH + sizeof(struct ipv4))
#define INNER (TCP + sizeof(struct tcp))
#define OUTER (ETH + sizeof(struct ipv4) + sizeof(struct udp) + 8)

_Static_assert(sizeof(struct inner) == 2 + 54 && INNER == 54, "no padding but for alignment");
_Static_assert(sizeof(struct outer) == 2 + 50 && OUTER == 50, "no padding but for alignment");
