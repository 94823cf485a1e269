//! What stage of its life a flow is in, and how long it may be silent there.

use culvert_packet::ip::Protocol;
use culvert_packet::tcp::TcpFlags;

/// Stage of a flow's life. Sequence numbers are not followed: translation never depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// TCP: the client has sent SYN.
    SynSent = 1,
    /// TCP: the server has answered.
    SynReceived,
    /// TCP: the client has answered that.
    Established,
    /// TCP: the client has sent FIN.
    FinFromClient,
    /// TCP: the server has sent FIN.
    FinFromServer,
    /// TCP: both have sent FIN.
    TimeWait,
    /// TCP: one side has sent RST.
    Reset,
    /// Not TCP: no packet has come back.
    OneWay,
    /// Not TCP: packets have come back.
    TwoWay,
    /// Being taken out of the index.
    Ending,
    /// Out of the index; its record waits for the worker that owns it.
    Ended,
}

impl State {
    const ALL: [Self; 11] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinFromClient,
        Self::FinFromServer,
        Self::TimeWait,
        Self::Reset,
        Self::OneWay,
        Self::TwoWay,
        Self::Ending,
        Self::Ended,
    ];

    /// `None` for 0, a record that is free.
    #[inline]
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => None,
            1..=11 => Some(Self::ALL[bits as usize - 1]),
            _ => Some(Self::Ended),
        }
    }

    /// The state of a flow that its first packet has just opened.
    pub const fn first(protocol: Protocol) -> Self {
        if protocol.0 == Protocol::TCP.0 { Self::SynSent } else { Self::OneWay }
    }

    /// The state after a packet from the server (`reply`) or the client. `flags` are none for other than TCP.
    #[inline]
    #[must_use]
    pub const fn after(self, reply: bool, flags: TcpFlags) -> Self {
        match self {
            Self::OneWay | Self::TwoWay if reply => Self::TwoWay,
            Self::OneWay | Self::TwoWay | Self::Ending | Self::Ended => self,
            _ if flags.contains(TcpFlags::RST) => Self::Reset,
            Self::SynSent if reply => Self::SynReceived,
            Self::SynReceived if !reply && !flags.contains(TcpFlags::SYN) => {
                if flags.contains(TcpFlags::FIN) { Self::FinFromClient } else { Self::Established }
            }
            Self::SynSent | Self::SynReceived | Self::TimeWait => self,
            Self::FinFromClient if reply && flags.contains(TcpFlags::FIN) => Self::TimeWait,
            Self::FinFromServer if !reply && flags.contains(TcpFlags::FIN) => Self::TimeWait,
            Self::FinFromClient | Self::FinFromServer => self,
            // Traffic after a reset: it was not a valid one.
            Self::Established | Self::Reset => match (flags.contains(TcpFlags::FIN), reply) {
                (false, _) => Self::Established,
                (true, false) => Self::FinFromClient,
                (true, true) => Self::FinFromServer,
            },
        }
    }

    /// Whether a SYN of the client begins another connection, to be decided anew.
    #[inline]
    pub const fn may_be_reopened(self) -> bool {
        matches!(self, Self::TimeWait | Self::Reset)
    }

    /// Seconds of silence after which the flow is forgotten; when the table is full, embryonic and ended flows go
    /// sooner, established ones never.
    ///
    /// Established TCP: a day, well above the two hours of RFC 5382. UDP: 30 seconds, or two minutes with replies, as of
    /// RFC 4787. The others as Linux has them.
    pub const fn timeout(self, pressure: bool) -> u64 {
        match (self, pressure) {
            (Self::Established, _) => 86_400,
            (Self::TwoWay, _) => 120,
            (Self::SynSent | Self::OneWay, false) => 30,
            (Self::SynReceived, false) => 60,
            (Self::FinFromClient | Self::FinFromServer, false) => 3_600,
            (Self::TimeWait, false) => 120,
            (Self::Reset, false) => 10,
            (Self::FinFromClient | Self::FinFromServer, true) => 60,
            (Self::SynSent | Self::SynReceived | Self::OneWay, true) => 4,
            (Self::TimeWait | Self::Reset, true) => 2,
            (Self::Ending | Self::Ended, _) => 0,
        }
    }

    /// The state as people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinFromClient | Self::FinFromServer => "closing",
            Self::TimeWait => "time-wait",
            Self::Reset => "reset",
            Self::OneWay => "one-way",
            Self::TwoWay => "two-way",
            Self::Ending | Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: bool = false;
    const SERVER: bool = true;

    #[test]
    fn bits_and_states_match_and_zero_is_none() {
        for state in State::ALL {
            assert_eq!(State::from_bits(state as u8), Some(state));
        }
        assert_eq!(State::from_bits(0), None);
        assert_eq!(State::from_bits(255), Some(State::Ended));
    }

    #[test]
    fn connections_live_and_end_as_tcp_does() {
        use State as S;
        use TcpFlags as F;
        let ack = F::ACK;
        for (name, packets, end) in [
            ("syn again", &[(CLIENT, F::SYN)][..], S::SynSent),
            ("answered", &[(SERVER, F::SYN | F::ACK)], S::SynReceived),
            ("open", &[(SERVER, F::SYN | F::ACK), (CLIENT, ack)], S::Established),
            ("syn again after the answer", &[(SERVER, F::SYN | F::ACK), (CLIENT, F::SYN)], S::SynReceived),
            ("refused", &[(SERVER, F::RST | F::ACK)], S::Reset),
            (
                "closed by the client",
                &[(SERVER, F::SYN | F::ACK), (CLIENT, ack), (CLIENT, F::FIN | F::ACK), (SERVER, ack)],
                S::FinFromClient,
            ),
            (
                "closed by both",
                &[
                    (SERVER, F::SYN | F::ACK),
                    (CLIENT, ack),
                    (SERVER, F::FIN | F::ACK),
                    (CLIENT, ack),
                    (CLIENT, F::FIN | F::ACK),
                    (SERVER, ack),
                ],
                S::TimeWait,
            ),
            (
                "a reset that was none",
                &[(SERVER, F::SYN | F::ACK), (CLIENT, F::RST), (CLIENT, ack)],
                S::Established,
            ),
        ] {
            let state =
                packets.iter().fold(S::first(Protocol::TCP), |s, &(reply, flags)| s.after(reply, flags));
            assert_eq!(state, end, "{name}");
        }
    }

    #[test]
    fn udp_is_one_way_until_it_is_answered() {
        let none = TcpFlags(0);
        let state = State::first(Protocol::UDP);
        assert_eq!(state.after(CLIENT, none), State::OneWay);
        assert_eq!(state.after(SERVER, none).after(CLIENT, none), State::TwoWay);
    }

    #[test]
    fn pressure_spares_what_is_established() {
        for state in State::ALL {
            let same = matches!(state, State::Established | State::TwoWay | State::Ending | State::Ended);
            assert_eq!(state.timeout(true) == state.timeout(false), same, "{state:?}");
            assert!(state.timeout(true) <= state.timeout(false));
        }
    }
}
