// The short cut: TCP connections and UDP flows over IPv4 that the fast path has decided are forwarded here, in the kernel.
//
//	app - tap, egress: pod_egress - culvert0 (veth) | its other end, ingress: from_pod - uplink, or another pod's culvert0
//	uplink, ingress: from_uplink - other end of a pod's culvert0 | culvert0 (GRO), ingress: into_pod - tap - app
//
// The fast path writes what is in the maps. Written here are what is counted in a slot and when a long packet came; and whole
// slots of connections that other nodes open to pods, about which nothing is to be decided. What matches no slot, and whatever is
// unusual, goes on as if there were nothing here: to the fast path.
//
// Whatever is dropped is counted, by its reason.

#include "decide.h"
#include "rewrite.h"

// What a tcx program returns (linux/bpf.h, enum tcx_action_base, since Linux 6.6).
#define NEXT (-1)
#define DROP 2

// Bytes of an IP packet that is likely one of many, and jiffies after which none of them waits any more.
#define LONG 1000
#define SETTLED 2

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

INLINE int drop(enum reason reason)
{
	__u32 at = reason;
	__u64 *count = bpf_map_lookup_elem(&dropped, &at);

	if (count)
		(*count)++;
	return DROP;
}

INLINE void count(struct slot *slot, __u32 len, __u8 flags)
{
	flags &= TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK;
	if ((READ(slot->flags) & (flags | AWAITED)) != flags) {
		__sync_fetch_and_or(&slot->flags, flags);
		__sync_fetch_and_and(&slot->flags, ~AWAITED);
	}
	__sync_fetch_and_add(&slot->bytes, len);
	// Last: the fast path takes the others when there are packets.
	__sync_fetch_and_add(&slot->packets, 1);
}

// Whether what a pod sends is decided, as seen at its tap or at the node's end of its veth.
INLINE int is_decided(struct __sk_buff *skb, struct decision *to, int at_tap)
{
	void *frame = first(skb, LEAST, INNER);

	return frame && decide_from_pod(skb, frame - offsetof(struct inner, eth), to, at_tap);
}

// Whether what comes from the underlay is decided.
INLINE int is_expected(struct __sk_buff *skb, struct decision *to)
{
	void *frame = first(skb, OUTER + LEAST, OUTER + INNER);

	return frame && decide_from_uplink(skb, frame - offsetof(struct outer, eth),
					   frame + OUTER - offsetof(struct inner, eth), to);
}

SEC("classifier")
int pod_egress(struct __sk_buff *skb)
{
	struct decision to;

	return is_decided(skb, &to, 1) ? bpf_redirect(CULVERT0 + (to.slot->way_in & NUMBER), 0) : NEXT;
}

// Sends a packet to another node.
INLINE int leave(struct __sk_buff *skb, const struct decision *to)
{
	const __u32 uplink = to->globals->uplink;

	if (!skb->gso_size || to->slot->way_in & IS_UDP)
		return bpf_redirect(uplink, 0);
	// When it is cut each segment is still the sending socket's until the other end has it: as many changes of one counter on
	// several CPUs, and the socket sends on wherever one is freed, past what is under way elsewhere. A clone is nobody's, as what
	// the kernel forwards itself. The original goes.
	return bpf_clone_redirect(skb, uplink, 0) < 0 ? drop(NOT_REWRITTEN) : DROP;
}

SEC("classifier")
int from_pod(struct __sk_buff *skb)
{
	__u32 len = skb->len - ETH;
	struct decision to;

	if (!is_decided(skb, &to, 0))
		return drop(UNDECIDED);
	if (translate(skb, to.slot))
		return drop(NOT_REWRITTEN);
	count(to.slot, len, to.flags);
	if (to.way)
		return encapsulate(skb, &to, len) ? drop(NOT_REWRITTEN) : leave(skb, &to);
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

	if (is_misled(skb))
		return drop(VLAN_TAG);
	if (!is_expected(skb, &to))
		return NEXT;
	if (bpf_skb_adjust_room(skb, -(__s32)OUTER, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    translate(skb, to.slot) || !to.door || deliver(skb, &to))
		return drop(NOT_REWRITTEN);
	len = skb->len - ETH;
	count(to.slot, len, to.flags);
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
