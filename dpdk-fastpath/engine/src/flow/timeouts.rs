//! How long flows may be silent.

use culvert_packet::ip::Protocol;

use super::state::State;

/// Seconds of silence after which flows are forgotten, by what they are. When the table is full, embryonic and ended flows
/// go sooner, established ones never.
///
/// Each is at most [`MAX`](Self::MAX): the clock of flows turns over after 36 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP until the handshake is complete.
    pub tcp_opening: u32,
    /// TCP with data to come from both sides.
    pub tcp_established: u32,
    /// TCP with a FIN from one side.
    pub tcp_half_closed: u32,
    /// TCP with a FIN from both sides, or a reset.
    pub tcp_closed: u32,
    /// UDP before the first reply.
    pub udp_unreplied: u32,
    /// UDP with replies.
    pub udp: u32,
    /// ICMP echo.
    pub icmp: u32,
    /// SCTP associations; their heartbeats keep them.
    pub sctp: u32,
}

impl Timeouts {
    /// Most seconds.
    pub const MAX: u32 = 86_400;

    /// TCP: four minutes for a connection that opens or closes, as RFC 5382, REQ-5 and RFC 7857, section 2 want at least; a
    /// reset ends nothing sooner, since it may be forged. Established: a day, above their two hours and four minutes;
    /// half-closed: an hour; both as with kube-proxy. UDP: two minutes (RFC 4787, REQ-5) once there are replies; without
    /// them 30 seconds, as Linux, since a flow that is forgotten goes to the same endpoint again. ICMP: a minute (RFC 5508,
    /// REQ-2). SCTP: as Linux.
    pub const DEFAULT: Self = Self {
        tcp_opening: 240,
        tcp_established: 86_400,
        tcp_half_closed: 3_600,
        tcp_closed: 240,
        udp_unreplied: 30,
        udp: 120,
        icmp: 60,
        sctp: 210,
    };

    /// Those of a flow of `protocol` in `state`; under `pressure`, there is no room for new ones.
    pub fn of(&self, protocol: Protocol, state: State, pressure: bool) -> u64 {
        let is_echo = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
        let (seconds, hurry) = match state {
            State::Established => (self.tcp_established, None),
            State::Associated => (self.sctp, None),
            State::TwoWay if is_echo => (self.icmp, Some(4)),
            State::TwoWay => (self.udp, None),
            State::OneWay if is_echo => (self.icmp, Some(4)),
            State::OneWay => (self.udp_unreplied, Some(4)),
            State::SynSent | State::Unwatched | State::SynReceived => (self.tcp_opening, Some(4)),
            State::FinFromClient | State::FinFromServer => (self.tcp_half_closed, Some(60)),
            State::TimeWait | State::Reset => (self.tcp_closed, Some(2)),
            // As Linux has them.
            State::CookieWait | State::CookieEchoed | State::Shutdown | State::ShutdownAck => (3, Some(2)),
            State::Closed => (10, Some(2)),
            State::Ending | State::Ended => (0, None),
        };
        match hurry {
            Some(hurry) if pressure => seconds.min(hurry).into(),
            _ => seconds.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: [Protocol; 5] =
        [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6];

    #[test]
    fn pressure_spares_what_is_established() {
        let timeouts = Timeouts::DEFAULT;
        for (protocol, state) in PROTOCOLS.into_iter().flat_map(|p| State::ALL.map(|state| (p, state))) {
            let [calm, hurried] = [false, true].map(|pressure| timeouts.of(protocol, state, pressure));
            let is_echo = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
            let established = match state {
                State::Established | State::Associated | State::Ending | State::Ended => true,
                State::TwoWay => !is_echo,
                _ => false,
            };
            assert_eq!(calm == hurried, established, "{protocol:?} {state:?}");
            assert!(hurried <= calm && calm <= Timeouts::MAX.into(), "{protocol:?} {state:?}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_rfcs_or_more() {
        let of = |protocol, state| Timeouts::DEFAULT.of(protocol, state, false);
        for state in [State::SynSent, State::SynReceived, State::TimeWait, State::Reset] {
            assert!(of(Protocol::TCP, state) >= 4 * 60, "RFC 5382, REQ-5; RFC 7857, section 2: {state:?}");
        }
        assert!(of(Protocol::TCP, State::Established) >= 2 * 3600 + 4 * 60, "RFC 5382, REQ-5");
        assert!(of(Protocol::UDP, State::TwoWay) >= 2 * 60, "RFC 4787, REQ-5");
        assert!(of(Protocol::ICMP, State::OneWay) >= 60, "RFC 5508, REQ-2");
    }

    #[test]
    fn pressure_never_makes_a_short_timeout_longer() {
        let brief =
            Timeouts { tcp_opening: 1, tcp_closed: 1, udp_unreplied: 1, icmp: 1, ..Timeouts::DEFAULT };
        for (protocol, state) in [
            (Protocol::TCP, State::SynSent),
            (Protocol::TCP, State::Reset),
            (Protocol::UDP, State::OneWay),
            (Protocol::ICMP, State::OneWay),
        ] {
            assert_eq!(brief.of(protocol, state, true), 1);
        }
    }
}
