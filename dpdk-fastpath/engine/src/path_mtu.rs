//! What the underlay's ways to other nodes take (RFC 1191, RFC 8201).
//!
//! Tunnel packets must not be fragmented, so that a link on the way that takes less than this node's own is a hole for all
//! that are larger. Its router says so, and then pods are told of what is left of that for their packets.
//!
//! Anybody on the underlay can forge such a message. The worst that comes of one is that packets to a node are as small as
//! IPv6 lets links be, for a while.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::pipeline::PathMtu;
use crate::table::overhead;

/// How long is believed what a router has said (RFC 1191, section 6.3; RFC 8201, section 4).
const LIFETIME: Duration = Duration::from_secs(600);

/// Least MTU of a link that IPv6 packets go over (RFC 8200, section 5): what the tunnel always leaves for those inside.
const LEAST_INNER: u16 = 1280;

/// The ways that are known to take less than this node's link. Neither sends nor reads a clock.
#[derive(Debug, Default)]
pub struct PathMtus(BTreeMap<IpAddr, (u16, Instant)>);

impl PathMtus {
    /// Takes over what a router has said; `underlay` is the MTU of this node's link. Returns the new MTU if that is less than
    /// it was. Nothing that a router says makes it more.
    pub fn hear(&mut self, now: Instant, PathMtu { vtep, mtu }: PathMtu, underlay: u16) -> Option<u16> {
        // Not less, whoever says so, nor if the router does not say how much (RFC 1191, section 5).
        let mtu = mtu.max(LEAST_INNER + overhead(vtep));
        let known = self.0.get(&vtep).map_or(underlay, |&(known, _)| known.min(underlay));
        if mtu > known || mtu >= underlay {
            return None;
        }
        self.0.insert(vtep, (mtu, now + LIFETIME));
        (mtu < known).then_some(mtu)
    }

    /// Forgets what is too old, and returns the tunnel endpoints that it was about.
    pub fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        self.0.extract_if(.., |_, (_, until)| *until <= now).map(|(vtep, _)| vtep).collect()
    }

    /// When [`expire`](Self::expire) is to be called again.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|&(_, until)| until).min()
    }

    /// All tunnel endpoints with the MTU of the way there.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.0.iter().map(|(&vtep, &(mtu, _))| (vtep, mtu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vtep(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_way_takes_what_its_narrowest_router_says_and_after_ten_minutes_the_full_mtu() {
        let (mut paths, start) = (PathMtus::default(), Instant::now());
        let b = vtep("192.0.2.2");
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut hear = |seconds, mtu| paths.hear(at(seconds), PathMtu { vtep: b, mtu }, 1500);
        assert_eq!(hear(0, 1500), None, "no less than the link");
        assert_eq!(hear(0, 1450), Some(1450));
        assert_eq!(hear(1, 1400), Some(1400));
        assert_eq!(hear(2, 1450), None, "never more");
        assert_eq!(hear(100, 1400), None, "no news, but it counts anew");
        assert_eq!(paths.iter().collect::<Vec<_>>(), [(b, 1400)]);
        assert_eq!(paths.next_due(), Some(at(700)));
        assert!(paths.expire(at(699)).is_empty());
        assert_eq!(paths.expire(at(700)), [b]);
        assert_eq!((paths.iter().count(), paths.next_due()), (0, None));
    }

    #[test]
    fn what_is_inside_may_always_be_as_long_as_ipv6_demands() {
        let mut paths = PathMtus::default();
        for (address, least) in [("192.0.2.2", 1330), ("2001:db8::2", 1350)] {
            for mtu in [0, 68, 1280] {
                let heard = paths.hear(Instant::now(), PathMtu { vtep: vtep(address), mtu }, 1500);
                assert_eq!(heard, (mtu == 0).then_some(least));
            }
            // Of a link that is as narrow nothing more can be said.
            assert_eq!(paths.hear(Instant::now(), PathMtu { vtep: vtep(address), mtu: 0 }, least), None);
        }
    }
}
