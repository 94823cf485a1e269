//! One table of flows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::arena::{Arena, Budget, CHUNK};
use super::bucket::{Bucket, Slot};
use super::key::Key;
use super::memory::Zeroed;
use super::prefetch::{prefetch, prefetch_element};
use super::record::{Meta, Record, Route, Words};
use super::segment::Head;
use super::state::{Signal, State};
use super::tick::Tick;

/// Used slots of a bucket from which on a key goes to the emptier of its two: while there is at most one key per bucket,
/// when nearly all are in their primary one, and beyond that, when all of up to four still have to find a slot.
const CROWDED: [usize; 2] = [6, 4];

/// The flows of one IP version.
pub struct Table<K: Key> {
    buckets: Zeroed<Bucket>,
    pub(super) lines: Zeroed<K::Line>,
    /// Says how many chunks of records arenas have claimed: the first so many.
    head: Arc<Zeroed<Head>>,
    budget: Arc<Budget>,
}

/// A flow that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit<K> {
    /// The flow.
    pub record: Record<K>,
    /// Whether the key was that of the flow's replies.
    pub reply: bool,
    pub(super) index: u32,
    pub(super) meta: Meta,
}

impl<K> Hit<K> {
    /// The state of the flow.
    #[inline]
    pub fn state(&self) -> State {
        self.meta.state().unwrap_or(State::Ended)
    }

    /// When the last packet came.
    pub fn seen(&self) -> Tick {
        self.meta.seen()
    }
}

impl<K: Key> Hit<K> {
    /// Rewrites a packet of the flow, in the direction in which it was found.
    #[inline(always)]
    pub fn translate(&self, frame: &mut [u8], parsed: &culvert_packet::Parsed) {
        let Record { original, translated, .. } = &self.record;
        if self.reply {
            translated.reversed().translate(&original.reversed(), frame, parsed);
        } else {
            original.translate(translated, frame, parsed);
        }
    }
}

/// What the index tells of a key at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(pub(super) Slot);

impl Probe {
    /// There is no such flow.
    pub const ABSENT: Self = Self(Slot::ABSENT);

    /// Whether there is no such flow.
    #[inline(always)]
    pub fn is_absent(self) -> bool {
        self == Self::ABSENT
    }

    /// Whether there most likely is such a flow.
    #[inline]
    pub fn is_likely(self) -> bool {
        self.0 != Slot::ABSENT && self.0 != Slot::UNCLEAR
    }
}

/// Why a flow was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError<K> {
    /// The flow is there already.
    Exists(Hit<K>),
    /// Another flow has the same replies.
    ReplyTaken,
    /// There is no room.
    Full,
}

/// Where a key may be.
struct Place<'a> {
    buckets: &'a [Bucket],
    /// Number of the primary bucket.
    primary: usize,
    signature: u32,
}

impl<'a> Place<'a> {
    #[inline(always)]
    fn primary(&self) -> &'a Bucket {
        &self.buckets[self.primary & (self.buckets.len() - 1)]
    }

    #[inline]
    fn secondary(&self) -> &'a Bucket {
        // Odd, so that it is another bucket.
        let step = self.signature.wrapping_mul(0x9e37_79b1) as usize | 1;
        &self.buckets[(self.primary ^ step) & (self.buckets.len() - 1)]
    }
}

impl<K: Key> Table<K> {
    /// `lines` are as many records as the budget has.
    pub(super) fn new(
        budget: &Arc<Budget>,
        lines: Zeroed<K::Line>,
        head: &Arc<Zeroed<Head>>,
    ) -> Option<Self> {
        let records = budget.records();
        debug_assert_eq!(lines.len(), records as usize);
        // At most four keys per bucket of seven slots. With the rule in `link`, a million keys then all find a slot.
        let buckets = (records as usize * 2).div_ceil(4).next_power_of_two();
        Some(Self {
            buckets: Zeroed::new(buckets)?,
            lines,
            head: Arc::clone(head),
            budget: Arc::clone(budget),
        })
    }

    /// Most flows.
    pub fn capacity(&self) -> u64 {
        self.budget.records().into()
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> Place<'_> {
        Place { buckets: &self.buckets, primary: hash as usize, signature: (hash >> 32) as u32 }
    }

    #[inline(always)]
    pub(super) fn words(&self, index: u32) -> Words<'_, K> {
        Words::of(&self.lines[index as usize])
    }

    /// Fetches a record.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        prefetch(&self.lines[index as usize]);
    }

    /// Fetches what [`probe`](Self::probe) will look at.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        prefetch_element(&self.buckets, hash as usize & (self.buckets.len() - 1));
    }

    /// Looks where a flow nearly always is, in its primary bucket, and fetches what a look-up needs next.
    #[inline(always)]
    pub fn probe(&self, hash: u64) -> Probe {
        let place = self.place(hash);
        let slot = place.primary().glance(place.signature);
        match slot {
            Slot::ABSENT => {}
            Slot::UNCLEAR => prefetch(place.secondary()),
            _ => prefetch_element(&self.lines, slot.index() as usize),
        }
        Probe(slot)
    }

    /// What becomes of a probe that is neither sure of a flow nor that there is none, in a closer look: it nearly always is
    /// one of both then.
    #[cold]
    #[inline(never)]
    pub fn clarify(&self, hash: u64) -> Probe {
        let place = self.place(hash);
        let primary = place.primary().matches(place.signature);
        let secondary = place.primary().has_overflowed().then(|| place.secondary().matches(place.signature));
        let mut slots = primary.chain(secondary.into_iter().flatten());
        let slot = match (slots.next(), slots.next()) {
            (None, _) => Slot::ABSENT,
            (Some(slot), None) => {
                prefetch_element(&self.lines, slot.index() as usize);
                slot
            }
            _ => Slot::UNCLEAR,
        };
        Probe(slot)
    }

    /// The flow that a packet with this key belongs to. `hash` is [`Key::hash64`].
    #[inline]
    pub fn lookup(&self, key: &K, hash: u64) -> Option<Hit<K>> {
        self.find(&self.place(hash), key)
    }

    #[inline]
    fn find(&self, place: &Place<'_>, key: &K) -> Option<Hit<K>> {
        let find = |bucket: &Bucket| bucket.matches(place.signature).find_map(|slot| self.hit(slot, key));
        let hit = find(place.primary());
        if hit.is_none() && place.primary().has_overflowed() {
            return find(place.secondary());
        }
        hit
    }

    /// The flow behind a slot, if it has this key.
    #[inline(always)]
    fn hit(&self, slot: Slot, key: &K) -> Option<Hit<K>> {
        let (record, meta) = self.words(slot.index()).read()?;
        let reply = slot.is_reply();
        let own = if reply { record.translated.reversed() } else { record.original };
        (own == *key).then_some(Hit { record, reply, index: slot.index(), meta })
    }

    /// Notes that a packet of the flow came; writes only if that changes the time or the state. Returns how many more
    /// flows are [open](State::is_open) now: -1, 0 or 1.
    #[inline(always)]
    pub fn touch(&self, hit: &Hit<K>, now: Tick, signal: impl Into<Signal>) -> i32 {
        let (index, reply, meta, signal) = (hit.index, hit.reply, hit.meta, signal.into());
        if meta.after(now, reply, signal) == meta {
            return 0;
        }
        self.change(index, meta, |meta| meta.after(now, reply, signal))
    }

    /// Changes a live record's meta word, as long as the record is the same flow's and that is as open as it was. Returns
    /// how many more flows are open.
    #[cold]
    pub(super) fn change(&self, index: u32, from: Meta, change: impl Fn(Meta) -> Meta) -> i32 {
        let mut meta = from;
        while meta.is_live() && meta.is_open() == from.is_open() {
            let to = change(meta);
            match self.words(index).change_meta(meta, to) {
                Ok(()) => return i32::from(to.is_open()) - i32::from(meta.is_open()),
                Err(changed) if changed.sequence() == meta.sequence() => meta = changed,
                Err(_) => break,
            }
        }
        0
    }

    /// Replaces the route of a flow, unless somebody else did.
    pub fn reroute(&self, hit: &Hit<K>, route: Route) {
        self.words(hit.index).change_route(hit.meta.sequence(), hit.record.route, route);
    }

    /// Enters a flow in both directions, or not at all.
    pub fn insert(
        &self,
        arena: &mut Arena<K>,
        record: &Record<K>,
        now: Tick,
        state: State,
    ) -> Result<(), InsertError<K>> {
        let Some(index) = arena.allocate(self) else {
            return Err(InsertError::Full);
        };
        let sequence = self.words(index).write(record, now, state);
        // Replies come only after the first packet has gone, so that the order matters to nobody.
        let linked = match self.link(&record.translated.reversed(), true, index) {
            Ok(()) => self.link(&record.original, false, index),
            Err(InsertError::Exists(_)) => Err(InsertError::ReplyTaken),
            Err(error) => Err(error),
        };
        // A stray reply may have led another worker here: if it ends the flow first, the sweep finds the record.
        if linked.is_err() && self.end(index, sequence).is_some() {
            arena.give_back(self, index);
        }
        linked
    }

    /// Ends a flow and returns the state that it was in; `None` if somebody else ended it. Its record goes back to the arena
    /// that it came from, later.
    pub fn remove(&self, hit: &Hit<K>) -> Option<State> {
        self.end(hit.index, hit.meta.sequence())
    }

    pub(super) fn end(&self, index: u32, sequence: u32) -> Option<State> {
        let words = self.words(index);
        let mut meta = words.meta();
        loop {
            if meta.sequence() != sequence || !meta.is_live() {
                return None;
            }
            match words.change_meta(meta, Meta::new(sequence, meta.seen(), State::Ending)) {
                Ok(()) => break,
                Err(changed) => meta = changed,
            }
        }
        // From here on nobody else changes the record: it is neither live nor free.
        let record = words.read_unchecked();
        self.unlink(&record.original, false, index);
        self.unlink(&record.translated.reversed(), true, index);
        let ending = Meta::new(sequence, meta.seen(), State::Ending);
        let ended = words.change_meta(ending, Meta::new(sequence, meta.seen(), State::Ended));
        debug_assert!(ended.is_ok(), "the record was changed while its flow ended");
        meta.state()
    }

    fn link(&self, key: &K, reply: bool, index: u32) -> Result<(), InsertError<K>> {
        let place = self.place(key.hash64());
        let slot = Slot::new(place.signature, reply, index);
        {
            let mut primary = place.primary().lock();
            self.refuse_second(&place, key)?;
            // The primary bucket as long as it is not crowded, which spares most look-ups the other.
            if primary.used() < self.crowded() && primary.put(slot) {
                return Ok(());
            }
        }
        let (mut primary, mut secondary) = place.primary().lock_both(place.secondary());
        self.refuse_second(&place, key)?;
        // Then the emptier one.
        if primary.used() <= secondary.used() && primary.put(slot) {
            return Ok(());
        }
        if !secondary.put(slot) {
            return Err(InsertError::Full);
        }
        primary.overflow();
        Ok(())
    }

    #[inline]
    fn crowded(&self) -> usize {
        CROWDED[usize::from(self.claimed() as usize * 2 > self.buckets.len())]
    }

    /// An error if the key is linked already. Its primary bucket must be locked.
    #[inline]
    fn refuse_second(&self, place: &Place<'_>, key: &K) -> Result<(), InsertError<K>> {
        if place.primary().glance(place.signature) == Slot::ABSENT {
            return Ok(());
        }
        self.find(place, key).map_or(Ok(()), |hit| Err(InsertError::Exists(hit)))
    }

    fn unlink(&self, key: &K, reply: bool, index: u32) {
        let place = self.place(key.hash64());
        let slot = Slot::new(place.signature, reply, index);
        if place.primary().lock().take(slot) {
            return;
        }
        let (mut primary, mut secondary) = place.primary().lock_both(place.secondary());
        if secondary.take(slot) {
            primary.shrink();
        }
    }

    /// Claims the next chunk of records; `None` if there is none left, or the limit is reached.
    pub(super) fn claim(&self) -> Option<u32> {
        if !self.budget.take() {
            return None;
        }
        // The budget is as large as the table, so that there is a chunk for whoever got one.
        Some(self.chunks().fetch_add(1, Ordering::Relaxed))
    }

    fn chunks(&self) -> &AtomicU32 {
        &self.head[0].claimed[K::VERSION]
    }

    /// Records that were ever in use at the same time, in whole chunks.
    #[inline]
    pub fn claimed(&self) -> u32 {
        self.chunks().load(Ordering::Relaxed) * CHUNK
    }

    /// All flows, while they come and go.
    pub fn iter(&self) -> impl Iterator<Item = Hit<K>> {
        (0..self.claimed()).filter_map(|index| {
            let (record, meta) = self.words(index).read()?;
            Some(Hit { record, reply: false, index, meta })
        })
    }
}

impl<K: Key> fmt::Debug for Table<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
