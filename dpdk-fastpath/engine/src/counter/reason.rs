//! Why packets are dropped, and what is sent in answer.

use std::fmt;

use culvert_packet::Malformed;
use culvert_packet::encap::DecapError;

const MALFORMED: u8 = Malformed::ALL.len() as u8;

/// Why a packet was dropped: a [`Malformed`] one, or one of the constants here. Counted also when the packet was turned
/// into an answer, such as an ICMP error.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DropReason(u8);

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $constant:ident = $name:literal,)*) => {
        /// Order of the reasons that are not `Malformed`.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Order { $($constant,)* }

        const NAMES: &[&str] = &[$($name,)*];

        impl DropReason {
            $($(#[$doc])* pub const $constant: Self = Self(MALFORMED + Order::$constant as u8);)*
        }
    };
}

drop_reasons! {
    /// No tables have been accepted yet.
    NOT_PROGRAMMED = "not-programmed",
    /// The ring that the port receives into was full: the worker did not come in time.
    RX_RING_FULL = "rx-ring-full",
    /// The port left while the packet was on its way.
    NO_SUCH_PORT = "no-such-port",
    /// Neither ARP nor IP.
    ETHER_TYPE = "ether-type",
    /// A frame from a tap that is too long, or whose vnet header asks for what cannot be done.
    VNET_HEADER = "vnet-header",
    /// A VLAN tag where none is used.
    VLAN_TAG = "vlan-tag",
    /// A unicast frame for another station.
    NOT_OUR_MAC = "not-our-mac",
    /// Link-layer or IP multicast or broadcast that nobody here listens to.
    MULTICAST = "multicast",
    /// ARP or neighbour discovery that asks nothing of us.
    NEIGHBOUR_IGNORED = "neighbour-ignored",
    /// Another station of the underlay says that it has our address.
    ADDRESS_CONFLICT = "address-conflict",
    /// A pod's frame with a source MAC address that is not the pod's.
    SPOOFED_MAC = "spoofed-mac",
    /// A pod's packet with a source address that is not the pod's.
    SPOOFED_ADDRESS = "spoofed-address",
    /// A source or destination address that must not cross a router: unspecified, loopback, link-local, class E.
    MARTIAN = "martian",
    /// The last hop is used up.
    TTL_EXCEEDED = "ttl-exceeded",
    /// Longer than the next link takes.
    TOO_BIG = "too-big",
    /// A local pod's address range, but no pod has the address.
    NO_SUCH_POD = "no-such-pod",
    /// No pod, node or service has the address.
    NO_ROUTE = "no-route",
    /// The underlay's next hop to a remote node has not answered ARP or neighbour discovery yet.
    NEXT_HOP_UNRESOLVED = "next-hop-unresolved",
    /// No port leads to the underlay.
    NO_UPLINK = "no-uplink",
    /// The buffer has no room for an outer or answer's header.
    NO_HEADROOM = "no-headroom",
    /// To a router or tunnel address, a protocol or port that is not served there.
    NOT_SERVED = "not-served",
    /// From the underlay, neither a tunnel packet nor for one of our addresses.
    UNDERLAY_NOT_FOR_US = "underlay-not-for-us",
    /// An ICMP error of the underlay about a tunnel packet of ours, other than that it was too big.
    UNDERLAY_ERROR = "underlay-error",
    /// A tunnel packet from an address that is no node's.
    TUNNEL_UNKNOWN_SOURCE = "tunnel-unknown-source",
    /// A tunnel packet with a network identifier that is no tenant's.
    TUNNEL_WRONG_VNI = "tunnel-wrong-vni",
    /// A tunnel packet with an inner destination MAC address that is not ours.
    TUNNEL_NOT_OUR_MAC = "tunnel-not-our-mac",
    /// A decapsulated packet for no pod of this node. Sending it on would loop.
    TUNNEL_NOT_LOCAL = "tunnel-not-local",
    /// A decapsulated packet whose outer header says congestion, which its sender would not understand (RFC 6040).
    TUNNEL_CONGESTION = "tunnel-congestion",
    /// A tunnel packet over IPv6 without UDP checksum, which must be allowed (RFC 6935).
    TUNNEL_NO_CHECKSUM = "tunnel-no-checksum",
    /// A Geneve control message: there are none that concern us, and none may be forwarded.
    TUNNEL_CONTROL = "tunnel-control",
    /// A Geneve packet with an option that must be understood.
    TUNNEL_CRITICAL_OPTION = "tunnel-critical-option",
    /// A Geneve packet that carries anything but an Ethernet frame.
    TUNNEL_PROTOCOL = "tunnel-protocol",
    /// A service address, but a protocol or port that the service does not have.
    SERVICE_PORT = "service-port",
    /// A service that has no endpoint.
    SERVICE_NO_ENDPOINT = "service-no-endpoint",
    /// A fragment of an SCTP packet whose ports a service would change: how to correct its checksum, only the last fragment
    /// tells.
    SERVICE_FRAGMENT = "service-fragment",
    /// ICMP to a service address that is no ping and no error about one of its flows, or an error about a flow that its
    /// sender has nothing to do with.
    ICMP_UNRELATED = "icmp-unrelated",
    /// A fragment to a service address whose first fragment did not come before it, or was dropped.
    FRAGMENT_WITHOUT_FIRST = "fragment-without-first",
    /// A fragment that would overwrite part of the first one.
    FRAGMENT_OVERLAP = "fragment-overlap",
    /// TCP to a service in the middle of a connection that is not tracked.
    FLOW_UNKNOWN = "flow-unknown",
    /// TCP of a connection whose endpoint is gone.
    FLOW_ENDPOINT_GONE = "flow-endpoint-gone",
    /// A new flow, while the flow table is full.
    FLOW_TABLE_FULL = "flow-table-full",
    /// A new flow, while no free source port could tell its replies from another's.
    FLOW_NO_PORT = "flow-no-port",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = MALFORMED as usize + NAMES.len();

    /// Every reason, in the order of its [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Place among [`all`](Self::all).
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name by which counters go: `spoofed-address`.
    pub const fn name(self) -> &'static str {
        if self.0 < MALFORMED {
            Malformed::ALL[self.0 as usize].name()
        } else {
            NAMES[(self.0 - MALFORMED) as usize]
        }
    }
}

impl From<Malformed> for DropReason {
    #[inline]
    fn from(malformed: Malformed) -> Self {
        Self(malformed as u8)
    }
}

impl From<DecapError> for DropReason {
    fn from(error: DecapError) -> Self {
        match error {
            DecapError::Malformed(malformed) => malformed.into(),
            DecapError::Control => Self::TUNNEL_CONTROL,
            DecapError::CriticalOption => Self::TUNNEL_CRITICAL_OPTION,
            DecapError::Protocol => Self::TUNNEL_PROTOCOL,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A packet that the fast path made from one that it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Answered {
    /// ARP reply.
    ArpReply,
    /// ICMPv6 neighbour advertisement.
    NeighbourAdvertisement,
    /// ICMP or ICMPv6 echo reply.
    EchoReply,
    /// ICMP or ICMPv6 destination unreachable.
    Unreachable,
    /// ICMP or ICMPv6 time exceeded.
    TimeExceeded,
    /// ICMP fragmentation needed or ICMPv6 packet too big.
    TooBig,
    /// TCP reset.
    TcpReset,
    /// SCTP ABORT or SHUTDOWN COMPLETE.
    SctpAbort,
}

impl Answered {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::ArpReply,
        Self::NeighbourAdvertisement,
        Self::EchoReply,
        Self::Unreachable,
        Self::TimeExceeded,
        Self::TooBig,
        Self::TcpReset,
        Self::SctpAbort,
    ];

    /// The name by which counters go: `echo-reply`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArpReply => "arp-reply",
            Self::NeighbourAdvertisement => "neighbour-advertisement",
            Self::EchoReply => "echo-reply",
            Self::Unreachable => "unreachable",
            Self::TimeExceeded => "time-exceeded",
            Self::TooBig => "too-big",
            Self::TcpReset => "tcp-reset",
            Self::SctpAbort => "sctp-abort",
        }
    }
}
