//! What is known of a tracked connection, and how it lies in memory.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use culvert_packet::tcp::TcpFlags;

use super::key::{Deltas, Key};
use super::out::{Out, OutBits};
use super::state::{Signal, State};
use super::tick::Tick;
use crate::table::BackendId;

/// A tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<K> {
    /// The flow as the client sends it.
    pub original: K,
    /// The flow that it becomes; the reverse of what the server sends.
    pub translated: K,
    /// Where it goes.
    pub route: Route,
    /// Slot of the service that it was opened through, or [`NO_SERVICE`].
    pub service: u32,
    /// The endpoint that was chosen; [none](BackendId::NONE) if there is no service.
    pub backend: BackendId,
}

/// The slot of no service: of a flow to a pod itself.
pub const NO_SERVICE: u32 = u32::MAX;

/// Where a connection's packets go, and since when that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Epoch of the snapshot that this was decided under, below 2^24.
    pub epoch: u32,
    /// To the server.
    pub forward: Out,
    /// To the client.
    pub reply: Out,
}

impl Route {
    /// The route in one word, to be changed at once: 24 bits of epoch, 8 of the record's sequence number, and the two
    /// outs. The sequence number keeps a change that comes late from another flow, the record's next.
    fn to_bits(self, sequence: u32) -> u64 {
        let stamp = u64::from(self.epoch << 8 | sequence & 0xff);
        let [forward, reply] = [self.forward, self.reply].map(|out| u64::from(OutBits::from(out).to_bits()));
        stamp << 32 | forward << 16 | reply
    }

    fn from_bits(bits: u64) -> Self {
        Self {
            epoch: (bits >> 40) as u32,
            forward: OutBits::from_bits((bits >> 16) as u16).into(),
            reply: OutBits::from_bits(bits as u16).into(),
        }
    }
}

/// The word that says what a record is at the moment: a number that changes when another flow gets it, the time of the
/// last packet, and the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta(pub(super) u64);

impl Meta {
    pub(super) fn new(sequence: u32, seen: Tick, state: State) -> Self {
        Self(u64::from(sequence) << 32 | u64::from(seen.bits()) << 16 | state as u64)
    }

    fn free(sequence: u32) -> Self {
        Self(u64::from(sequence) << 32)
    }

    #[inline]
    pub(super) const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(super) const fn seen(self) -> Tick {
        Tick::from_bits((self.0 >> 16) as u16)
    }

    /// `None` if the record is free.
    #[inline(always)]
    pub(super) const fn state(self) -> Option<State> {
        State::from_bits(self.0 as u8)
    }

    /// What it becomes by a packet of the flow; itself if the record cannot be used.
    #[inline(always)]
    pub(super) fn after(self, now: Tick, reply: bool, signal: impl Into<Signal>) -> Self {
        match self.state() {
            None | Some(State::Ending | State::Ended) => self,
            Some(state) => Self::new(self.sequence(), now, state.after(reply, signal)),
        }
    }

    /// What it becomes by packets of TCP or UDP that have gone, `reply` for those of the server, as far as the control bits of all
    /// of them tell; UDP has none.
    pub(super) fn after_many(self, now: Tick, reply: bool, flags: TcpFlags) -> Self {
        const ANSWER: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
        const CLOSE: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
        let mut meta = self;
        if !reply && !flags.contains(TcpFlags::ACK) {
            // As yet it only opens the connection.
            return meta.after(now, reply, flags);
        }
        if matches!(self.state(), Some(State::SynSent | State::Unwatched | State::SynReceived)) {
            // The server has answered, and unless that is all, its answer was answered.
            meta = meta.after(now, true, ANSWER);
            if !reply || flags.contains(TcpFlags::FIN) {
                meta = meta.after(now, false, TcpFlags::ACK);
            }
        }
        meta = meta.after(now, reply, TcpFlags::ACK);
        if flags.contains(TcpFlags::FIN) {
            meta = meta.after(now, reply, CLOSE);
        }
        if flags.contains(TcpFlags::RST) { meta.after(now, reply, TcpFlags::RST) } else { meta }
    }

    /// What it becomes when packets may go without being seen.
    pub(super) fn unwatched(self) -> Self {
        match self.state() {
            Some(State::SynSent) => Self::new(self.sequence(), self.seen(), State::Unwatched),
            _ => self,
        }
    }

    /// Whether the record is that of an open flow.
    #[inline]
    pub(super) fn is_open(self) -> bool {
        self.state().is_some_and(State::is_open)
    }

    /// Whether the record is that of a flow that can be used.
    #[inline(always)]
    pub(super) fn is_live(self) -> bool {
        (State::SynSent as u8..State::Ending as u8).contains(&(self.0 as u8))
    }
}

// Words behind the two keys.
pub(super) const ROUTE: usize = 0;
pub(super) const SERVICE_AND_BACKEND: usize = 1;
pub(super) const DELTAS_AND_GENERATION: usize = 2;
pub(super) const META: usize = 3;

/// A record's memory, with the meaning of its words: the key of requests, that of replies, and the four named above.
pub(super) struct Words<'a, K: Key> {
    original: &'a [AtomicU64],
    reply: &'a [AtomicU64],
    rest: &'a [AtomicU64; 4],
    key: std::marker::PhantomData<K>,
}

impl<'a, K: Key> Words<'a, K> {
    #[inline(always)]
    pub(super) fn of(line: &'a K::Line) -> Self {
        let len = K::Words::default().as_ref().len();
        let (original, rest) = line.as_ref().split_at(len);
        let (reply, rest) = rest.split_at(len);
        let rest = rest.first_chunk().expect("a line has four words behind its keys");
        Self { original, reply, rest, key: std::marker::PhantomData }
    }

    #[inline(always)]
    pub(super) fn meta(&self) -> Meta {
        Meta(self.rest[META].load(Ordering::Acquire))
    }

    /// Changes the meta word if it is still `from`; else returns what it is.
    #[inline]
    pub(super) fn change_meta(&self, from: Meta, to: Meta) -> Result<(), Meta> {
        self.rest[META]
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Meta)
    }

    /// The record and its meta word, if it is live and did not become another's while it was read.
    #[inline(always)]
    pub(super) fn read(&self) -> Option<(Record<K>, Meta)> {
        let meta = self.meta();
        if !meta.is_live() {
            return None;
        }
        let record = self.read_unchecked();
        fence(Ordering::Acquire);
        let after = Meta(self.rest[META].load(Ordering::Relaxed));
        (after.sequence() == meta.sequence()).then_some((record, meta))
    }

    /// The record, for a caller who knows that it cannot become another's meanwhile.
    #[inline(always)]
    pub(super) fn read_unchecked(&self) -> Record<K> {
        let slots = self.rest[SERVICE_AND_BACKEND].load(Ordering::Relaxed);
        Record {
            original: load(self.original),
            translated: load::<K>(self.reply).reversed(),
            route: Route::from_bits(self.rest[ROUTE].load(Ordering::Relaxed)),
            service: (slots >> 32) as u32,
            backend: BackendId {
                slot: slots as u32,
                generation: self.rest[DELTAS_AND_GENERATION].load(Ordering::Relaxed) as u32,
            },
        }
    }

    /// Fills a free record and brings it to life; returns its sequence number. Only the owner may.
    #[inline(always)]
    pub(super) fn write(&self, record: &Record<K>, deltas: Deltas, seen: Tick, state: State) -> u32 {
        // Whoever reads a word stored below also sees that the record was set free before.
        fence(Ordering::Release);
        store(self.original, record.original);
        store(self.reply, record.translated.reversed());
        let sequence = self.meta().sequence();
        self.rest[ROUTE].store(record.route.to_bits(sequence), Ordering::Relaxed);
        let slots = u64::from(record.service) << 32 | u64::from(record.backend.slot);
        self.rest[SERVICE_AND_BACKEND].store(slots, Ordering::Relaxed);
        let deltas = u64::from(deltas.to_bits()) << 32 | u64::from(record.backend.generation);
        self.rest[DELTAS_AND_GENERATION].store(deltas, Ordering::Relaxed);
        let meta = Meta::new(sequence, seen, state);
        self.rest[META].store(meta.0, Ordering::Release);
        sequence
    }

    /// Replaces the route of the flow with this sequence number, if the route is still `from`.
    #[inline]
    pub(super) fn change_route(&self, sequence: u32, from: Route, to: Route) {
        let (from, to) = (from.to_bits(sequence), to.to_bits(sequence));
        // Should another worker have been faster, its route is as good.
        let _ = self.rest[ROUTE].compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sets a record free. Only the owner may, once nothing in the index leads to it. `next` is whatever the owner wants
    /// to find there again.
    pub(super) fn set_free(&self, next: u32) {
        let sequence = self.meta().sequence().wrapping_add(1);
        self.rest[META].store(Meta::free(sequence).0, Ordering::Release);
        fence(Ordering::Release);
        self.rest[ROUTE].store(next.into(), Ordering::Relaxed);
    }

    /// What [`set_free`](Self::set_free) left there.
    pub(super) fn next_free(&self) -> u32 {
        self.rest[ROUTE].load(Ordering::Relaxed) as u32
    }
}

#[inline(always)]
fn load<K: Key>(from: &[AtomicU64]) -> K {
    let mut words = K::Words::default();
    for (word, from) in words.as_mut().iter_mut().zip(from) {
        *word = from.load(Ordering::Relaxed);
    }
    K::from_words(words)
}

#[inline(always)]
fn store<K: Key>(to: &[AtomicU64], key: K) {
    for (to, word) in to.iter().zip(key.words().as_ref()) {
        to.store(*word, Ordering::Relaxed);
    }
}
