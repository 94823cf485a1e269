//! What is in the maps that the programs in the kernel share with the fast path, as in `bpf/maps.h`. Addresses and ports
//! lie as they are in headers; a word that makes something valid is written last, and taken back first.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// Slots of a bucket.
pub const SLOTS: usize = 4;

/// Buckets, unless there are to be fewer; a power of two.
pub const MAX_BUCKETS: u32 = 16_384;

/// Doors.
pub const DOORS: u32 = 4096;

/// Ways.
pub const WAYS: u32 = 4096;

/// Places of a bucket, and buckets of them.
pub const PLACES: usize = 8;
pub(crate) const PLACE_BUCKETS: usize = 2048;

/// Services whose connections the kernel opens.
pub(crate) const OPENINGS: usize = 128;

/// Entries of the table by which it chooses a backend, and backends of one service, at the most.
pub(crate) const CHOICES: usize = 8192;
/// See above.
pub const BACKENDS: usize = 128;

/// In place of the number of a door or a way.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Among the flags of a slot: the kernel has opened its connection to a service, and nobody knows of it yet.
pub(crate) const OPENED: u64 = 1 << 32;

/// Among the flags of a slot: its packets answer a SYN, and none has come. What cannot be the first one is for the fast path.
pub(crate) const AWAITED: u64 = 1 << 33;

/// In place of a slot's epoch: it was taken back, and nobody may have it yet.
pub(crate) const RESTING: u32 = u32::MAX;

/// The same: somebody is writing it.
pub(crate) const CLAIMED: u32 = u32::MAX - 1;

/// Set in the number of a way where there may be a door instead.
pub const IS_WAY: u32 = 1 << 31;

/// Set in the number of where packets come from, if they are of UDP.
pub(crate) const IS_UDP: u32 = 1 << 30;

/// Interface index of `culvert0` in the pod behind door 0; behind the others it is one more each.
pub const CULVERT0: u32 = 0x10_0000;

/// One direction of a connection.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) src: AtomicU32,
    pub(crate) dst: AtomicU32,
    /// Source and destination, as four bytes of a header.
    pub(crate) ports: AtomicU32,
    /// Where its packets come from: a door, or a way; and [`IS_UDP`].
    pub(crate) way_in: AtomicU32,
    /// 0: free; or [`RESTING`], or [`CLAIMED`].
    pub(crate) epoch: AtomicU32,
    /// Where its packets go: a door, or a way.
    pub(crate) way_out: AtomicU32,
    pub(crate) new_src: AtomicU32,
    pub(crate) new_dst: AtomicU32,
    pub(crate) new_ports: AtomicU32,
    /// UDP source port of tunnel packets.
    pub(crate) tunnel_port: AtomicU16,
    pub(crate) bulk: AtomicU16,
    // What the kernel writes:
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) flags: AtomicU64,
}

/// Slots that a connection may be in.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Bucket {
    pub(crate) slots: [Slot; SLOTS],
}

/// A pod.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Door {
    /// Interface index of the veth's end in the node; 0: no door.
    pub(crate) node_side: AtomicU32,
    /// That of the tap, in the pod.
    pub(crate) tap: AtomicU32,
    pub(crate) mtu: AtomicU16,
    pub(crate) mac: [AtomicU8; 6],
}

/// Another node.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Way {
    /// Outer headers, and the addresses of the inner frame, as in [`Header`](super::Header).
    pub(crate) header: [AtomicU8; 62],
    /// What the outer traffic class takes from the inner one.
    pub(crate) class_mask: AtomicU8,
    _unused: AtomicU8,
    /// 0: no way.
    pub(crate) vtep: AtomicU32,
    /// Of packets in the tunnel.
    pub(crate) mtu: AtomicU16,
    _unused2: AtomicU16,
    /// Addresses of its pods: what they have in common, and which bits that are; 0: none is known.
    pub(crate) pods: AtomicU32,
    pub(crate) pods_mask: AtomicU32,
}

/// Who has an address.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Place {
    /// The address, 0 for nobody; above it the number of a door, or a way.
    pub(crate) word: AtomicU64,
}

/// Places that an address may be in.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct PlaceBucket {
    pub(crate) places: [Place; PLACES],
}

/// A backend of a service whose connections the kernel opens.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Backend {
    pub(crate) address: AtomicU32,
    /// Where packets to it go: a door, or a way; or [`NOWHERE`].
    pub(crate) way_out: AtomicU32,
    pub(crate) port: AtomicU16,
    _unused: AtomicU16,
}

/// A service whose connections the kernel opens.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Opening {
    /// Of the tables that this is of; 0: nothing is known of any service.
    pub(crate) serial: AtomicU64,
    pub(crate) vip: AtomicU32,
    pub(crate) port: AtomicU16,
    _unused: AtomicU16,
    /// How many of `choice` are in use.
    pub(crate) choices: AtomicU32,
    _unused2: AtomicU32,
    /// Eight in each, as they lie in memory.
    pub(crate) choice: [AtomicU64; CHOICES / 8],
    pub(crate) backends: [Backend; BACKENDS],
}

/// What holds for all.
///
/// The process that follows this one ends its epoch, and may be of another version: the epoch lies first in all versions.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Globals {
    /// 0: everything goes to the fast path.
    pub(crate) epoch: AtomicU32,
    pub(crate) bucket_mask: AtomicU32,
    /// Interface index; 0: none.
    pub(crate) uplink: AtomicU32,
    /// Own; 0: tunnel packets are not taken.
    pub(crate) vtep: AtomicU32,
    /// The VXLAN header as it is expected.
    pub(crate) vxlan: [AtomicU8; 8],
    /// Of tunnel packets.
    pub(crate) udp_port: AtomicU16,
    pub(crate) uplink_mac: [AtomicU8; 6],
    /// In the tunnel.
    pub(crate) vtep_mac: [AtomicU8; 6],
    pub(crate) gateway_mac: [AtomicU8; 6],
    /// Whether the uplink's address is none of the kernel's.
    pub(crate) is_apart: AtomicU8,
    /// Whether the kernel has opened connections since somebody asked.
    pub(crate) has_opened: AtomicU8,
    _unused: [AtomicU8; 2],
    /// Of the tables that openings have to be of; 0: the kernel opens no connections to services.
    pub(crate) serial: AtomicU64,
    /// When a worker has last looked, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) alive: AtomicU64,
}

const _: () = {
    assert!(size_of::<Bucket>() == 256 && std::mem::offset_of!(Slot, packets) == 40);
    assert!(size_of::<Door>() == 16 && size_of::<Way>() == 80);
    assert!(
        size_of::<Opening>() == 24 + CHOICES + 12 * BACKENDS && std::mem::offset_of!(Opening, choice) == 24
    );
    assert!(std::mem::offset_of!(Globals, epoch) == 0 && std::mem::offset_of!(Globals, serial) == 48);
    assert!(size_of::<Globals>() == 64 && std::mem::offset_of!(Globals, udp_port) == 24);
};
