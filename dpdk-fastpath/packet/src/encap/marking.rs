//! What the outer header takes from the inner one, and gives back: DSCP (RFC 2983), ECN (RFC 6040), time to live.

const DSCP: u8 = 0xfc;
const ECN: u8 = 0x03;

/// How the DSCP of inner and outer packet depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dscp {
    /// The pipe model: all outer packets have this one, 0-63, and the inner packet keeps its own. The underlay's classes
    /// are not for pods to choose.
    Pipe(u8),
    /// The outer packet takes that of the inner, which keeps its own.
    Copy,
    /// The uniform model: the outer packet takes that of the inner, and the inner leaves the tunnel with what has become
    /// of it.
    Uniform,
}

/// What an ingress does about congestion marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ecn {
    /// Normal mode: the outer packet has the ECN field of the inner.
    #[default]
    Normal,
    /// Compatibility mode: the outer packet is not ECN-capable, for an egress that does not follow RFC 6040.
    Compatibility,
}

/// Time to live or hop limit of outer packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterTtl {
    /// The same for all.
    Fixed(u8),
    /// As that of the inner packet when it goes into the tunnel.
    Copy,
}

/// What is done with traffic class and time to live at both ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marking {
    /// DSCP.
    pub dscp: Dscp,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// Time to live or hop limit.
    pub ttl: OuterTtl,
}

impl Default for Marking {
    /// DSCP 0, ECN in normal mode, 64 hops.
    fn default() -> Self {
        Self { dscp: Dscp::Pipe(0), ecn: Ecn::Normal, ttl: OuterTtl::Fixed(64) }
    }
}

impl Marking {
    /// The outer traffic class for the inner one (RFC 6040, section 4.1).
    #[inline]
    pub const fn outer(&self, inner: u8) -> u8 {
        let (fixed, mask) = self.class();
        fixed | inner & mask
    }

    /// The traffic class that an inner packet leaves the tunnel with (RFC 6040, section 4.2); `None` if it must be dropped,
    /// because the underlay marks congestion that the inner sender does not understand.
    #[inline]
    pub const fn inner(&self, inner: u8, outer: u8) -> Option<u8> {
        let inner = match self.dscp {
            Dscp::Uniform => outer & DSCP | inner & ECN,
            Dscp::Pipe(_) | Dscp::Copy => inner,
        };
        inner_traffic_class(inner, outer)
    }

    /// The bits that all outer traffic classes have, and which bits they have from the inner one.
    pub(super) const fn class(&self) -> (u8, u8) {
        let ecn = match self.ecn {
            Ecn::Normal => ECN,
            Ecn::Compatibility => 0,
        };
        match self.dscp {
            Dscp::Pipe(dscp) => (dscp << 2, ecn),
            Dscp::Copy | Dscp::Uniform => (0, DSCP | ecn),
        }
    }

    /// The time to live that all outer packets have; 0 if it is copied.
    pub(super) const fn fixed_ttl(&self) -> u8 {
        match self.ttl {
            OuterTtl::Fixed(ttl) => ttl,
            OuterTtl::Copy => 0,
        }
    }
}

/// As [`Marking::inner`], where the inner packet keeps its DSCP.
#[inline]
pub const fn inner_traffic_class(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(inner | CE),
        (ECT_0, ECT_1) => Some(inner & DSCP | ECT_1),
        _ => Some(inner),
    }
}
