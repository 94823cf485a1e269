// What is to become of a packet.

#pragma once

#include "openings.h"
#include "slots.h"

// What is to become of a packet.
struct decision {
	struct slot *slot;
	struct door *door; // where it goes, or
	struct way *way;
	struct globals *globals;
	__u8 flags; // of TCP; 0 of UDP
	__u8 headers; // bytes of IP and TCP or UDP
	__u8 class; // of traffic, as in IP
};

// Whether an IP packet of `len` bytes is whole, plain TCP or UDP.
INLINE int is_usual(struct __sk_buff *skb, const struct inner *head, __u32 len, struct decision *to)
{
	const struct ipv4 *ip = &head->ip;

	if (ip->version_ihl != 0x45 || ip->ttl <= 1 || ip->fragment & bpf_htons(0x3fff) || bpf_ntohs(ip->len) != len)
		return 0;
	to->class = ip->class;
	if (ip->protocol == IPPROTO_UDP) {
		to->flags = 0;
		to->headers = sizeof(struct ipv4) + sizeof(struct udp);
		// Of many datagrams in one the kernel knows the number, of one in many fragments it does not.
		return bpf_ntohs(head->udp.len) + sizeof(struct ipv4) == len && (!skb->gso_size || skb->gso_segs);
	}
	if (ip->protocol != IPPROTO_TCP || (void *)(&head->tcp + 1) > (void *)(long)skb->data_end)
		return 0;
	to->flags = head->tcp.flags;
	to->headers = sizeof(struct ipv4) + (head->tcp.offset >> 4) * 4;
	return to->headers >= sizeof(struct ipv4) + sizeof(struct tcp) && to->headers <= len;
}

// Whether it opens a connection.
INLINE int opens(const struct decision *to)
{
	return (to->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

// Whether it is none of its slot's connection, whose first answer it cannot be. Nobody but an endpoint that has another connection between the same ports goes on
// where it was asked to begin.
INLINE int is_stray(const struct decision *to)
{
	return READ(to->slot->flags) & AWAITED && !(to->flags & (TCP_SYN | TCP_RST));
}

// Where the packets of a slot go, if this one fits: as long as an IP packet of `len` bytes, or as the longest of its segments.
INLINE int may_leave(struct __sk_buff *skb, struct decision *to, __u32 len)
{
	__u32 out = to->slot->way_out, at = out & NUMBER;
	__u32 longest = skb->gso_size ? skb->gso_size + to->headers : len;

	if (out & IS_WAY) {
		to->way = bpf_map_lookup_elem(&ways, &at);
		to->door = 0;
		return to->way && READ(to->way->vtep) && to->globals->uplink && longest <= to->way->mtu;
	}
	to->way = 0;
	to->door = bpf_map_lookup_elem(&doors, &at);
	return to->door && READ(to->door->node_side) && longest <= to->door->mtu;
}

// What becomes of what a pod sends, as seen at its tap or at the node's end of its veth; 0 if that is for the fast path.
INLINE int decide_from_pod(struct __sk_buff *skb, const struct inner *head, struct decision *to, int at_tap)
{
	__u32 len = skb->len - ETH, at, node_side;
	struct door *from;

	to->globals = the_globals();
	if (!to->globals || head->eth.type != bpf_htons(ETH_P_IP) || !is_usual(skb, head, len, to) ||
	    !same_mac(head->eth.dst, to->globals->gateway_mac))
		return 0;
	to->slot = find(to->globals, head, 0);
	if (opens(to)) {
		// Once more, or anew: that is to be decided. But what was opened at the tap comes to the node then.
		if (to->slot && (at_tap || READ(to->slot->packets)))
			return 0;
		if (at_tap && open_to_service(to->globals, head, skb->ifindex, to->flags))
			to->slot = find(to->globals, head, 0);
	}
	if (!to->slot || is_stray(to))
		return 0;
	at = to->slot->way_in & NUMBER;
	from = bpf_map_lookup_elem(&doors, &at);
	if (!from)
		return 0;
	// Nothing leaves by a door that is shut.
	node_side = READ(from->node_side);
	if (!node_side || (at_tap ? from->tap : node_side) != skb->ifindex || !same_mac(head->eth.src, from->mac))
		return 0;
	return may_leave(skb, to, len);
}

// The slot of a packet that opens a connection to a pod. It goes by its destination whatever else there is, and so do those
// that follow in both directions: no more is to be decided.
INLINE struct slot *welcome(struct globals *globals, const struct outer *head, const struct inner *inner)
{
	// Of before anything is looked up: if that changes, so has the epoch.
	const __u32 none = ~0, epoch = READ(globals->epoch);
	struct slot request = { .epoch = epoch }, reply = { .epoch = epoch };
	struct slot *slot = find(globals, inner, IS_WAY);
	struct door *door;
	struct way *way;
	__u32 at;

	if (slot)
		return slot->new_src == slot->src && slot->new_dst == slot->dst && slot->new_src_port == slot->src_port &&
			       slot->new_dst_port == slot->dst_port
			       ? slot
			       : 0;
	request.way_in = number_of(head->ip.src, IS_WAY, none);
	request.way_out = number_of(inner->ip.dst, 0, none);
	if (request.way_in == none || request.way_out == none)
		return 0;
	at = request.way_in & NUMBER;
	way = bpf_map_lookup_elem(&ways, &at);
	if (!way || READ(way->vtep) != head->ip.src || (inner->ip.src & way->pods_mask) != way->pods || !way->pods_mask)
		return 0;
	door = bpf_map_lookup_elem(&doors, &request.way_out);
	if (!door || !READ(door->node_side))
		return 0;
	leads_to(&request, inner, inner->ip.dst, inner->tcp.dst);
	answers(&reply, &request);
	if (!enter(globals, &reply) || !enter(globals, &request))
		return 0;
	return find(globals, inner, IS_WAY);
}

// What becomes of what comes from the underlay; 0 if that is for the fast path.
INLINE int decide_from_uplink(struct __sk_buff *skb, const struct outer *head, const struct inner *inner,
			      struct decision *to)
{
	const struct ipv4 *ip = &head->ip;
	__u32 len = skb->len - ETH, at;
	struct way *from;

	to->globals = the_globals();
	// Where there is no such uplink nobody takes it.
	if (!to->globals || !to->globals->vtep || to->globals->uplink != skb->ifindex || skb->gso_size || skb->vlan_present ||
	    head->eth.type != bpf_htons(ETH_P_IP) || !same_mac(head->eth.dst, to->globals->uplink_mac))
		return 0;
	if (ip->version_ihl != 0x45 || ip->protocol != IPPROTO_UDP || ip->fragment & bpf_htons(0x3fff) ||
	    bpf_ntohs(ip->len) != len || ip->dst != to->globals->vtep || head->udp.dst != to->globals->udp_port ||
	    bpf_ntohs(head->udp.len) != len - sizeof(struct ipv4))
		return 0;
	if (head->vxlan[0] != to->globals->vxlan[0] || head->vxlan[1] != to->globals->vxlan[1] ||
	    inner->eth.type != bpf_htons(ETH_P_IP) || !same_mac(inner->eth.dst, to->globals->vtep_mac) ||
	    !is_usual(skb, inner, len - OUTER, to))
		return 0;
	// Where the mark of the outer packet would change that of the inner one (RFC 6040).
	if (ip->class & 3 && (ip->class & 3) != (inner->ip.class & 3))
		return 0;
	to->slot = opens(to) ? welcome(to->globals, head, inner) : find(to->globals, inner, IS_WAY);
	if (!to->slot || to->slot->way_out & IS_WAY || is_stray(to))
		return 0;
	at = to->slot->way_in & NUMBER;
	from = bpf_map_lookup_elem(&ways, &at);
	if (!from || READ(from->vtep) != ip->src)
		return 0;
	return may_leave(skb, to, len - OUTER);
}
