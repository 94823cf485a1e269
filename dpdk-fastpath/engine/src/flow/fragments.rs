//! What was decided about the first fragments of packets, for the fragments that follow.

use super::key::Key;
use super::tick::Tick;
use crate::table::{BackendId, PortIndex};

/// Packets whose fragments are remembered, per worker and IP version.
const ENTRIES: usize = 4096;

/// Places that an entry may have.
const WAYS: usize = 8;

/// How many of these a port may have for its packets when others need them, too.
const SHARE: usize = WAYS / 2;

/// Seconds for which later fragments are expected. Receivers wait 30 seconds for all at the most (RFC 8200, section 4.5,
/// allows 60), but fragments of one packet leave together.
const TIMEOUT: u64 = 16;

/// What becomes of the fragments of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragmented<K> {
    /// The packet: its addresses, its protocol unless that is told by the first fragment only, and its identification in
    /// place of the ports.
    pub packet: K,
    /// The port that its first fragment came from.
    pub port: PortIndex,
    /// The flow that the packet becomes part of.
    pub to: K,
    /// Slot of the service, for as long as the endpoint exists.
    pub service: u32,
    /// The endpoint.
    pub backend: BackendId,
    /// Where the first fragment ends. No other may begin before that, so that nothing overwrites what the decision was made
    /// of (RFC 1858, RFC 5722).
    pub end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry<K> {
    fragmented: Fragmented<K>,
    seen: Tick,
    /// Larger than that of all earlier ones.
    number: u64,
}

/// A worker's memory of packets that come in fragments. It never grows: when places are scarce the oldest entry goes, and
/// those of a port that has half of the places already go first, so that no pod can take all of them.
///
/// Only fragments that the same worker receives are told by it. Fragments from a pod come through its one port; nodes send
/// all fragments of a packet through the tunnel with the same outer source port, and so to the same queue.
#[derive(Debug)]
pub struct Fragments<K> {
    sets: Box<[[Option<Entry<K>>; WAYS]]>,
    entered: u64,
}

impl<K: Key> Fragments<K> {
    pub(super) fn new() -> Self {
        Self { sets: vec![[None; WAYS]; ENTRIES / WAYS].into_boxed_slice(), entered: 0 }
    }

    fn set(&mut self, packet: &K) -> &mut [Option<Entry<K>>; WAYS] {
        &mut self.sets[packet.hash64() as usize % (ENTRIES / WAYS)]
    }

    /// Remembers what becomes of a packet, in place of what was known of another with the same identification.
    pub fn enter(&mut self, fragmented: Fragmented<K>, now: Tick) {
        self.forget(&fragmented.packet);
        self.entered += 1;
        let entry = Entry { fragmented, seen: now, number: self.entered };
        let set = self.set(&fragmented.packet);
        let own = |entry: &Entry<K>| entry.fragmented.port == fragmented.port;
        let greedy = set.iter().flatten().filter(|entry| own(entry)).count() >= SHARE;
        let rank = |place: &&mut Option<Entry<K>>| match place {
            None => (0, 0),
            Some(entry) if now.seconds_since(entry.seen) > TIMEOUT => (0, entry.number),
            Some(entry) if greedy && own(entry) => (1, entry.number),
            Some(entry) => (2, entry.number),
        };
        if let Some(place) = set.iter_mut().min_by_key(rank) {
            *place = Some(entry);
        }
    }

    /// Forgets a packet: another has its identification now.
    pub fn forget(&mut self, packet: &K) {
        for place in self.set(packet) {
            *place = place.filter(|entry| entry.fragmented.packet != *packet);
        }
    }

    /// What becomes of a packet whose first fragment came through this port.
    pub fn find(&mut self, packet: &K, port: PortIndex, now: Tick) -> Option<Fragmented<K>> {
        let entry = self.set(packet).iter().flatten().find(|entry| entry.fragmented.packet == *packet)?;
        let valid = entry.fragmented.port == port && now.seconds_since(entry.seen) <= TIMEOUT;
        valid.then_some(entry.fragmented)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use culvert_packet::flow::{FlowKey4, Tenant};
    use culvert_packet::ip::Protocol;

    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::at(Duration::from_secs(seconds))
    }

    fn packet(n: u32) -> FlowKey4 {
        let (src, dst) = (Ipv4Addr::from(0x0a00_0000 | n >> 16), Ipv4Addr::new(10, 96, 0, 1));
        FlowKey4::new(Tenant::DEFAULT, Protocol::UDP, (src, 0), (dst, n as u16))
    }

    fn fragmented(n: u32, port: u16) -> Fragmented<FlowKey4> {
        let backend = BackendId { slot: n, generation: 0 };
        Fragmented { packet: packet(n), port: PortIndex(port), to: packet(n), service: n, backend, end: 1480 }
    }

    #[test]
    fn a_packet_is_found_from_its_port_until_its_time_is_over() {
        let mut fragments = Fragments::new();
        fragments.enter(fragmented(1, 5), at(100));
        assert_eq!(fragments.find(&packet(1), PortIndex(5), at(100 + TIMEOUT)), Some(fragmented(1, 5)));
        assert_eq!(fragments.find(&packet(1), PortIndex(5), at(102 + TIMEOUT)), None);
        assert_eq!(fragments.find(&packet(1), PortIndex(6), at(100)), None);
        assert_eq!(fragments.find(&packet(2), PortIndex(5), at(100)), None);
        fragments.enter(Fragmented { service: 9, ..fragmented(1, 5) }, at(100));
        assert_eq!(fragments.find(&packet(1), PortIndex(5), at(100)).map(|f| f.service), Some(9));
        fragments.forget(&packet(1));
        assert_eq!(fragments.find(&packet(1), PortIndex(5), at(100)), None);
    }

    #[test]
    fn one_port_cannot_crowd_out_the_others() {
        let mut fragments = Fragments::new();
        let quiet = 0..ENTRIES as u32 / 8;
        for n in quiet.clone() {
            fragments.enter(fragmented(n, 1), at(100));
        }
        let kept = |fragments: &mut Fragments<_>| {
            quiet.clone().filter(|&n| fragments.find(&packet(n), PortIndex(1), at(100)).is_some()).count()
        };
        let before = kept(&mut fragments);
        for n in 1_000_000..1_000_000 + 10 * ENTRIES as u32 {
            fragments.enter(fragmented(n, 2), at(100));
        }
        // A set that is more than half the quiet port's is shared by halves.
        assert!(kept(&mut fragments) * 100 >= before * 99, "{} of {before}", kept(&mut fragments));
        // The latest of the greedy port are there.
        let last = 1_000_000 + 10 * ENTRIES as u32 - 1;
        assert!(fragments.find(&packet(last), PortIndex(2), at(100)).is_some());
    }

    #[test]
    fn the_oldest_make_room() {
        let mut fragments = Fragments::new();
        for n in 0..20 * ENTRIES as u32 {
            fragments.enter(fragmented(n, (n % 50) as u16), at(100));
        }
        let is_there = |n: &u32| fragments.find(&packet(*n), PortIndex((*n % 50) as u16), at(100)).is_some();
        let there: Vec<_> = (0..20 * ENTRIES as u32).filter(is_there).collect();
        assert!(there.len() > ENTRIES * 9 / 10 && there[0] as usize > 10 * ENTRIES, "{}", there.len());
    }
}
