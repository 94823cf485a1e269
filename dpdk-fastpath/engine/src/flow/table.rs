//! One table of flows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_packet::tcp::TcpFlags;

use super::answers::{Answers, AnswersView};
use super::arena::{Arena, Budget, CHUNK};
use super::bucket::{Bucket, Slot};
use super::index::{Index, LinkError, View};
use super::key::{Deltas, Key};
use super::memory::Zeroed;
use super::prefetch::{prefetch, prefetch_element};
use super::record::{Meta, Record, Route, Words};
use super::segment::Head;
use super::state::{Signal, State};
use super::tick::Tick;

/// The flows of one IP version.
pub struct Table<K: Key> {
    index: Index,
    pub(super) lines: Zeroed<K::Line>,
    answers: Answers,
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

    /// There may be such a flow, but it is not known where.
    pub const UNCLEAR: Self = Self(Slot::UNCLEAR);

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

/// What follows from the keys of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// [Hash](Key::hash64) of the key of the client's packets.
    pub hash: u64,
    /// That of the key of what comes back.
    pub answer: u64,
    /// What the translation does to checksums.
    pub deltas: Deltas,
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

/// A table as it is while the packets of a burst are looked up.
#[derive(Debug, Clone, Copy)]
pub struct Burst<'a, K: Key> {
    table: &'a Table<K>,
    lines: &'a [K::Line],
    index: View<'a>,
}

impl<K: Key> Burst<'_, K> {
    /// Fetches what [`probe`](Self::probe) will look at.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Looks where a flow nearly always is, in its primary bucket, and fetches what a look-up needs next.
    #[inline(always)]
    pub fn probe(&self, hash: u64) -> Probe {
        let slot = self.index.glance(hash);
        if slot != Slot::ABSENT && slot != Slot::UNCLEAR {
            prefetch_element(self.lines, slot.place());
        }
        Probe(slot)
    }

    /// Fetches what [`clarify`](Self::clarify) will look at.
    #[inline]
    pub fn prefetch_closely(&self, hash: u64) {
        self.table.index.prefetch_closely(hash);
    }

    /// What becomes of a probe that is neither sure of a flow nor that there is none, in a closer look: it nearly always is
    /// one of both then.
    #[cold]
    #[inline(never)]
    pub fn clarify(&self, hash: u64) -> Probe {
        let slot = self.table.index.clarify(hash);
        prefetch_element(&self.table.lines, slot.place());
        Probe(slot)
    }
}

impl<K: Key> Table<K> {
    /// `lines` are as many records as the budget can need, `buckets` those of an index for as many keys as it grants.
    pub(super) fn new(
        budget: &Arc<Budget>,
        lines: Zeroed<K::Line>,
        buckets: Zeroed<Bucket>,
        head: &Arc<Zeroed<Head>>,
    ) -> Option<Self> {
        debug_assert_eq!(lines.len(), budget.most_records() as usize);
        Some(Self {
            index: Index::new(buckets)?,
            lines,
            answers: Answers::new()?,
            head: Arc::clone(head),
            budget: Arc::clone(budget),
        })
    }

    /// Most flows.
    pub fn capacity(&self) -> u64 {
        self.budget.records().into()
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

    /// For look-ups of several keys at once.
    #[inline(always)]
    pub fn burst(&self) -> Burst<'_, K> {
        Burst { table: self, lines: &self.lines, index: self.index.view() }
    }

    /// Which answers may come: any as long as there may be flows that are not entered, or if the caller knows of `others`.
    #[inline]
    pub fn answers(&self, others: bool) -> AnswersView<'_> {
        self.answers.view(others || self.index.is_partial())
    }

    /// The flow that a packet with this key belongs to. `hash` is [`Key::hash64`].
    #[inline]
    pub fn lookup(&self, key: &K, hash: u64) -> Option<Hit<K>> {
        self.index.find(hash, |slot| self.hit(slot, key))
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

    /// Notes that packets of TCP or UDP have gone without this table; `flags` are the control bits of all of them. Returns
    /// what [`touch`](Self::touch) does.
    pub fn catch_up(&self, hit: &Hit<K>, now: Tick, flags: TcpFlags) -> i32 {
        self.change(hit.index, hit.meta, |meta| meta.after_many(now, hit.reply, flags))
    }

    /// Notes that answers to the flow may go without this table from now on.
    pub fn unwatch(&self, hit: &Hit<K>) {
        if hit.state() == State::SynSent {
            self.change(hit.index, hit.meta, Meta::unwatched);
        }
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

    /// Lets a flow that was found begin once more, in this state. Returns how many more flows are [open](State::is_open) now; `None`
    /// if somebody has ended it.
    pub fn begin_again(&self, hit: &Hit<K>, now: Tick, state: State) -> Option<i32> {
        let mut meta = hit.meta;
        while meta.is_live() && meta.sequence() == hit.meta.sequence() {
            let to = Meta::new(meta.sequence(), now, state);
            match self.words(hit.index).change_meta(meta, to) {
                Ok(()) => return Some(i32::from(to.is_open()) - i32::from(meta.is_open())),
                Err(changed) => meta = changed,
            }
        }
        None
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
        let Record { original, translated, .. } = record;
        let answer = translated.reversed().hash64();
        let derived = Derived { hash: original.hash64(), answer, deltas: original.deltas(translated) };
        self.insert_derived(arena, record, derived, now, state)
    }

    /// The same, where that is known which follows from its keys.
    #[inline(always)]
    pub fn insert_derived(
        &self,
        arena: &mut Arena<K>,
        record: &Record<K>,
        derived: Derived,
        now: Tick,
        state: State,
    ) -> Result<(), InsertError<K>> {
        let Some(index) = arena.allocate(self) else {
            return Err(InsertError::Full);
        };
        let sequence = self.words(index).write(record, derived.deltas, now, state);
        // Replies come only after the first packet has gone, so that the order matters to nobody.
        let linked = match self.link(&record.translated.reversed(), derived.answer, true, index) {
            Ok(()) => self.link(&record.original, derived.hash, false, index),
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

    #[inline(always)]
    fn link(&self, key: &K, hash: u64, reply: bool, index: u32) -> Result<(), InsertError<K>> {
        let slot = Slot::new((hash >> 32) as u32, reply, index);
        if reply {
            self.answers.add(key);
        }
        let error = loop {
            match self.index.link(hash, slot, self.keys(), |slot| self.hit(slot, key).is_some()) {
                Ok(()) => return Ok(()),
                Err(LinkError::Full(size)) if self.grow(size) => {}
                Err(LinkError::Full(_)) => break InsertError::Full,
                Err(LinkError::Exists(slot)) => {
                    // Or it has ended since.
                    if let Some(hit) = self.hit(slot, key) {
                        break InsertError::Exists(hit);
                    }
                }
            }
        };
        if reply {
            self.answers.remove(key);
        }
        Err(error)
    }

    /// Has the index go on to the level after that of such a size, which had no room for a key; `false` if it cannot.
    #[cold]
    fn grow(&self, size: u32) -> bool {
        self.index.grow(size, |next| self.reach_level(next))
    }

    fn unlink(&self, key: &K, reply: bool, index: u32) {
        let hash = key.hash64();
        if self.index.unlink(hash, Slot::new((hash >> 32) as u32, reply, index)) && reply {
            self.answers.remove(key);
        }
    }

    /// Two for each record that is in use, or was.
    #[inline]
    fn keys(&self) -> usize {
        self.claimed() as usize * 2
    }

    /// Helps an index that grows.
    #[inline]
    pub(super) fn tend(&self, buckets: usize) {
        let hash_of = |slot: Slot| {
            let (record, _) = self.words(slot.index()).read()?;
            let key = if slot.is_reply() { record.translated.reversed() } else { record.original };
            Some(key.hash64())
        };
        self.index.advance(buckets, hash_of, |slot| self.prefetch(slot.index()));
    }

    /// Gives back memory that an index which has grown no longer uses.
    pub(super) fn give_back(&self) {
        self.index.give_back();
    }

    /// Makes room for so many flows at once, as long as there is none.
    pub(super) fn expect(&self, flows: usize) {
        debug_assert_eq!(self.claimed(), 0, "there are flows");
        self.reach(flows * 2);
        self.index.expect(flows * 2);
    }

    /// Has room kept for so many more chunks of flows, of both tables, that another process left.
    pub(super) fn keep_room(&self, chunks: u32) {
        self.budget.keep(chunks);
    }

    /// From now on there may be flows that are not entered yet, or no longer.
    pub(super) fn set_partial(&self, partial: bool) {
        self.index.set_partial(partial);
    }

    /// Writes down, for the process that takes this over, that there may be keys in the level that so many need.
    fn reach(&self, keys: usize) {
        self.reach_level(self.index.size_for(keys));
    }

    /// The same of a level of such a size.
    fn reach_level(&self, size: u32) {
        self.head[0].reached[K::VERSION].fetch_max(size, Ordering::Relaxed);
    }

    /// Claims the next chunk of records for an arena that has `own`; `None` if there is none left for it, or only those that
    /// are kept.
    pub(super) fn claim(&self, own: u32, is_kept: bool) -> Option<u32> {
        if !self.budget.take(own, is_kept) {
            return None;
        }
        let more = |next: u32| (next < self.lines.len() as u32 / CHUNK).then_some(next + 1);
        let Ok(chunk) = self.chunks().fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) else {
            self.budget.give_back();
            return None;
        };
        self.reach(self.keys());
        self.index.fit(self.keys());
        Some(chunk)
    }

    fn chunks(&self) -> &AtomicU32 {
        &self.head[0].claimed[K::VERSION]
    }

    /// Records that were ever in use at the same time, in whole chunks.
    #[inline]
    pub fn claimed(&self) -> u32 {
        self.chunks().load(Ordering::Relaxed) * CHUNK
    }

    /// One more arena will claim chunks.
    pub(super) fn join(&self) {
        self.budget.join();
    }

    /// Whether the limit is reached.
    pub(super) fn is_used_up(&self) -> bool {
        self.budget.is_used_up()
    }

    /// Size of the level of the index that keys are entered in, and of the last one that another process would look in.
    #[cfg(test)]
    pub(super) fn levels(&self) -> (u32, u32) {
        (self.index.size(), self.head[0].reached[K::VERSION].load(Ordering::Relaxed))
    }

    /// How many buckets of the level that keys are moved from are empty by now, if there is one.
    #[cfg(test)]
    pub(super) fn emptied(&self) -> Option<usize> {
        self.index.emptied()
    }

    /// Bytes of memory that records and index take.
    #[cfg(test)]
    pub(super) fn resident(&self) -> usize {
        self.index.resident() + self.lines.resident()
    }

    /// Whether the answers are those of the flows that are there.
    #[cfg(test)]
    pub(super) fn knows_its_answers(&self) -> bool {
        self.answers.are(self.iter().map(|hit| hit.record.translated.reversed()))
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
