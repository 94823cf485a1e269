// The short cut: TCP connections over IPv4 that the fast path has decided are forwarded here, in the kernel.
//
//	app - tap, egress: pod_egress - culvert0 (veth) | its other end, ingress: from_pod - uplink, or another pod's culvert0
//	uplink, ingress: from_uplink - other end of a pod's culvert0 | culvert0 (GRO), ingress: into_pod - tap - app
//
// The fast path writes what is in the maps. Written here are what is counted in a slot and when a long packet came; and whole
// slots of connections that other nodes open to pods, about which nothing is to be decided. What matches no slot, and whatever is
// unusual, goes on as if there were nothing here: to the fast path. Byte order of addresses and ports is that of
// headers throughout.
//
// Whatever is dropped is counted, by its reason.
//
// The layout of what is in the maps is that of layout.rs, which both sides check.

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline
#define READ(x) (*(volatile typeof(x) *)&(x))

// What a tcx program returns (linux/bpf.h, enum tcx_action_base, since Linux 6.6).
#define NEXT (-1)
#define DROP 2

#define SLOTS 4
#define PLACES 8
// Bytes of an IP packet that is likely one of many, and jiffies after which none of them waits any more.
#define LONG 1000
#define SETTLED 2
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

// One direction of a connection.
struct slot {
	__be32 src, dst; // as they come
	__be16 src_port, dst_port;
	__u32 way_in; // whose packets: a door, or a way if IS_WAY is set
	__u32 epoch; // 0: free; or one of the following
	__u32 way_out; // the same for where they go
	__be32 new_src, new_dst; // as they go
	__be16 new_src_port, new_dst_port;
	__be16 tunnel_port; // source port of tunnel packets
	__u16 bulk; // when a long packet came from the underlay, in jiffies
	// Written here, since the fast path looked:
	__u64 packets;
	__u64 bytes; // of IP packets
	__u64 flags; // of TCP, of all of them
};
_Static_assert(sizeof(struct slot) == 64, "one cache line");

// The fast path has taken it back; nobody may have it yet.
#define RESTING 0xffffffff
// Somebody is writing it.
#define CLAIMED 0xfffffffe

#define IS_WAY 0x80000000

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
	__u8 unused[19];
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
ARRAY(globals, 1, struct globals);
// A bit for each bucket that has slots in use; the fast path takes it back.
ARRAY(occupied, 256, __u64);

// Why a packet is dropped, as in drops.rs.
enum reason {
	UNDECIDED,
	NOT_REWRITTEN,
	FROM_NODE,
	VLAN_TAG,
	REASONS,
};

// How many were, on each CPU.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

// What is to become of a packet.
struct decision {
	struct slot *slot;
	struct door *door; // where it goes, or
	struct way *way;
	struct globals *globals;
};

INLINE int same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

INLINE struct globals *the_globals(void)
{
	__u32 zero = 0;
	struct globals *found = bpf_map_lookup_elem(&globals, &zero);

	return found && READ(found->epoch) ? found : 0;
}

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

// Whether an IP packet of `len` bytes is whole, plain TCP.
INLINE int is_usual(const struct ipv4 *ip, const struct tcp *tcp, __u32 len)
{
	return ip->version_ihl == 0x45 && ip->protocol == IPPROTO_TCP && ip->ttl > 1 &&
	       !(ip->fragment & bpf_htons(0x3fff)) && bpf_ntohs(ip->len) == len && tcp->offset >> 4 >= 5 &&
	       sizeof(struct ipv4) + (tcp->offset >> 4) * 4 <= len;
}

// Whether it opens a connection.
INLINE int opens(const struct tcp *tcp)
{
	return (tcp->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

// Where the packets of a slot go, if this one fits: as long as an IP packet of `len` bytes, or as the longest of its segments.
INLINE int may_leave(struct __sk_buff *skb, struct decision *to, const struct tcp *tcp, __u32 len)
{
	__u32 out = to->slot->way_out, at = out & ~IS_WAY;
	__u32 longest = skb->gso_size ? skb->gso_size + sizeof(struct ipv4) + (tcp->offset >> 4) * 4 : len;

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
	if (!to->globals || head->eth.type != bpf_htons(ETH_P_IP) || !is_usual(&head->ip, &head->tcp, len) ||
	    opens(&head->tcp) || !same_mac(head->eth.dst, to->globals->gateway_mac))
		return 0;
	to->slot = find(to->globals, &head->ip, &head->tcp, 0);
	if (!to->slot)
		return 0;
	at = to->slot->way_in;
	from = bpf_map_lookup_elem(&doors, &at);
	if (!from)
		return 0;
	// Nothing leaves by a door that is shut.
	node_side = READ(from->node_side);
	if (!node_side || (at_tap ? from->tap : node_side) != skb->ifindex || !same_mac(head->eth.src, from->mac))
		return 0;
	return may_leave(skb, to, &head->tcp, len);
}

// The slot of a packet that opens a connection to a pod. It goes by its destination whatever else there is, and so do those
// that follow in both directions: no more is to be decided.
INLINE struct slot *welcome(const struct globals *globals, const struct outer *head, const struct inner *inner)
{
	// Of before anything is looked up: if that changes, so has the epoch.
	const __u32 none = ~0, epoch = READ(globals->epoch);
	struct slot request = { .src = inner->ip.src, .dst = inner->ip.dst, .src_port = inner->tcp.src,
				.dst_port = inner->tcp.dst, .epoch = epoch };
	struct slot reply = { .src = inner->ip.dst, .dst = inner->ip.src, .src_port = inner->tcp.dst,
			      .dst_port = inner->tcp.src, .epoch = epoch };
	struct slot *slot = find(globals, &inner->ip, &inner->tcp, IS_WAY);
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
	at = request.way_in & ~IS_WAY;
	way = bpf_map_lookup_elem(&ways, &at);
	if (!way || READ(way->vtep) != head->ip.src || (inner->ip.src & way->pods_mask) != way->pods || !way->pods_mask)
		return 0;
	door = bpf_map_lookup_elem(&doors, &request.way_out);
	if (!door || !READ(door->node_side))
		return 0;
	reply.way_in = request.way_out;
	reply.way_out = request.way_in;
	if (!enter(globals, &reply) || !enter(globals, &request))
		return 0;
	return find(globals, &inner->ip, &inner->tcp, IS_WAY);
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
	    !is_usual(&inner->ip, &inner->tcp, len - OUTER))
		return 0;
	// Where the mark of the outer packet would change that of the inner one (RFC 6040).
	if (ip->class & 3 && (ip->class & 3) != (inner->ip.class & 3))
		return 0;
	to->slot = opens(&inner->tcp) ? welcome(to->globals, head, inner)
				      : find(to->globals, &inner->ip, &inner->tcp, IS_WAY);
	if (!to->slot || to->slot->way_out & IS_WAY)
		return 0;
	at = to->slot->way_in & ~IS_WAY;
	from = bpf_map_lookup_elem(&ways, &at);
	if (!from || READ(from->vtep) != ip->src)
		return 0;
	return may_leave(skb, to, &inner->tcp, len - OUTER);
}

INLINE void count(struct slot *slot, __u32 len, __u8 flags)
{
	flags &= TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK;
	if ((READ(slot->flags) & flags) != flags)
		__sync_fetch_and_or(&slot->flags, flags);
	__sync_fetch_and_add(&slot->bytes, len);
	// Last: the fast path takes the others when there are packets.
	__sync_fetch_and_add(&slot->packets, 1);
}

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

INLINE int drop(enum reason reason)
{
	__u32 at = reason;
	__u64 *count = bpf_map_lookup_elem(&dropped, &at);

	if (count)
		(*count)++;
	return DROP;
}

// Whether what a pod sends is decided, as seen at its tap or at the node's end of its veth.
INLINE int is_decided(struct __sk_buff *skb, struct inner *head, struct decision *to, int at_tap)
{
	return !bpf_skb_load_bytes(skb, 0, &head->eth, INNER) && decide_from_pod(skb, head, to, at_tap);
}

// Whether what comes from the underlay is decided.
INLINE int is_expected(struct __sk_buff *skb, struct outer *head, struct inner *inner, struct decision *to)
{
	return !bpf_skb_load_bytes(skb, 0, &head->eth, OUTER) && !bpf_skb_load_bytes(skb, OUTER, &inner->eth, INNER) &&
	       decide_from_uplink(skb, head, inner, to);
}

SEC("classifier")
int pod_egress(struct __sk_buff *skb)
{
	struct decision to;
	struct inner head;

	return is_decided(skb, &head, &to, 1) ? bpf_redirect(CULVERT0 + to.slot->way_in, 0) : NEXT;
}

SEC("classifier")
int from_pod(struct __sk_buff *skb)
{
	__u32 len = skb->len - ETH;
	struct decision to;
	struct inner head;

	if (!is_decided(skb, &head, &to, 0))
		return drop(UNDECIDED);
	if (translate(skb, to.slot))
		return drop(NOT_REWRITTEN);
	count(to.slot, len, head.tcp.flags);
	if (to.way)
		return encapsulate(skb, &to, len, head.ip.class) ? drop(NOT_REWRITTEN) : bpf_redirect(to.globals->uplink, 0);
	if (!to.door || deliver(skb, &to))
		return drop(NOT_REWRITTEN);
	return bpf_redirect_peer(to.door->node_side, 0);
}

// Whether a packet of `len` bytes is worth merging with others, or may have such before it in the queue.
INLINE int is_bulk(struct slot *slot, __u32 len)
{
	__u16 now = bpf_jiffies64();

	if (len >= LONG)
		slot->bulk = now;
	return (__u16)(now - READ(slot->bulk)) <= SETTLED;
}

// Whether a frame has a VLAN tag and is for the address of the fast path alone. Who gets it after this program sees no tag any more.
INLINE int is_misled(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct globals *all = bpf_map_lookup_elem(&globals, &zero);
	__u8 stations[12];

	return skb->vlan_present && all && all->is_apart && !bpf_skb_load_bytes(skb, 0, stations, sizeof(stations)) &&
	       same_mac(stations, all->uplink_mac);
}

SEC("classifier")
int from_uplink(struct __sk_buff *skb)
{
	__u32 len;
	struct decision to;
	struct inner inner;
	struct outer head;

	if (is_misled(skb))
		return drop(VLAN_TAG);
	if (!is_expected(skb, &head, &inner, &to))
		return NEXT;
	if (bpf_skb_adjust_room(skb, -(__s32)OUTER, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    translate(skb, to.slot) || !to.door || deliver(skb, &to))
		return drop(NOT_REWRITTEN);
	len = skb->len - ETH;
	count(to.slot, len, inner.tcp.flags);
	if (is_bulk(to.slot, len)) {
		// By the veth's queue, where segments are merged. Each CPU has one of its own: what it puts there, it takes out itself.
		skb->queue_mapping = bpf_get_smp_processor_id() + 1;
		return bpf_redirect(to.door->node_side, 0);
	}
	return bpf_redirect_peer(to.door->node_side, 0);
}

SEC("classifier")
int into_pod(struct __sk_buff *skb)
{
	__u32 at = skb->ifindex - CULVERT0, zero = 0;
	struct door *door = bpf_map_lookup_elem(&doors, &at);
	struct globals *all = bpf_map_lookup_elem(&globals, &zero);
	__u8 stations[12];

	// Nothing that somebody else in the node sends there.
	if (!door || !all || bpf_skb_load_bytes(skb, 0, stations, sizeof(stations)) ||
	    !same_mac(stations + 6, all->gateway_mac))
		return drop(FROM_NODE);
	return bpf_redirect(door->tap, BPF_F_INGRESS);
}

// What is left where packets of a pod come to the node when the programs above are gone: it keeps none of the maps.
SEC("classifier")
int nothing(struct __sk_buff *skb)
{
	(void)skb;
	return DROP;
}

char license_[] SEC("license") = "Apache-2.0";
