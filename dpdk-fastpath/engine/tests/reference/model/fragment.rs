//! Packets to services that come in fragments: the first one has the ports and is treated as a whole packet would be. What it
//! becomes the others become too, if they come at the same port, within 16 seconds, and overwrite nothing of the first
//! (RFC 1858, 5722). Without a first one there is no way to a service.

use super::choice::Trial;
use super::flow::{ITSELF, Key, Side, rewritten};
use super::tables::ServiceKey;
use super::{End, Inside, Model, Origin, Step};
use crate::wire::SCTP;
use crate::wire::dissect::{Net, Piece};

/// Protocol number of the fragment header.
const FRAGMENT: u8 = 44;

/// A packet whose first fragment has been translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragmented {
    name: Name,
    port: u16,
    to: Key,
    served: Served,
    /// Where the first fragment ends.
    end: usize,
    seen: u64,
}

/// The endpoint of a service, and when that came; see [`Lives`](super::service::Lives).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) service: ServiceKey,
    pub(crate) backend: Side,
    pub(crate) life: u64,
}

/// What all fragments of a packet have in common; with IPv4 the protocol is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    ends: Key,
    identification: u32,
}

impl Name {
    fn of(inside: &Inside) -> Self {
        let protocol = if inside.packet.net == Net::V4 { inside.key.protocol } else { FRAGMENT };
        let ends = Key { protocol, ..hosts(inside.key) };
        Self { ends, identification: inside.packet.fragment.identification }
    }
}

/// The key without ports.
fn hosts(key: Key) -> Key {
    Key { src: (key.src.0, 0), dst: (key.dst.0, 0), ..key }
}

impl Model {
    /// A fragment that follows a first one ends here.
    pub(crate) fn fragment(&mut self, inside: &Inside, trial: &mut Trial<'_>) -> Step<()> {
        let name = Name::of(inside);
        if inside.packet.piece == Piece::First {
            // Another packet has the identification now.
            self.fragments.retain(|known| known.name != name);
            return Ok(());
        }
        let valid = |known: &&Fragmented| {
            known.name == name && known.port == inside.port && (self.tick() - known.seen) * 2 <= 16
        };
        let known = self.fragments.iter().find(valid).copied();
        match known {
            Some(first) if inside.packet.fragment.start < first.end => {
                Err(self.drop(inside.port, "fragment-overlap"))
            }
            Some(first) => Err(self.follow_first(inside, &first, trial)),
            None if inside.origin == Origin::Pod && self.is_served(inside.key.tenant, inside.packet.dst) => {
                Err(self.drop(inside.port, "fragment-without-first"))
            }
            None => Ok(()),
        }
    }

    fn follow_first(&mut self, inside: &Inside, first: &Fragmented, trial: &mut Trial<'_>) -> End {
        let (src, dst) = (first.to.src, first.to.dst);
        let way = self.way(inside.key.tenant, dst.0);
        if let Err(end) = self.clear(inside, &way, dst.0, trial) {
            return end;
        }
        let Served { service, backend, life } = first.served;
        if life != ITSELF && self.lives.get(service, backend) == Some(life) {
            self.counters.translated(service, inside.packet.len());
        }
        self.transmit(inside, &way, rewritten(inside, src, dst), trial)
    }

    /// Notes what a packet becomes if this is its first fragment. The checksum of SCTP cannot be mended without the rest.
    pub(crate) fn note_first(
        &mut self,
        inside: &Inside,
        to: Key,
        served: Served,
    ) -> Result<(), &'static str> {
        if inside.packet.piece != Piece::First {
            return Ok(());
        }
        let ports = |key: Key| (key.src.1, key.dst.1);
        if inside.key.protocol == SCTP && ports(inside.key) != ports(to) {
            return Err("service-fragment");
        }
        let (name, end, seen) = (Name::of(inside), inside.packet.fragment.end, self.tick());
        self.fragments.push(Fragmented { name, port: inside.port, to, served, end, seen });
        Ok(())
    }

    /// By what the packets of a flow, or all fragments between two hosts, are spread over the ways through the underlay.
    pub(crate) fn spread_by(&self, inside: &Inside, frame: &[u8]) -> Key {
        if !inside.packet.is_fragment() {
            return inside.key;
        }
        let sent = crate::wire::dissect::dissect(frame).expect("a packet that was translated");
        Key { tenant: 0, protocol: FRAGMENT, ..hosts(Key::of(&sent, 0)) }
    }
}
