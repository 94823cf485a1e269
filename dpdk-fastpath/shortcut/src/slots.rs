//! What workers write: slots of connections, and what they read of them again.
//!
//! Four slots make a bucket; a connection lies in the one that its hash names, once for each direction, or not at all: this is
//! a cache of what the fast path has decided. A bucket is locked while one of its slots is given or taken back by a worker;
//! programs in the kernel take no lock. They use a slot if its epoch is the present one, so a slot is valid from when
//! its epoch is written, last of all. When it is taken back the epoch goes first, and nobody gets the slot until every program
//! that may still be at it has long come to its end. Programs give free slots, too, to connections about which nothing is to
//! be decided; whoever wants a free slot claims it by its epoch.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use culvert_packet::flow::{FlowKey4, Tenant};
use culvert_packet::ip::Protocol;
use culvert_packet::tcp::TcpFlags;

use crate::layout::{AWAITED, Bucket, CLAIMED, DOORS, IS_UDP, IS_WAY, OPENED, RESTING, SLOTS, Slot, WAYS};
use crate::memory::Memory;
use crate::openings::Openings;

/// Parts of a second for which a slot that was taken back is nobody's.
const REST: u64 = 100;

/// Seconds after which a slot without packets is taken back; and one whose connection has not been answered, or which is of UDP,
/// where nothing tells of the end.
const IDLE: u64 = 10;
const UNANSWERED: u64 = 2;

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
    pub(crate) fn to_bits(self) -> Option<u32> {
        match self {
            Self::Door(door) => (u32::from(door) < DOORS).then_some(door.into()),
            Self::Way(way) => (way < WAYS).then_some(IS_WAY | way),
        }
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        if bits & IS_WAY == 0 { Self::Door(bits as u16) } else { Self::Way(bits & !SCOPE) }
    }

    /// What tells connections apart besides addresses and ports.
    fn scope(self, protocol: Protocol) -> u32 {
        let is_way = if let Self::Way(_) = self { IS_WAY } else { 0 };
        is_way | if protocol == Protocol::UDP { IS_UDP } else { 0 }
    }
}

const SCOPE: u32 = IS_WAY | IS_UDP;

/// One direction of a connection of TCP or UDP, decided. Both keys are those of the default tenant.
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
    /// The control bits of all of them; none of UDP.
    pub flags: TcpFlags,
}

/// What workers remember of a slot.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    /// When it was given, or its last packet was noticed, or when it was taken back; 0: it was never looked at. It may be
    /// later than when a review began that comes here.
    since: u64,
    /// Whether its connection has been answered, for all that is known.
    is_answered: bool,
}

/// All slots, shared by the workers. Times are numbers of a clock, never 0, that runs at the same pace for all.
#[derive(Debug)]
pub struct Slots {
    memory: Arc<Memory>,
    watches: Vec<Mutex<[Watch; SLOTS]>>,
    given: AtomicUsize,
    pub(crate) openings: Openings,
    second: u64,
    rest: u64,
    unanswered: u64,
    idle: u64,
}

impl Slots {
    /// All as they are in the memory. The clock ticks `hz` times in a second.
    pub fn new(memory: Arc<Memory>, hz: u64) -> Self {
        let buckets = memory.buckets().len();
        debug_assert!(buckets.is_power_of_two(), "as the hash is cut");
        Self {
            memory,
            watches: (0..buckets).map(|_| Mutex::default()).collect(),
            given: AtomicUsize::new(0),
            openings: Openings::default(),
            second: hz,
            rest: hz / REST,
            unanswered: hz * UNANSWERED,
            idle: hz * IDLE,
        }
    }

    /// The maps.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Ticks of the clock in a second.
    pub(crate) fn second(&self) -> u64 {
        self.second
    }

    /// Slots in use, as far as workers know.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub fn capacity(&self) -> usize {
        self.watches.len() * SLOTS
    }

    /// Whether all slots are free, and nothing that went by is unknown.
    pub fn is_empty(&self) -> bool {
        self.memory.occupied().iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Whether packets may come from there and go to there by the short cut.
    #[inline]
    pub fn is_open(&self, end: End) -> bool {
        self.memory.is_open(end)
    }

    /// Lets packets of a connection go by the short cut as long as `epoch` is in force. `false` if there is no room, or
    /// another worker is at it: then they go by the fast path.
    pub fn enter(&self, epoch: u32, direction: &Direction, now: u64) -> bool {
        self.enter_with((0, || {}), epoch, direction, now)
    }

    /// The same for answers to a SYN: until there is one, only what may be it goes by the short cut. They do so after what is to be done
    /// `first`, if at all.
    pub fn enter_awaited(&self, epoch: u32, direction: &Direction, now: u64, first: impl FnOnce()) -> bool {
        self.enter_with((AWAITED, first), epoch, direction, now)
    }

    fn enter_with(
        &self,
        (flags, first): (u64, impl FnOnce()),
        epoch: u32,
        direction: &Direction,
        now: u64,
    ) -> bool {
        let (Some(number), Some(way_out)) = (direction.from.to_bits(), direction.to.to_bits()) else {
            return false;
        };
        let way_in = number | direction.from.scope(direction.key.protocol());
        let at = self.bucket_of(direction.from, &direction.key);
        let Some((bucket, watches)) = self.bucket(at) else { return false };
        let Ok(mut watches) = watches.try_lock() else { return false };
        let words = Words { way_in, way_out, direction };
        for (slot, watch) in bucket.slots.iter().zip(&mut *watches) {
            if is_given(slot) && is_of(slot, direction.from, &direction.key) {
                if slot.epoch.load(Ordering::Relaxed) == epoch && words.are_in(slot) {
                    if flags == 0 {
                        // The first answer may have been unusual, and gone elsewhere.
                        slot.flags.fetch_and(!AWAITED, Ordering::Relaxed);
                    }
                    first();
                    if watch.since == 0 {
                        // Given by the kernel.
                        self.given.fetch_add(1, Ordering::Relaxed);
                    }
                    watch.since = watch.since.max(now);
                    return true;
                }
                self.take_back(slot, watch, now);
            }
        }
        let claim = |slot: &Slot| {
            slot.epoch.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let Some(free) = bucket.slots.iter().position(claim) else { return false };
        words.write(&bucket.slots[free], flags);
        watches[free] = Watch { since: now, is_answered: false };
        self.given.fetch_add(1, Ordering::Relaxed);
        self.memory.occupied()[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
        first();
        bucket.slots[free].epoch.store(epoch, Ordering::Release);
        true
    }

    /// Keeps one direction of a connection for as long without packets as if that had been answered.
    pub fn keep(&self, direction: &Direction) {
        let at = self.bucket_of(direction.from, &direction.key);
        let Some((bucket, watches)) = self.bucket(at) else { return };
        let Ok(mut watches) = watches.try_lock() else { return };
        for (slot, watch) in bucket.slots.iter().zip(&mut *watches) {
            if is_given(slot) && is_of(slot, direction.from, &direction.key) {
                watch.is_answered = true;
            }
        }
    }

    /// What becomes of packets of a connection that come from there, if they go by the short cut under this epoch.
    pub fn direction(&self, epoch: u32, from: End, key: &FlowKey4) -> Option<Direction> {
        let slot = self.slot(from, key).filter(|slot| slot.epoch.load(Ordering::Acquire) == epoch)?;
        Some(direction_in(slot))
    }

    /// Whether packets of a connection are to answer a SYN, and none has come that may be the first one; `None` if they do not go by the
    /// short cut under this epoch.
    pub fn is_awaited(&self, epoch: u32, from: End, key: &FlowKey4) -> Option<bool> {
        let slot = self.slot(from, key).filter(|slot| slot.epoch.load(Ordering::Acquire) == epoch)?;
        Some(slot.flags.load(Ordering::Relaxed) & AWAITED != 0)
    }

    /// Does what the kernel does when a packet goes by the short cut, for tests without it. `false` if there is no slot for it.
    #[doc(hidden)]
    pub fn pass(&self, from: End, key: &FlowKey4, bytes: u64, flags: TcpFlags) -> bool {
        let Some(slot) = self.slot(from, key) else { return false };
        if slot.flags.load(Ordering::Relaxed) & AWAITED != 0 {
            if !flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::RST) {
                return false;
            }
            slot.flags.fetch_and(!AWAITED, Ordering::Relaxed);
        }
        slot.bytes.fetch_add(bytes, Ordering::Relaxed);
        slot.flags.fetch_or(flags.0.into(), Ordering::Relaxed);
        slot.packets.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(crate) fn slot(&self, from: End, key: &FlowKey4) -> Option<&Slot> {
        let bucket = self.memory.buckets().get(self.bucket_of(from, key))?;
        bucket.slots.iter().find(|slot| is_given(slot) && is_of(slot, from, key))
    }

    /// Takes one direction of a connection back, wherever its packets come from. They go by the fast path when this returns,
    /// but for those that are under way.
    pub fn forget(&self, key: &FlowKey4, now: u64) {
        for from in [End::Door(0), End::Way(0)] {
            self.forget_from(from, key, now);
        }
    }

    fn forget_from(&self, from: End, key: &FlowKey4, now: u64) {
        let Some((bucket, watches)) = self.bucket(self.bucket_of(from, key)) else { return };
        // A worker that panicked has not left anything half done that matters here.
        let mut watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, watch) in bucket.slots.iter().zip(&mut *watches) {
            if is_given(slot) && is_of(slot, from, key) {
                self.take_back(slot, watch, now);
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
        for _ in 0..self.memory.occupied().len() {
            let word = *cursor % self.memory.occupied().len();
            let mut bits = self.memory.occupied()[word].load(Ordering::Relaxed);
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
        let Some((bucket, watches)) = self.bucket(at) else { return };
        let Ok(mut watches) = watches.try_lock() else { return };
        // What is entered from here on sets the bit again.
        let (word, bit) = (&self.memory.occupied()[at / 64], 1 << (at % 64));
        word.fetch_and(!bit, Ordering::SeqCst);
        let mut is_occupied = false;
        for (slot, watch) in bucket.slots.iter().zip(&mut *watches) {
            self.review_slot(slot, watch, epoch, now, tell);
            is_occupied |= slot.epoch.load(Ordering::SeqCst) != 0;
        }
        if is_occupied {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    fn review_slot(
        &self,
        slot: &Slot,
        watch: &mut Watch,
        epoch: u32,
        now: u64,
        tell: &mut impl FnMut(&Passed),
    ) {
        match slot.epoch.load(Ordering::Acquire) {
            0 | CLAIMED => {}
            // It is to be heard of first.
            _ if slot.flags.load(Ordering::Relaxed) & OPENED != 0 => {}
            RESTING if now.saturating_sub(watch.since) > self.rest => {
                // Since it was taken back, or just before.
                let passed = passed(slot);
                if passed.packets > 0 {
                    tell(&passed);
                }
                *watch = Watch::default();
                slot.epoch.store(0, Ordering::Release);
            }
            RESTING => {}
            own => {
                if watch.since == 0 {
                    // Given by the kernel.
                    watch.since = now;
                    self.given.fetch_add(1, Ordering::Relaxed);
                }
                let passed = passed(slot);
                if passed.packets > 0 {
                    watch.since = now;
                    // An answer to a SYN is none yet.
                    let opens = passed.packets == 1 && passed.flags.contains(TcpFlags::SYN);
                    watch.is_answered |= passed.flags.contains(TcpFlags::ACK) && !opens;
                    tell(&passed);
                }
                let is_over = passed.flags.contains(TcpFlags::FIN) || passed.flags.contains(TcpFlags::RST);
                let may_rest = watch.is_answered && passed.key.protocol() == Protocol::TCP;
                let patience = if may_rest { self.idle } else { self.unanswered };
                if is_over || own != epoch || now.saturating_sub(watch.since) > patience {
                    self.take_back(slot, watch, now);
                }
            }
        }
    }

    fn take_back(&self, slot: &Slot, watch: &mut Watch, now: u64) {
        slot.epoch.store(RESTING, Ordering::Release);
        if watch.since != 0 {
            self.given.fetch_sub(1, Ordering::Relaxed);
        }
        watch.since = now;
    }

    /// A bucket, with what is remembered of its slots.
    fn bucket(&self, at: usize) -> Option<(&Bucket, &Mutex<[Watch; SLOTS]>)> {
        self.memory.buckets().get(at).zip(self.watches.get(at))
    }

    /// As `find` in `bpf/slots.h`.
    pub(crate) fn bucket_of(&self, from: End, key: &FlowKey4) -> usize {
        let (addresses, ports) = key.to_words();
        let ports = u64::from(from.scope(key.protocol())) << 32 | u64::from(ports);
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

    fn write(&self, slot: &Slot, flags: u64) {
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
        slot.flags.store(flags, store);
    }
}

/// Whether it is somebody's, of whatever epoch.
fn is_given(slot: &Slot) -> bool {
    !matches!(slot.epoch.load(Ordering::Acquire), 0 | RESTING | CLAIMED)
}

fn is_of(slot: &Slot, from: End, key: &FlowKey4) -> bool {
    let ((addresses, ports), load) = (key.to_words(), Ordering::Relaxed);
    slot.src.load(load) == addresses as u32
        && slot.dst.load(load) == (addresses >> 32) as u32
        && slot.ports.load(load) == ports
        && slot.way_in.load(load) & SCOPE == from.scope(key.protocol())
}

/// The key of addresses and ports as they are in headers.
fn key_of(protocol: Protocol, src: &AtomicU32, dst: &AtomicU32, ports: &AtomicU32) -> FlowKey4 {
    let word = |word: &AtomicU32| word.load(Ordering::Relaxed).to_ne_bytes();
    let [a, b, c, d] = word(ports);
    let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (src, dst) = (Ipv4Addr::from(word(src)), Ipv4Addr::from(word(dst)));
    FlowKey4::new(Tenant::DEFAULT, protocol, (src, src_port), (dst, dst_port))
}

fn protocol_of(slot: &Slot) -> Protocol {
    if slot.way_in.load(Ordering::Relaxed) & IS_UDP == 0 { Protocol::TCP } else { Protocol::UDP }
}

/// What is in a slot that is somebody's.
pub(crate) fn direction_in(slot: &Slot) -> Direction {
    let (load, protocol) = (Ordering::Relaxed, protocol_of(slot));
    Direction {
        from: End::from_bits(slot.way_in.load(load)),
        key: key_of(protocol, &slot.src, &slot.dst, &slot.ports),
        becomes: key_of(protocol, &slot.new_src, &slot.new_dst, &slot.new_ports),
        to: End::from_bits(slot.way_out.load(load)),
        tunnel_port: u16::from_be(slot.tunnel_port.load(load)),
    }
}

/// Of a slot's flags, those of TCP.
const SEEN: u64 = u8::MAX as u64;

/// Takes what the kernel has counted.
fn passed(slot: &Slot) -> Passed {
    let load = Ordering::Relaxed;
    let protocol = protocol_of(slot);
    // Which the kernel counts last.
    let packets = slot.packets.load(Ordering::Acquire);
    let take = |word: &AtomicU64| if packets == 0 { 0 } else { word.swap(0, load) };
    Passed {
        from: End::from_bits(slot.way_in.load(load)),
        key: key_of(protocol, &slot.src, &slot.dst, &slot.ports),
        to: End::from_bits(slot.way_out.load(load)),
        packets: take(&slot.packets),
        bytes: take(&slot.bytes),
        flags: TcpFlags(if packets == 0 { 0 } else { slot.flags.fetch_and(!SEEN, load) as u8 }),
    }
}

#[cfg(test)]
mod tests;
