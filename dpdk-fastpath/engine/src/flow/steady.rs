//! Packets of established IPv4 flows: all that they need, in one look at one cache line.

use std::sync::atomic::{Ordering, fence};

use culvert_packet::flow::FlowKey4;
use culvert_packet::rewrite::Translation4;
use culvert_packet::tcp::TcpFlags;
use culvert_packet::usual::Kind;

use super::bucket::Slot;
use super::key::{Deltas, Key};
use super::out::OutBits;
use super::record::{DELTAS_AND_GENERATION, META, Meta, ROUTE, SERVICE_AND_BACKEND};
use super::state::State;
use super::table::{Probe, Table};
use super::tick::Tick;

/// What packets of an established flow need, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    /// What becomes of them.
    pub translation: Translation4,
    /// Where they go.
    pub out: OutBits,
    /// Slot of the service.
    pub service: u32,
}

/// A time and the epoch at that time, and what the records of established flows look like then.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    epoch: u32,
    now: Tick,
    /// Of flows that a packet of each kind belongs to.
    calm: [Calm; 3],
}

/// The meta word, but for the sequence number, of flows that a packet changes nothing about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calm(u32);

impl Calm {
    /// Of no flow.
    pub const NEVER: Self = Self(u32::MAX);

    /// Of no flow, as is known without looking for one.
    pub const STRANGER: Self = Self(u32::MAX - 1);
}

impl Moment {
    /// At `now`, under `epoch`.
    pub fn new(epoch: u32, now: Tick) -> Self {
        let calm = |state| Calm(Meta::new(0, now, state).0 as u32);
        // In the order of the kinds.
        const _: () = assert!(Kind::Udp as u8 == 0 && Kind::Tcp as u8 == 1 && Kind::TcpEdge as u8 == 2);
        Self { epoch, now, calm: [calm(State::TwoWay), calm(State::Established), Calm::NEVER] }
    }

    /// What records look like that a packet of this kind changes nothing about.
    #[inline(always)]
    pub const fn calm(&self, kind: Kind) -> Calm {
        self.calm[kind as usize]
    }
}

/// Words of the first and the second key.
const KEY: usize = 2;
/// Where the others begin.
const REST: usize = 2 * KEY;

impl Table<FlowKey4> {
    /// The flow that was probed for, if it is established and was decided under the present epoch, and if the key is that
    /// of its replies unless it may be that of its `requests`; notes that a packet of it came. `calm` is what the moment
    /// says about that packet. What is not found may be there nevertheless, unless the probe [is
    /// sure](Probe::is_absent) that it is not.
    #[inline(always)]
    pub fn follow(
        &self,
        Probe(slot): Probe,
        key: &FlowKey4,
        requests: bool,
        moment: &Moment,
        calm: Calm,
    ) -> Option<Steady> {
        let words = self.lines.get(slot.place())?.words();
        let load = |at: usize| words[at].load(Ordering::Relaxed);
        let reply = slot.is_reply();
        let (own, other) = if reply { (KEY, 0) } else { (0, KEY) };
        let meta = Meta(words[REST + META].load(Ordering::Acquire));
        let (own, other) = ([load(own), load(own + 1)], [load(other), load(other + 1)]);
        let route = load(REST + ROUTE);
        let service = (load(REST + SERVICE_AND_BACKEND) >> 32) as u32;
        let deltas = (load(REST + DELTAS_AND_GENERATION) >> 32) as u32;
        fence(Ordering::Acquire);
        let after = Meta(load(REST + META));
        let [a, b] = key.words();
        let valid = ((own[0] ^ a) | (own[1] ^ b) == 0)
            & ((route >> 40) as u32 == moment.epoch)
            & (after.sequence() == meta.sequence())
            & (reply | requests);
        if !valid || meta.0 as u32 != calm.0 && !self.note(slot, meta, moment, calm) {
            return None;
        }
        let Deltas { header, transport } = Deltas::from_bits(deltas).towards(reply);
        let to = FlowKey4::from_words(other).reversed();
        let out = OutBits::from_bits(if reply { route as u16 } else { (route >> 16) as u16 });
        Some(Steady { translation: Translation4::with_deltas(&to, header, transport), out, service })
    }

    /// Notes that a packet came of a flow if that changes no more than the time; `false` otherwise.
    #[cold]
    #[inline(never)]
    fn note(&self, slot: Slot, meta: Meta, moment: &Moment, calm: Calm) -> bool {
        let reply = slot.is_reply();
        let steady = match meta.state() {
            Some(State::Established) => calm == moment.calm(Kind::Tcp),
            Some(State::TwoWay) => calm == moment.calm(Kind::Udp),
            Some(State::OneWay) => calm == moment.calm(Kind::Udp) && !reply,
            _ => false,
        };
        if steady && meta.seen() != moment.now {
            self.change(slot.index(), meta, |meta| meta.after(moment.now, reply, TcpFlags(0)));
        }
        steady
    }
}
