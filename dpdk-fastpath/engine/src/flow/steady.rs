//! Packets of established IPv4 flows: all that they need, in one look at one cache line.

use std::sync::atomic::{Ordering, fence};

use culvert_packet::flow::FlowKey4;
use culvert_packet::ip::Protocol;
use culvert_packet::rewrite::Translation4;
use culvert_packet::tcp::TcpFlags;

use super::bucket::Slot;
use super::key::{Deltas, Key};
use super::out::Out;
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
    pub out: Out,
    /// Slot of the service.
    pub service: u32,
}

/// A time and the epoch at that time, and what the records of established flows look like then.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    epoch: u32,
    now: Tick,
    /// The meta words, but for the sequence number, of flows that a packet changes nothing about.
    tcp: u32,
    udp: u32,
}

impl Moment {
    /// At `now`, under `epoch`.
    pub fn new(epoch: u32, now: Tick) -> Self {
        let meta = |state| Meta::new(0, now, state).0 as u32;
        Self { epoch, now, tcp: meta(State::Established), udp: meta(State::TwoWay) }
    }
}

/// Words of the first and the second key.
const KEY: usize = 2;
/// Where the others begin.
const REST: usize = 2 * KEY;

impl Table<FlowKey4> {
    /// The flow that was probed for, if it is established and was decided under the present epoch, if the key is that of
    /// its replies unless it may be that of its `requests`, and if `flags` are none that open or close a connection; notes
    /// that a packet of it came. What is not found may be there nevertheless, unless the probe [is
    /// sure](Probe::is_absent) that it is not.
    #[inline(always)]
    pub fn follow(
        &self,
        Probe(slot): Probe,
        key: &FlowKey4,
        requests: bool,
        moment: &Moment,
        flags: TcpFlags,
    ) -> Option<Steady> {
        const OPENING_OR_CLOSING: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
        let words = self.lines.get(slot.index() as usize)?.words();
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
            & (flags.0 & OPENING_OR_CLOSING == 0)
            & (reply | requests);
        if !valid {
            return None;
        }
        let tcp = key.protocol() == Protocol::TCP;
        if meta.0 as u32 != if tcp { moment.tcp } else { moment.udp }
            && !self.note(slot, meta, moment, tcp, flags)
        {
            return None;
        }
        let Deltas { header, transport } = Deltas::from_bits(deltas).towards(reply);
        let to = FlowKey4::from_words(other).reversed();
        let out = Out::from_bits(if reply { route as u16 } else { (route >> 16) as u16 });
        Some(Steady { translation: Translation4::with_deltas(&to, header, transport), out, service })
    }

    /// Notes that a packet came of a flow if that changes no more than the time; `false` otherwise.
    #[cold]
    fn note(&self, slot: Slot, meta: Meta, moment: &Moment, tcp: bool, flags: TcpFlags) -> bool {
        let reply = slot.is_reply();
        let steady = match meta.state() {
            Some(State::Established) => tcp,
            Some(State::TwoWay) => true,
            Some(State::OneWay) => !reply,
            _ => false,
        };
        if steady && meta.seen() != moment.now {
            self.change(slot.index(), meta, |meta| meta.after(moment.now, reply, flags));
        }
        steady
    }
}
