//! What happens in a row, since only together it shows something: random events seldom meet the same flow twice.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::event::{Event, Part, Shot, event, how, tracked};
use super::packet::Shape;
use crate::model::tables::{Backend, Said, Tables};
use crate::wire::{ACK, RST, SYN};

/// What becomes of one endpoint of a service; of all others nothing does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shift {
    Draining,
    Terminating,
    Away,
    Weight(u32),
    Gone,
}

/// Events, some of which belong together.
pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    let alone = event().prop_map(|event| vec![event]);
    let row = prop_oneof![9 => alone, 1 => kept(), 1 => shifted(), 1 => pieces(), 1 => by_itself()];
    prop::collection::vec(row, 1..40).prop_map(|rows| rows.concat())
}

/// A client opens flows, and others later.
fn kept() -> impl Strategy<Value = Vec<Event>> {
    let seconds = select(vec![12_u64, 31, 45, 58, 62, 125, 7_000, 12_000]);
    (0_usize..6, any::<Index>(), seconds).prop_map(|(pod, service, seconds)| {
        let flood = |flows| Event::Flood { pod, service, flows };
        vec![flood(0..4), Event::Time(seconds), flood(1000..1004)]
    })
}

/// An endpoint changes under its flows.
fn shifted() -> impl Strategy<Value = Vec<Event>> {
    let shift = prop_oneof![
        3 => select(vec![Shift::Draining, Shift::Terminating, Shift::Away, Shift::Gone]),
        1 => (1_u32..4).prop_map(Shift::Weight),
    ];
    let after = prop::collection::vec(tracked(), 1..10);
    ((0_usize..6, any::<[Index; 2]>()), shift, how(), after).prop_map(
        |((pod, [service, backend]), shift, how, after)| {
            let flood = Event::Flood { pod, service, flows: 0..10 };
            let shift = Event::Shift { service, backend, shift, how };
            vec![flood.clone(), shift, flood, Event::Packets(after)]
        },
    )
}

/// The first fragment of a packet, and another later.
fn pieces() -> impl Strategy<Value = Vec<Event>> {
    let seconds = select(vec![2_u64, 16, 17, 18, 20]);
    let part = select(vec![Part::Request, Part::Reply]);
    (any::<Index>(), part, any::<u16>(), seconds, any::<bool>()).prop_map(
        |(flow, part, identification, seconds, more)| {
            let piece = |shape| {
                let (flags, chunks) = (ACK, vec![0]);
                Event::Packets(vec![Shot::Tracked { flow, part, flags, chunks, len: 64, shape, left: None }])
            };
            let first = Shape::First { identification, more: true };
            let later = Shape::Later { identification, offset: 64, more };
            vec![piece(first), Event::Time(seconds), piece(later)]
        },
    )
}

/// A connection begins, goes on or ends, and its client opens one to the endpoint itself by the same port, or had it already.
fn by_itself() -> impl Strategy<Value = Vec<Event>> {
    const ABORT: u8 = 6;
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let last = select(vec![(RST, ABORT), (RST, ABORT), (ACK, 0), (SYN, INIT)]);
    let answer = select(vec![(SYN | ACK, INIT_ACK), (ACK, 0)]);
    (any::<Index>(), last, answer).prop_map(|(flow, last, answer)| {
        let packet = |part, (flags, chunk)| {
            let (chunks, shape) = (vec![chunk], Shape::Plain);
            Shot::Tracked { flow, part, flags, chunks, len: 8, shape, left: None }
        };
        vec![Event::Packets(vec![
            packet(Part::Request, last),
            packet(Part::Itself, (SYN, INIT)),
            packet(Part::Reply, answer),
        ])]
    })
}

impl Shift {
    /// What the agent then says; `None` if there is no such endpoint.
    pub(crate) fn said(self, tables: &Tables, service: Index, backend: Index) -> Option<Said> {
        let mut services = tables.services.clone();
        if services.is_empty() {
            return None;
        }
        let backends = &mut services[service.index(tables.services.len())].backends;
        if backends.is_empty() {
            return None;
        }
        let at = backend.index(backends.len());
        let Backend { draining, terminating, away, weight, .. } = &mut backends[at];
        match self {
            Self::Draining => *draining ^= true,
            Self::Terminating => *terminating ^= true,
            Self::Away => *away ^= true,
            Self::Weight(other) => *weight = other,
            Self::Gone => drop(backends.remove(at)),
        }
        Some(Said { synced: true, node: None, remotes: tables.remotes.clone(), services })
    }
}
