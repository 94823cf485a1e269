// What is in the maps. The layout is that of layout.rs, which both sides check.

#pragma once

#include "packet.h"

#define SLOTS 4
#define PLACES 8
#define OPENINGS 128
#define CHOICES 8192
#define BACKENDS 128

// One direction of a connection.
struct slot {
	__be32 src, dst; // as they come
	__be16 src_port, dst_port;
	__u32 way_in; // whose packets: a door, or a way if IS_WAY is set; and IS_UDP if they are not of TCP
	__u32 epoch; // 0: free; or one of the following
	__u32 way_out; // the same for where they go
	__be32 new_src, new_dst; // as they go
	__be16 new_src_port, new_dst_port;
	__be16 tunnel_port; // source port of tunnel packets
	__u16 bulk; // when a long packet came from the underlay, in jiffies
	// Written here, since the fast path looked:
	__u64 packets;
	__u64 bytes; // of IP packets
	__u64 flags; // of TCP, of all of them, and the two below; 0 of UDP
};
_Static_assert(sizeof(struct slot) == 64, "one cache line");

// The fast path has taken it back; nobody may have it yet.
#define RESTING 0xffffffff
// Somebody is writing it.
#define CLAIMED 0xfffffffe

#define IS_WAY 0x80000000
#define IS_UDP 0x40000000
#define NUMBER 0x3fffffff

// Among the flags of a slot: its connection to a service was opened here, and nobody knows of it yet.
#define OPENED (1ull << 32)
// The same: its packets answer a SYN, and none has come. What cannot be the first one is for the fast path.
#define AWAITED (1ull << 33)

struct bucket {
	struct slot slots[SLOTS];
};

// A pod.
struct door {
	__u32 node_side; // interface index of the veth's end in the node; 0: no door, or it is shut
	__u32 tap; // that of the tap, in the pod
	__u16 mtu;
	__u8 mac[6];
};
_Static_assert(sizeof(struct door) == 16, "as in layout.rs");

// The interface index of culvert0 in the pod behind door 0; behind the others it is one more each. So it tells the door.
#define CULVERT0 0x100000

// Another node.
struct way {
	__u8 header[62]; // outer headers, and the addresses of the inner frame; see Template4
	__u8 class_mask; // what the outer traffic class takes from the inner one
	__u8 unused;
	__be32 vtep; // 0: no way
	__u16 mtu; // of packets in the tunnel
	__u16 unused2;
	__be32 pods, pods_mask; // addresses of its pods
};
_Static_assert(sizeof(struct way) == 80, "as in layout.rs");

// Who has an address: a pod of this node, or another node's tunnel.
struct place {
	__u64 word; // the address, 0 for nobody; above it the number: a door, or a way if IS_WAY is set
};

struct place_bucket {
	struct place places[PLACES];
};

// A service whose connections are opened here, with the backends that the fast path would choose.
struct backend {
	__be32 address;
	__u32 way_out; // a door, or a way if IS_WAY is set; NOWHERE if the fast path has to open what goes there
	__be16 port;
	__u16 unused;
};

#define NOWHERE 0xffffffff

struct opening {
	__u64 serial; // of the tables that it is of; 0: of none
	__be32 vip;
	__be16 port;
	__u16 unused;
	__u32 choices; // how many of the following are in use
	__u32 unused2;
	__u8 choice[CHOICES]; // which backend; Maglev's table
	struct backend backends[BACKENDS];
};
_Static_assert(sizeof(struct opening) == 24 + CHOICES + 12 * BACKENDS, "as in layout.rs");

// What holds for all.
struct globals {
	__u32 epoch; // 0: nothing goes here
	__u32 bucket_mask;
	__u32 uplink; // interface index; 0: none
	__be32 vtep; // own; 0: tunnel packets are not taken
	__u32 vxlan[2]; // the header as it is expected
	__be16 udp_port; // of tunnel packets
	__u8 uplink_mac[6];
	__u8 vtep_mac[6]; // inner
	__u8 gateway_mac[6];
	__u8 is_apart; // whether the uplink's address is none of the kernel's
	__u8 has_opened; // whether connections were opened since somebody asked
	__u8 unused[2];
	__u64 serial; // of the tables that openings have to be of; 0: none is used
	__u64 alive; // when the fast path has last looked, in nanoseconds of CLOCK_MONOTONIC
};
_Static_assert(sizeof(struct globals) == 64, "as in layout.rs");

#define ARRAY(name, entries, value_type)             \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_ARRAY);            \
		__uint(max_entries, entries);                \
		__uint(map_flags, BPF_F_MMAPABLE);           \
		__type(key, __u32);                          \
		__type(value, value_type);                   \
	} name SEC(".maps")

ARRAY(buckets, 16384, struct bucket);
ARRAY(doors, 4096, struct door);
ARRAY(ways, 4096, struct way);
ARRAY(places, 2048, struct place_bucket);
ARRAY(openings, OPENINGS, struct opening);
ARRAY(globals, 1, struct globals);
// A bit for each bucket that has slots in use; the fast path takes it back.
ARRAY(occupied, 256, __u64);
// The same for those with connections to services that were opened here.
ARRAY(opened, 256, __u64);

INLINE struct globals *the_globals(void)
{
	__u32 zero = 0;
	struct globals *found = bpf_map_lookup_elem(&globals, &zero);

	return found && READ(found->epoch) ? found : 0;
}
