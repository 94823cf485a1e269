// Slots of connections: how they are found, and given by the kernel.

#pragma once

#include <bpf/bpf_endian.h>

#include "maps.h"

// What tells connections apart.
struct key {
	__be32 src, dst;
	__be16 src_port, dst_port;
	__u32 scope; // IS_WAY, IS_UDP
};

#define SCOPE (IS_WAY | IS_UDP)

INLINE __u32 hash_of(const struct key *key)
{
	__u64 addresses = (__u64)key->dst << 32 | key->src;
	__u64 ports = (__u64)key->scope << 32 | (__u32)key->dst_port << 16 | key->src_port;
	__u64 hash = (addresses * 0x9e3779b97f4a7c15ull) ^ (ports * 0xd6e8feb86659fd93ull);

	return hash ^ hash >> 29 ^ hash >> 47;
}

// The slot of a connection's direction.
INLINE struct slot *find_key(const struct globals *globals, const struct key *key)
{
	__u32 at = hash_of(key) & globals->bucket_mask;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);
	// Once: free slots have epoch 0, and what was in them.
	const __u32 epoch = READ(globals->epoch);

	if (!bucket || !epoch)
		return 0;
#pragma unroll
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &bucket->slots[i];

		if (READ(slot->epoch) == epoch && slot->src == key->src && slot->dst == key->dst &&
		    slot->src_port == key->src_port && slot->dst_port == key->dst_port &&
		    (slot->way_in & SCOPE) == key->scope)
			return slot;
	}
	return 0;
}

// The slot of a packet that comes from a pod, or from another node if `is_way`.
INLINE struct slot *find(const struct globals *globals, const struct inner *head, __u32 is_way)
{
	// Ports are in the same place in both.
	const struct key key = { .src = head->ip.src, .dst = head->ip.dst, .src_port = head->udp.src,
				 .dst_port = head->udp.dst,
				 .scope = is_way | (head->ip.protocol == IPPROTO_UDP ? IS_UDP : 0) };

	return find_key(globals, &key);
}

INLINE struct key key_of(const struct slot *slot)
{
	return (struct key){ .src = slot->src, .dst = slot->dst, .src_port = slot->src_port, .dst_port = slot->dst_port,
			     .scope = slot->way_in & SCOPE };
}

// Gives a connection's direction a slot. All of `from` counts but what is of packets.
static __attribute__((noinline)) int enter(struct globals *globals, const struct slot *from)
{
	const struct key key = key_of(from);
	__u32 hash = hash_of(&key), at, word;
	struct bucket *bucket;
	__u64 *occupied_word, *opened_word, bit;

	if (!globals)
		return 0;
	at = hash & globals->bucket_mask;
	word = at / 64;
	bucket = bpf_map_lookup_elem(&buckets, &at);
	occupied_word = bpf_map_lookup_elem(&occupied, &word);
	opened_word = bpf_map_lookup_elem(&opened, &word);
	if (!bucket || !occupied_word || !opened_word)
		return 0;
	bit = 1ull << (at % 64);
	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &bucket->slots[i];

		if (READ(slot->epoch) || __sync_val_compare_and_swap(&slot->epoch, 0, CLAIMED))
			continue;
		slot->src = from->src;
		slot->dst = from->dst;
		slot->src_port = from->src_port;
		slot->dst_port = from->dst_port;
		slot->new_src = from->new_src;
		slot->new_dst = from->new_dst;
		slot->new_src_port = from->new_src_port;
		slot->new_dst_port = from->new_dst_port;
		slot->way_in = from->way_in;
		slot->way_out = from->way_out;
		slot->tunnel_port = bpf_htons(0xc000 | hash >> 18);
		slot->packets = slot->bytes = 0;
		slot->flags = from->flags;
		if (from->flags & OPENED) {
			__sync_fetch_and_or(opened_word, bit);
			if (!READ(globals->has_opened))
				globals->has_opened = 1;
		}
		__sync_fetch_and_or(occupied_word, bit);
		// All of the above comes before.
		return __sync_val_compare_and_swap(&slot->epoch, CLAIMED, from->epoch) == CLAIMED;
	}
	return 0;
}
