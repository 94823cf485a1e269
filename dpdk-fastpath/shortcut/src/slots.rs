//! What workers write: slots of connections, and what they read of them again.
//!
//! Four slots make a bucket; a connection lies in the one that its hash names, once for each direction, or not at all: this is
//! a cache of what the fast path has decided. A bucket is locked while one of its slots is given or taken back, by workers
//! only; programs in the kernel take no lock. They use a slot if its epoch is the present one, so a slot is valid from when
//! its epoch is written, last of all. When it is taken back the epoch goes first, and nobody gets the slot until every program
//! that may still be at it has long come to its end.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::tcp::TcpFlags;

use crate::layout::{DOORS, IS_WAY, SLOTS, Slot, WAYS};
use crate::memory::Memory;

/// Parts of a second for which a slot that was taken back is nobody's.
const REST: u64 = 100;

/// Seconds after which a slot without packets is taken back.
const IDLE: u64 = 10;

/// Where packets come from or go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A pod of this node, by the number of its port.
    Door(u16),
    /// Another node, by its slot.
    Way(u32),
}

impl End {
    /// `None` if there is no room for it in the maps.
    fn to_bits(self) -> Option<u32> {
        match self {
            Self::Door(door) => (u32::from(door) < DOORS).then_some(door.into()),
            Self::Way(way) => (way < WAYS).then_some(IS_WAY | way),
        }
    }

    const fn from_bits(bits: u32) -> Self {
        if bits & IS_WAY == 0 { Self::Door(bits as u16) } else { Self::Way(bits & !IS_WAY) }
    }

    const fn scope(self) -> u32 {
        if let Self::Way(_) = self { IS_WAY } else { 0 }
    }
}

/// One direction of a TCP connection, decided. Both keys are those of the default tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Where its packets come from.
    pub from: End,
    /// Its packets as they come.
    pub key: FlowKey4,
    /// As they go.
    pub becomes: FlowKey4,
    /// Where they go.
    pub to: End,
    /// UDP source port of tunnel packets.
    pub tunnel_port: u16,
}

/// What went by a slot since it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Where from.
    pub from: End,
    /// Packets of which flow, as they came.
    pub key: FlowKey4,
    /// Where to.
    pub to: End,
    /// How many; super-packets count as one.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// The control bits of all of them.
    pub flags: TcpFlags,
}

/// What is known of a slot besides what the kernel sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    /// Since its last packet was noticed, or since it was given.
    Given(u64),
    /// Since it was taken back.
    Resting(u64),
}

/// All slots, shared by the workers. Times are numbers of a clock that runs at the same pace for all.
#[derive(Debug)]
pub struct Slots {
    memory: Arc<Memory>,
    uses: Vec<Mutex<[Use; SLOTS]>>,
    /// A bit for each bucket in which not all slots are free.
    occupied: Vec<AtomicU64>,
    given: AtomicUsize,
    rest: u64,
    idle: u64,
}

impl Slots {
    /// All free, whatever lies in the memory. The clock ticks `hz` times in a second.
    pub fn new(memory: Arc<Memory>, hz: u64) -> Self {
        let buckets = memory.buckets().len();
        debug_assert!(buckets.is_power_of_two(), "as the hash is cut");
        Self {
            memory,
            uses: (0..buckets).map(|_| Mutex::new([Use::Free; SLOTS])).collect(),
            occupied: (0..buckets.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            given: AtomicUsize::new(0),
            rest: hz / REST,
            idle: hz * IDLE,
        }
    }

    /// The maps.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Slots in use.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    /// Whether all slots are free, and nothing that went by is unknown.
    pub fn is_empty(&self) -> bool {
        self.occupied.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Whether packets may come from there and go to there by the short cut.
    pub fn joins(&self, from: End, to: End) -> bool {
        let is_open = |end| match end {
            End::Door(_) => self.memory.has_door(end),
            End::Way(_) => self.memory.has_way(end),
        };
        from != to && is_open(from) && is_open(to)
    }

    /// Lets packets of a connection go by the short cut as long as `epoch` is in force. `false` if there is no room, or
    /// another worker is at it: then they go by the fast path.
    pub fn enter(&self, epoch: u32, direction: &Direction, now: u64) -> bool {
        let (Some(way_in), Some(way_out)) = (direction.from.to_bits(), direction.to.to_bits()) else {
            return false;
        };
        let at = self.bucket_of(direction.from, &direction.key);
        let (Some(bucket), Some(uses)) = (self.memory.buckets().get(at), self.uses.get(at)) else {
            return false;
        };
        let Ok(mut uses) = uses.try_lock() else { return false };
        let words = Words { way_in, way_out, direction };
        for (slot, usage) in bucket.slots.iter().zip(&mut *uses) {
            if matches!(usage, Use::Given(_)) && is_of(slot, direction.from, &direction.key) {
                if slot.epoch.load(Ordering::Relaxed) == epoch && words.are_in(slot) {
                    return true;
                }
                self.take_back(slot, usage, now);
            }
        }
        let Some(free) = uses.iter().position(|usage| *usage == Use::Free) else { return false };
        words.write(&bucket.slots[free], epoch);
        uses[free] = Use::Given(now);
        self.given.fetch_add(1, Ordering::Relaxed);
        self.occupied[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
        true
    }

    /// Takes one direction of a connection back, wherever its packets come from. They go by the fast path when this returns,
    /// but for those that are under way.
    pub fn forget(&self, key: &FlowKey4, now: u64) {
        for from in [End::Door(0), End::Way(0)] {
            self.forget_from(from, key, now);
        }
    }

    fn forget_from(&self, from: End, key: &FlowKey4, now: u64) {
        let at = self.bucket_of(from, key);
        let (Some(bucket), Some(uses)) = (self.memory.buckets().get(at), self.uses.get(at)) else { return };
        // A worker that panicked has not left anything half done that matters here.
        let mut uses = uses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (slot, usage) in bucket.slots.iter().zip(&mut *uses) {
            if matches!(usage, Use::Given(_)) && is_of(slot, from, key) {
                self.take_back(slot, usage, now);
            }
        }
    }

    /// Looks at up to `most` buckets that are in use, from `cursor` on, which moves on: tells of what went by their slots, and
    /// takes those back that are of another epoch, or over, or without packets for long.
    pub fn review(
        &self,
        cursor: &mut usize,
        most: usize,
        epoch: u32,
        now: u64,
        mut tell: impl FnMut(&Passed),
    ) {
        let mut looked = 0;
        for _ in 0..self.occupied.len() {
            let word = *cursor % self.occupied.len();
            let mut bits = self.occupied[word].load(Ordering::Relaxed);
            while bits != 0 {
                self.review_bucket(word * 64 + bits.trailing_zeros() as usize, epoch, now, &mut tell);
                bits &= bits - 1;
                looked += 1;
            }
            *cursor = word + 1;
            if looked >= most {
                break;
            }
        }
    }

    fn review_bucket(&self, at: usize, epoch: u32, now: u64, tell: &mut impl FnMut(&Passed)) {
        let (bucket, Ok(mut uses)) = (&self.memory.buckets()[at], self.uses[at].try_lock()) else { return };
        for (slot, usage) in bucket.slots.iter().zip(&mut *uses) {
            match *usage {
                Use::Free => {}
                Use::Given(since) => {
                    let passed = passed(slot);
                    let is_over =
                        passed.flags.contains(TcpFlags::FIN) || passed.flags.contains(TcpFlags::RST);
                    if passed.packets > 0 {
                        *usage = Use::Given(now);
                        tell(&passed);
                    }
                    let is_idle = passed.packets == 0 && now.wrapping_sub(since) > self.idle;
                    if is_over || is_idle || slot.epoch.load(Ordering::Relaxed) != epoch {
                        self.take_back(slot, usage, now);
                    }
                }
                Use::Resting(since) if now.wrapping_sub(since) > self.rest => {
                    let passed = passed(slot);
                    if passed.packets > 0 {
                        tell(&passed);
                    }
                    *usage = Use::Free;
                }
                Use::Resting(_) => {}
            }
        }
        if *uses == [Use::Free; SLOTS] {
            self.occupied[at / 64].fetch_and(!(1 << (at % 64)), Ordering::Relaxed);
        }
    }

    fn take_back(&self, slot: &Slot, usage: &mut Use, now: u64) {
        slot.epoch.store(0, Ordering::Release);
        *usage = Use::Resting(now);
        self.given.fetch_sub(1, Ordering::Relaxed);
    }

    /// As `find` in `bpf/shortcut.c`.
    fn bucket_of(&self, from: End, key: &FlowKey4) -> usize {
        let (addresses, ports) = key.to_words();
        let ports = u64::from(from.scope()) << 32 | u64::from(ports);
        let hash = addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ports.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (hash ^ hash >> 29 ^ hash >> 47) as usize & (self.memory.buckets().len() - 1)
    }
}

/// A direction as it lies in a slot.
struct Words<'a> {
    way_in: u32,
    way_out: u32,
    direction: &'a Direction,
}

impl Words<'_> {
    fn are_in(&self, slot: &Slot) -> bool {
        let ((addresses, ports), load) = (self.direction.becomes.to_words(), Ordering::Relaxed);
        slot.way_in.load(load) == self.way_in
            && slot.way_out.load(load) == self.way_out
            && slot.new_src.load(load) == addresses as u32
            && slot.new_dst.load(load) == (addresses >> 32) as u32
            && slot.new_ports.load(load) == ports
    }

    fn write(&self, slot: &Slot, epoch: u32) {
        let Direction { key, becomes, tunnel_port, .. } = self.direction;
        let ((addresses, ports), store) = (key.to_words(), Ordering::Relaxed);
        slot.src.store(addresses as u32, store);
        slot.dst.store((addresses >> 32) as u32, store);
        slot.ports.store(ports, store);
        slot.way_in.store(self.way_in, store);
        slot.way_out.store(self.way_out, store);
        let (addresses, ports) = becomes.to_words();
        slot.new_src.store(addresses as u32, store);
        slot.new_dst.store((addresses >> 32) as u32, store);
        slot.new_ports.store(ports, store);
        slot.tunnel_port.store(tunnel_port.to_be(), store);
        slot.packets.store(0, store);
        slot.bytes.store(0, store);
        slot.flags.store(0, store);
        slot.epoch.store(epoch, Ordering::Release);
    }
}

fn is_of(slot: &Slot, from: End, key: &FlowKey4) -> bool {
    let ((addresses, ports), load) = (key.to_words(), Ordering::Relaxed);
    slot.src.load(load) == addresses as u32
        && slot.dst.load(load) == (addresses >> 32) as u32
        && slot.ports.load(load) == ports
        && slot.way_in.load(load) & IS_WAY == from.scope()
}

/// Takes what the kernel has counted.
fn passed(slot: &Slot) -> Passed {
    let load = Ordering::Relaxed;
    let address = |word: u32| Ipv4Addr::from(word.to_ne_bytes());
    let [a, b, c, d] = slot.ports.load(load).to_ne_bytes();
    let packets = slot.packets.load(load);
    let take = |word: &AtomicU64| if packets == 0 { 0 } else { word.swap(0, load) };
    Passed {
        from: End::from_bits(slot.way_in.load(load)),
        key: FlowKey4::new(
            Tenant::DEFAULT,
            Protocol::TCP,
            (address(slot.src.load(load)), u16::from_be_bytes([a, b])),
            (address(slot.dst.load(load)), u16::from_be_bytes([c, d])),
        ),
        to: End::from_bits(slot.way_out.load(load)),
        packets: take(&slot.packets),
        bytes: take(&slot.bytes),
        flags: TcpFlags(take(&slot.flags) as u8),
    }
}
