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

// The first bytes of a frame, in one piece; 0 if it has fewer.
INLINE void *first(struct __sk_buff *skb, __u32 len)
{
	void *data = (void *)(long)skb->data;

	if (data + len > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, len))
			return 0;
		data = (void *)(long)skb->data;
		if (data + len > (void *)(long)skb->data_end)
			return 0;
	}
	return data;
}

// Takes a hop off a frame, and makes it one of the connection that it becomes.
INLINE int translate(struct __sk_buff *skb, const struct slot *slot)
{
	void *frame = first(skb, INNER);
	struct ipv4 *ip = frame + ETH;
	struct tcp *tcp = frame + TCP;
	__u32 src = slot->new_src, dst = slot->new_dst, difference, ports, new_ports;

	if (!frame)
		return -1;
	ports = (__u32)tcp->dst << 16 | tcp->src;
	new_ports = (__u32)slot->new_dst_port << 16 | slot->new_src_port;
	difference = fold((__u64)src + dst + (__u32)~ip->src + (__u32)~ip->dst);
	// A hop is one in the first half of a word (RFC 1624).
	ip->checksum = ~fold16((__u32)(__u16)~ip->checksum + fold16(difference) + (__u16)~bpf_htons(0x0100));
	ip->ttl--;
	if (ip->src == src && ip->dst == dst && ports == new_ports)
		return 0;
	ip->src = src;
	ip->dst = dst;
	tcp->src = slot->new_src_port;
	tcp->dst = slot->new_dst_port;
	// No pointer into the frame is good from here on.
	return bpf_l4_csum_replace(skb, TCP + offsetof(struct tcp, checksum), 0, difference, BPF_F_PSEUDO_HDR) ||
	       bpf_l4_csum_replace(skb, TCP + offsetof(struct tcp, checksum), ports, new_ports, 4);
}

INLINE void set_stations(struct eth *eth, const __u8 *dst, const __u8 *src)
{
	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
}

INLINE int deliver(struct __sk_buff *skb, const struct decision *to)
{
	struct eth *eth = first(skb, sizeof(*eth));

	if (!eth)
		return -1;
	set_stations(eth, to->door->mac, to->globals->gateway_mac);
	return 0;
}

INLINE int encapsulate(struct __sk_buff *skb, const struct decision *to, __u32 len, __u8 class)
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
	frame = first(skb, OUTER + ETH);
	if (!frame)
		return -1;
	ip = frame + ETH;
	udp = (void *)(ip + 1);
	eth = frame + OUTER;
	__builtin_memcpy(frame, way->header, sizeof(way->header));
	eth->type = bpf_htons(ETH_P_IP);
	ip->class |= class & way->class_mask;
	ip->len = bpf_htons(len + OUTER);
	// In place of the checksum: the sum of all but class and length.
	ip->checksum = ~fold16((__u32)ip->checksum + ip->len + bpf_htons(ip->class));
	udp->src = to->slot->tunnel_port;
	udp->len = bpf_htons(len + OUTER - sizeof(struct ipv4));
	return 0;
}
