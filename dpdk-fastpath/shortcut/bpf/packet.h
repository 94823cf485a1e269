// What packets begin with. Byte order of addresses and ports is that of headers throughout.

#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline
#define READ(x) (*(volatile typeof(x) *)&(x))

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

// What a frame of a pod begins with.
struct inner {
	__u16 align;
	struct eth eth;
	struct ipv4 ip;
	union {
		struct tcp tcp;
		struct udp udp;
	};
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
#define L4 (ETH + sizeof(struct ipv4))
#define LEAST (L4 + sizeof(struct udp))
#define INNER (L4 + sizeof(struct tcp))
#define OUTER (ETH + sizeof(struct ipv4) + sizeof(struct udp) + 8)

// The first bytes of a frame, in one piece: `most`, or all if it has fewer, but not fewer than `least`; 0 if it has not.
INLINE void *first(struct __sk_buff *skb, __u32 least, __u32 most)
{
	void *data = (void *)(long)skb->data;

	if (data + most > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, skb->len < most ? skb->len : most))
			return 0;
		data = (void *)(long)skb->data;
		if (data + least > (void *)(long)skb->data_end)
			return 0;
	}
	return data;
}

_Static_assert(sizeof(struct inner) == 2 + 54 && INNER == 54, "no padding but for alignment");
_Static_assert(sizeof(struct outer) == 2 + 50 && OUTER == 50, "no padding but for alignment");
