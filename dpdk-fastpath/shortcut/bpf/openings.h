// Connections that pods open to services: with the backends that the fast path would choose, if it has told them.

#pragma once

#include "slots.h"

// Nanoseconds for which connections are opened here without a sign of life of the fast path, which has to hear of them.
#define ALIVE 50000000

INLINE int same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

// The number of who has an address.
INLINE __u32 number_of(__be32 address, __u32 scope, __u32 none)
{
	__u32 at = (address * 0x9e3779b1u) >> 21;
	struct place_bucket *bucket = bpf_map_lookup_elem(&places, &at);

	if (!bucket)
		return none;
#pragma unroll
	for (int i = 0; i < PLACES; i++) {
		__u64 word = READ(bucket->places[i].word);
		__u32 number = word >> 32;

		if (address && (__u32)word == address && (number & IS_WAY) == scope)
			return number;
	}
	return none;
}

// Has a packet's direction lead to this destination.
INLINE void leads_to(struct slot *slot, const struct inner *head, __be32 dst, __be16 dst_port)
{
	slot->src = slot->new_src = head->ip.src;
	slot->src_port = slot->new_src_port = head->udp.src;
	slot->dst = head->ip.dst;
	slot->dst_port = head->udp.dst;
	slot->new_dst = dst;
	slot->new_dst_port = dst_port;
}

// Makes the direction of the answers.
INLINE void answers(struct slot *reply, const struct slot *request)
{
	reply->src = request->new_dst;
	reply->src_port = request->new_dst_port;
	reply->dst = request->new_src;
	reply->dst_port = request->new_src_port;
	reply->new_src = request->dst;
	reply->new_src_port = request->dst_port;
	reply->new_dst = request->src;
	reply->new_dst_port = request->src_port;
	reply->way_in = request->way_out;
	reply->way_out = request->way_in;
}

// The upper half of a product.
INLINE __u64 upper_half(__u64 a, __u64 b)
{
	__u64 low = (a & 0xffffffff) * (b & 0xffffffff), one = (a >> 32) * (b & 0xffffffff);
	__u64 other = (a & 0xffffffff) * (b >> 32), middle = (low >> 32) + (one & 0xffffffff) + (other & 0xffffffff);

	return (a >> 32) * (b >> 32) + (one >> 32) + (other >> 32) + (middle >> 32);
}

// The hash by which the fast path chooses: `FlowKey4::hash64` of this packet's key, in the default tenant.
INLINE __u64 flow_hash(const struct inner *head)
{
	__u64 a = ((__u64)head->ip.dst << 32 | head->ip.src) ^ 0x3d952bf7e7649cf1ull;
	__u64 b = ((__u64)IPPROTO_TCP << 32 | (__u32)head->udp.dst << 16 | head->udp.src) ^ 0x934ea6ffd9713d8bull;
	__u64 hash = (a * b ^ upper_half(a, b)) * 0xd6e8feb86659fd93ull;

	return hash ^ hash >> 32;
}

// What is known of the service that a packet is for, as of these tables.
INLINE int is_for(const struct opening *opening, __u64 serial, const struct inner *head)
{
	return READ(opening->serial) == serial && READ(opening->vip) == head->ip.dst && READ(opening->port) == head->udp.dst;
}

// Opens a connection of the pod at an interface to a service. Whether there are slots for it now.
static __attribute__((noinline)) int open_to_service(struct globals *globals, const struct inner *head, __u32 tap, __u8 flags)
{
	const __u32 none = ~0;
	struct slot request = { .flags = OPENED }, reply = { .flags = AWAITED };
	struct opening *opening;
	struct backend *backend;
	struct key key;
	struct door *door;
	__u64 serial;
	__u32 at;

	if (!globals || !head || flags & (TCP_FIN | TCP_RST))
		return 0;
	// Before anything is looked up, as in `welcome`.
	request.epoch = reply.epoch = READ(globals->epoch);
	at = ((__u32)head->ip.dst ^ head->udp.dst * 0x85ebca6bu) * 0x9e3779b1u >> 25;
	opening = bpf_map_lookup_elem(&openings, &at);
	if (!opening || !request.epoch || bpf_ktime_get_coarse_ns() - READ(globals->alive) > ALIVE)
		return 0;
	// As a fence: what follows is read after it.
	serial = __sync_fetch_and_add(&opening->serial, 0);
	if (!serial || serial != READ(globals->serial) || !is_for(opening, serial, head))
		return 0;
	request.way_in = number_of(head->ip.src, 0, none);
	door = bpf_map_lookup_elem(&doors, &request.way_in);
	if (!door || !READ(door->node_side) || door->tap != tap || !same_mac(head->eth.src, door->mac))
		return 0;
	at = opening->choice[upper_half(flow_hash(head), opening->choices) & (CHOICES - 1)];
	backend = &opening->backends[at & (BACKENDS - 1)];
	request.way_out = backend->way_out;
	leads_to(&request, head, backend->address, backend->port);
	if (request.way_out == NOWHERE || request.way_out == request.way_in)
		return 0;
	answers(&reply, &request);
	key = key_of(&reply);
	if (find_key(globals, &key) || !enter(globals, &reply))
		return 0;
	// Nobody has written there meanwhile: what was read is of this service.
	return serial == READ(globals->serial) && is_for(opening, serial, head) && enter(globals, &request);
}
