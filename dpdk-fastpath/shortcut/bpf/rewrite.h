// What decided packets become.

#pragma once

#include "decide.h"

INLINE __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

INLINE __u16 fold16(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

// Takes a hop off a frame, and makes it one of the connection that it becomes.
INLINE int translate(struct __sk_buff *skb, const struct slot *slot)
{
	void *frame = first(skb, LEAST, LEAST);
	struct ipv4 *ip = frame + ETH;
	struct udp *l4 = frame + L4; // or TCP, whose ports are in the same place
	const int is_udp = slot->way_in & IS_UDP;
	const __u32 checksum = L4 + (is_udp ? offsetof(struct udp, checksum) : offsetof(struct tcp, checksum));
	// No checksum stays none, and none is made to look so.
	const __u64 none = is_udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 src = slot->new_src, dst = slot->new_dst, difference, ports, new_ports;

	if (!frame)
		return -1;
	ports = (__u32)l4->dst << 16 | l4->src;
	new_ports = (__u32)slot->new_dst_port << 16 | slot->new_src_port;
	difference = fold((__u64)src + dst + (__u32)~ip->src + (__u32)~ip->dst);
	// A hop is one in the first half of a word (RFC 1624).
	ip->checksum = ~fold16((__u32)(__u16)~ip->checksum + fold16(difference) + (__u16)~bpf_htons(0x0100));
	ip->ttl--;
	if (ip->src == src && ip->dst == dst && ports == new_ports)
		return 0;
	ip->src = src;
	ip->dst = dst;
	l4->src = slot->new_src_port;
	l4->dst = slot->new_dst_port;
	// No pointer into the frame is good from here on.
	return bpf_l4_csum_replace(skb, checksum, 0, difference, BPF_F_PSEUDO_HDR | none) ||
	       bpf_l4_csum_replace(skb, checksum, ports, new_ports, 4 | none);
}

INLINE void set_stations(struct eth *eth, const __u8 *dst, const __u8 *src)
{
	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
}

INLINE int deliver(struct __sk_buff *skb, const struct decision *to)
{
	struct eth *eth = first(skb, sizeof(*eth), sizeof(*eth));

	if (!eth)
		return -1;
	set_stations(eth, to->door->mac, to->globals->gateway_mac);
	return 0;
}

INLINE int encapsulate(struct __sk_buff *skb, const struct decision *to, __u32 len)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(ETH);
	const struct way *way = to->way;
	struct ipv4 *ip;
	struct eth *eth;
	struct udp *udp;
	void *frame;

	if (bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	frame = first(skb, OUTER + ETH, OUTER + ETH);
	if (!frame)
		return -1;
	ip = frame + ETH;
	udp = (void *)(ip + 1);
	eth = frame + OUTER;
	__builtin_memcpy(frame, way->header, sizeof(way->header));
	eth->type = bpf_htons(ETH_P_IP);
	ip->class |= to->class & way->class_mask;
	ip->len = bpf_htons(len + OUTER);
	// In place of the checksum: the sum of all but class and length.
	ip->checksum = ~fold16((__u32)ip->checksum + ip->len + bpf_htons(ip->class));
	udp->src = to->slot->tunnel_port;
	udp->len = bpf_htons(len + OUTER - sizeof(struct ipv4));
	return 0;
}
