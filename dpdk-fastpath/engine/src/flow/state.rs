//! What stage of its life a flow is in.

use culvert_packet::Parsed;
use culvert_packet::ip::Protocol;
use culvert_packet::parse::L4;
use culvert_packet::sctp::SctpChunks;
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
    /// Neither TCP nor SCTP: no packet has come back.
    OneWay,
    /// Neither TCP nor SCTP: packets have come back.
    TwoWay,
    /// SCTP: the client has sent INIT.
    CookieWait,
    /// SCTP: the client has brought the cookie back.
    CookieEchoed,
    /// SCTP: the server has accepted it.
    Associated,
    /// SCTP: one side has sent SHUTDOWN.
    Shutdown,
    /// SCTP: the other side has answered that.
    ShutdownAck,
    /// SCTP: the association is over, in order or by ABORT.
    Closed,
    /// TCP: the client has sent SYN, or goes on without having been tracked. Answers may have gone unseen.
    Unwatched,
    /// Being taken out of the index.
    Ending,
    /// Out of the index; its record waits for the worker that owns it.
    Ended,
}

/// What a packet says about the connection that it belongs to; of other protocols than TCP and SCTP nothing, as TCP without
/// flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The control bits of a TCP segment.
    Tcp(TcpFlags),
    /// The chunks of an SCTP packet.
    Sctp(SctpChunks),
}

impl From<TcpFlags> for Signal {
    #[inline(always)]
    fn from(flags: TcpFlags) -> Self {
        Self::Tcp(flags)
    }
}

impl From<&Parsed> for Signal {
    #[inline]
    fn from(parsed: &Parsed) -> Self {
        if parsed.l4 == L4::Sctp { Self::Sctp(parsed.sctp_chunks) } else { Self::Tcp(parsed.tcp_flags) }
    }
}

impl Signal {
    /// Whether the packet is from the midst of a connection: it neither opens one nor says that there is none.
    pub fn goes_on(self) -> bool {
        match self {
            Self::Tcp(flags) => !flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::RST),
            Self::Sctp(chunks) => {
                use SctpChunks as C;
                [C::INIT, C::INIT_ACK, C::ABORT, C::SHUTDOWN_ACK, C::SHUTDOWN_COMPLETE]
                    .into_iter()
                    .all(|kind| !chunks.contains(kind))
            }
        }
    }

    /// Whether the packet asks for a new connection.
    pub const fn opens(self) -> bool {
        match self {
            Self::Tcp(flags) => flags.opens(),
            Self::Sctp(chunks) => chunks.opens(),
        }
    }
}

impl State {
    pub(super) const ALL: [Self; 18] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinFromClient,
        Self::FinFromServer,
        Self::TimeWait,
        Self::Reset,
        Self::OneWay,
        Self::TwoWay,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Associated,
        Self::Shutdown,
        Self::ShutdownAck,
        Self::Closed,
        Self::Unwatched,
        Self::Ending,
        Self::Ended,
    ];

    /// `None` for 0, a record that is free.
    #[inline]
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => None,
            1..=18 => Some(Self::ALL[bits as usize - 1]),
            _ => Some(Self::Ended),
        }
    }

    /// The state of a flow that its first packet has just opened.
    pub const fn first(protocol: Protocol) -> Self {
        match protocol {
            Protocol::TCP => Self::SynSent,
            Protocol::SCTP => Self::CookieWait,
            _ => Self::OneWay,
        }
    }

    /// The state of a flow that goes on after it had no record: only an answer tells that there is such a connection.
    pub const fn resumed(protocol: Protocol) -> Self {
        match protocol {
            Protocol::TCP => Self::Unwatched,
            Protocol::SCTP => Self::CookieEchoed,
            _ => Self::first(protocol),
        }
    }

    /// The state after a packet from the server (`reply`) or the client.
    #[inline]
    #[must_use]
    pub fn after(self, reply: bool, signal: impl Into<Signal>) -> Self {
        match signal.into() {
            Signal::Tcp(flags) => self.after_tcp(reply, flags),
            Signal::Sctp(chunks) => self.after_sctp(reply, chunks),
        }
    }

    /// `flags` are none for other than TCP.
    #[inline]
    const fn after_tcp(self, reply: bool, flags: TcpFlags) -> Self {
        match self {
            Self::OneWay | Self::TwoWay if reply => Self::TwoWay,
            Self::OneWay | Self::TwoWay | Self::Ending | Self::Ended => self,
            Self::CookieWait | Self::CookieEchoed | Self::Associated => self,
            Self::Shutdown | Self::ShutdownAck | Self::Closed => self,
            _ if flags.contains(TcpFlags::RST) => Self::Reset,
            Self::SynSent | Self::Unwatched if reply => Self::SynReceived,
            Self::SynReceived if !reply && !flags.contains(TcpFlags::SYN) => {
                if flags.contains(TcpFlags::FIN) { Self::FinFromClient } else { Self::Established }
            }
            Self::SynSent | Self::Unwatched | Self::SynReceived | Self::TimeWait => self,
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

    /// As Linux follows associations. Verification tags are not followed: a forged ABORT only shortens the time for which a
    /// flow may be silent, until its next packet.
    fn after_sctp(self, reply: bool, chunks: SctpChunks) -> Self {
        use SctpChunks as C;
        match self {
            Self::CookieWait | Self::CookieEchoed | Self::Associated | Self::Shutdown | Self::ShutdownAck
                if chunks.contains(C::ABORT) =>
            {
                Self::Closed
            }
            Self::CookieWait if chunks.contains(C::COOKIE_ECHO) => Self::CookieEchoed,
            // The server's next packet is COOKIE ACK. Should that be lost on its way to us, it is data or its like.
            Self::CookieEchoed if reply && !chunks.contains(C::INIT_ACK) => Self::Associated,
            Self::Associated if chunks.contains(C::SHUTDOWN) => Self::Shutdown,
            Self::Associated | Self::Shutdown if chunks.contains(C::SHUTDOWN_ACK) => Self::ShutdownAck,
            Self::Shutdown | Self::ShutdownAck if chunks.contains(C::SHUTDOWN_COMPLETE) => Self::Closed,
            // Traffic after an ABORT: it was not a valid one.
            Self::Closed if chunks == C::NONE => Self::Associated,
            _ => self,
        }
    }

    /// Whether more may be asked of the endpoint: it counts as one of its flows.
    #[inline]
    pub const fn is_open(self) -> bool {
        !matches!(
            self,
            Self::TimeWait | Self::Reset | Self::ShutdownAck | Self::Closed | Self::Ending | Self::Ended
        )
    }

    /// Whether a SYN or INIT of the client begins another connection, to be decided anew.
    #[inline]
    pub const fn may_be_reopened(self) -> bool {
        matches!(self, Self::TimeWait | Self::Reset | Self::Shutdown | Self::ShutdownAck | Self::Closed)
    }

    /// The state as people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent | Self::Unwatched => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinFromClient | Self::FinFromServer => "closing",
            Self::TimeWait => "time-wait",
            Self::Reset => "reset",
            Self::OneWay => "one-way",
            Self::TwoWay => "two-way",
            Self::CookieWait => "cookie-wait",
            Self::CookieEchoed => "cookie-echoed",
            Self::Associated => "established",
            Self::Shutdown => "shutdown",
            Self::ShutdownAck => "shutdown-ack",
            Self::Closed => "closed",
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
    fn associations_live_and_end_as_sctp_does() {
        use SctpChunks as C;
        use State as S;
        let open =
            [(CLIENT, C::INIT), (SERVER, C::INIT_ACK), (CLIENT, C::COOKIE_ECHO), (SERVER, C::COOKIE_ACK)];
        let then = |more: &[(bool, C)]| [&open[..], more].concat();
        for (name, packets, end) in [
            ("asked for", open[..1].to_vec(), S::CookieWait),
            ("asked for again", vec![(CLIENT, C::INIT), (CLIENT, C::INIT)], S::CookieWait),
            ("answered", open[..2].to_vec(), S::CookieWait),
            ("cookie", open[..3].to_vec(), S::CookieEchoed),
            ("a late answer", [&open[..3], &[(SERVER, C::INIT_ACK)]].concat(), S::CookieEchoed),
            ("there", then(&[]), S::Associated),
            ("cookie accepted with data", [&open[..3], &[(SERVER, C::NONE)]].concat(), S::Associated),
            ("refused", vec![(CLIENT, C::INIT), (SERVER, C::ABORT)], S::Closed),
            ("data", then(&[(CLIENT, C::NONE), (SERVER, C::NONE)]), S::Associated),
            ("restarted by the client", then(&[(CLIENT, C::INIT)]), S::Associated),
            ("closing", then(&[(SERVER, C::SHUTDOWN)]), S::Shutdown),
            ("both closing", then(&[(SERVER, C::SHUTDOWN), (CLIENT, C::SHUTDOWN_ACK)]), S::ShutdownAck),
            (
                "closed",
                then(&[(CLIENT, C::SHUTDOWN), (SERVER, C::SHUTDOWN_ACK), (CLIENT, C::SHUTDOWN_COMPLETE)]),
                S::Closed,
            ),
            ("aborted", then(&[(CLIENT, C::ABORT)]), S::Closed),
            ("an abort that was none", then(&[(CLIENT, C::ABORT), (SERVER, C::NONE)]), S::Associated),
        ] {
            let first = S::first(Protocol::SCTP);
            let state =
                packets.iter().fold(first, |s, &(reply, chunks)| s.after(reply, Signal::Sctp(chunks)));
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
}
