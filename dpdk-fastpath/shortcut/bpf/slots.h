// Slots of connections: how they are found, and given by the kernel.

#pragma once

#include <bpf/bpf_endian.h>

#include "maps.h"

INLINE __u32 hash_of(const struct ipv4 *ip, const struct tcp *tcp, __u32 scope)
{
	__u64 addresses = (__u64)ip->dst << 32 | ip->src;
	__u64 ports = (__u64)scope << 32 | (__u32)tcp->dst << 16 | tcp->src;
	__u64 hash = (addresses * 0x9e3779b97f4a7c15ull) ^ (ports * 0xd6e8feb86659fd93ull);

	return hash ^ hash >> 29 ^ hash >> 47;
}

// The slot of a packet of a connection.
INLINE struct slot *find(const struct globals *globals, const struct ipv4 *ip, const struct tcp *tcp, __u32 scope)
{
	__u32 at = hash_of(ip, tcp, scope) & globals->bucket_mask;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);
	// Once: free slots have epoch 0, and what was in them.
	const __u32 epoch = READ(globals->epoch);

	if (!bucket || !epoch)
		return 0;
#pragma unroll
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &bucket->slots[i];

		if (READ(slot->epoch) == epoch && slot->src == ip->src && slot->dst == ip->dst &&
		    slot->src_port == tcp->src && slot->dst_port == tcp->dst && (slot->way_in & IS_WAY) == scope)
			return slot;
	}
	return 0;
}

// Gives a connection's direction a slot, in which it stays as it is.
static __attribute__((noinline)) int enter(const struct globals *globals, const struct slot *from)
{
	struct ipv4 ip = { .src = from->src, .dst = from->dst };
	struct tcp tcp = { .src = from->src_port, .dst = from->dst_port };
	__u32 hash = hash_of(&ip, &tcp, from->way_in & IS_WAY), at, word;
	struct bucket *bucket;
	__u64 *occupied_word;

	if (!globals)
		return 0;
	at = hash & globals->bucket_mask;
	word = at / 64;
	bucket = bpf_map_lookup_elem(&buckets, &at);
	occupied_word = bpf_map_lookup_elem(&occupied, &word);
	if (!bucket || !occupied_word)
		return 0;
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &bucket->slots[i];

		if (READ(slot->epoch) || __sync_val_compare_and_swap(&slot->epoch, 0, CLAIMED))
			continue;
		slot->src = slot->new_src = from->src;
		slot->dst = slot->new_dst = from->dst;
		slot->src_port = slot->new_src_port = from->src_port;
		slot->dst_port = slot->new_dst_port = from->dst_port;
		slot->way_in = from->way_in;
		slot->way_out = from->way_out;
		slot->tunnel_port = bpf_htons(0xc000 | hash >> 18);
		slot->packets = slot->bytes = slot->flags = 0;
		__sync_fetch_and_or(occupied_word, 1ull << (at % 64));
		// All of the above comes before.
		return __sync_val_compare_and_swap(&slot->epoch, CLAIMED, from->epoch) == CLAIMED;
	}
	return 0;
}
