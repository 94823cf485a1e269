//! How a flow comes, lives and goes.
//!
//! TCP: SYN sent, answered, established, closed by one side, by both. A reset ends a connection unless more comes. Sequence
//! numbers do not matter. SCTP: INIT sent, cookie brought back, associated, shut down, that answered, closed. Anything else
//! is one-way until a packet comes back, then two-way. A flow that is silent for longer than its state allows is over; when
//! the table is full, embryonic and ended ones are so sooner, established ones not.

use super::tables::Timeouts;
use crate::wire::dissect::Upper;
use crate::wire::sctp::{ABORT, COOKIE_ECHO, INIT, INIT_ACK, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE};
use crate::wire::{ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    /// As `SynSent`, but answers may have gone unseen.
    Unwatched,
    SynReceived,
    Established,
    FinFromClient,
    FinFromServer,
    TimeWait,
    Reset,
    OneWay,
    TwoWay,
    CookieWait,
    CookieEchoed,
    Associated,
    Shutdown,
    ShutdownAck,
    Closed,
}

/// What a packet says of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    /// Control bits.
    Tcp(u8),
    /// Chunks.
    Sctp(u8),
    None,
}

impl Signal {
    pub(crate) fn of(upper: Upper) -> Self {
        match upper {
            Upper::Tcp { flags } => Self::Tcp(flags),
            Upper::Sctp { chunks } => Self::Sctp(chunks),
            _ => Self::None,
        }
    }

    /// Whether it is from the midst of a connection: it neither opens one nor says that there is none.
    pub(crate) fn goes_on(self) -> bool {
        match self {
            Self::Tcp(flags) => flags & (SYN | RST) == 0,
            Self::Sctp(chunks) => chunks & (INIT | INIT_ACK | ABORT | SHUTDOWN_ACK | SHUTDOWN_COMPLETE) == 0,
            Self::None => true,
        }
    }

    /// Whether it asks for a new connection.
    pub(crate) fn opens(self) -> bool {
        match self {
            Self::Tcp(flags) => flags & SYN != 0 && flags & (ACK | RST) == 0,
            Self::Sctp(chunks) => chunks & INIT != 0 && chunks & ABORT == 0,
            Self::None => false,
        }
    }
}

impl State {
    pub(crate) fn first(protocol: u8) -> Self {
        match protocol {
            TCP => Self::SynSent,
            SCTP => Self::CookieWait,
            _ => Self::OneWay,
        }
    }

    /// Of a connection that goes on without having been tracked: an answer will tell whether there is one.
    pub(crate) fn resumed(protocol: u8) -> Self {
        match protocol {
            TCP => Self::Unwatched,
            SCTP => Self::CookieEchoed,
            _ => Self::first(protocol),
        }
    }

    /// After a packet of the server or the client.
    pub(crate) fn next(self, server: bool, signal: Signal) -> Self {
        match signal {
            Signal::Tcp(flags) => self.next_tcp(server, flags),
            Signal::Sctp(chunks) => self.next_sctp(server, chunks),
            Signal::None if server => Self::TwoWay,
            Signal::None => self,
        }
    }

    fn next_tcp(self, server: bool, flags: u8) -> Self {
        let fin = flags & FIN != 0;
        match self {
            _ if flags & RST != 0 => Self::Reset,
            Self::SynSent | Self::Unwatched if server => Self::SynReceived,
            Self::SynReceived if !server && flags & SYN == 0 && fin => Self::FinFromClient,
            Self::SynReceived if !server && flags & SYN == 0 => Self::Established,
            // More after a reset: that was none.
            Self::Established | Self::Reset if !fin => Self::Established,
            Self::Established | Self::Reset if server => Self::FinFromServer,
            Self::Established | Self::Reset => Self::FinFromClient,
            Self::FinFromClient if server && fin => Self::TimeWait,
            Self::FinFromServer if !server && fin => Self::TimeWait,
            _ => self,
        }
    }

    fn next_sctp(self, server: bool, chunks: u8) -> Self {
        let has = |chunk| chunks & chunk != 0;
        match self {
            // More after an abort: that was none.
            Self::Closed if chunks == 0 => Self::Associated,
            Self::Closed => Self::Closed,
            _ if has(ABORT) => Self::Closed,
            Self::CookieWait if has(COOKIE_ECHO) => Self::CookieEchoed,
            Self::CookieEchoed if server && !has(INIT_ACK) => Self::Associated,
            Self::Associated if has(SHUTDOWN) => Self::Shutdown,
            Self::Associated | Self::Shutdown if has(SHUTDOWN_ACK) => Self::ShutdownAck,
            Self::Shutdown | Self::ShutdownAck if has(SHUTDOWN_COMPLETE) => Self::Closed,
            _ => self,
        }
    }

    /// Whether it counts as one of its endpoint's flows.
    pub(crate) fn is_open(self) -> bool {
        !matches!(self, Self::TimeWait | Self::Reset | Self::ShutdownAck | Self::Closed)
    }

    /// Whether a SYN or INIT of the client begins another connection.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Reset | Self::Shutdown | Self::ShutdownAck | Self::Closed)
    }

    /// Seconds of silence that a flow may keep; when the table is full, embryonic and ended ones may not keep it as long.
    pub(crate) fn patience(self, protocol: u8, timeouts: &Timeouts, pressure: bool) -> u64 {
        let echo = [ICMP, ICMPV6].contains(&protocol);
        let (usual, pressed) = match self {
            Self::OneWay | Self::TwoWay if echo => (timeouts.icmp, 4),
            Self::SynSent | Self::Unwatched | Self::SynReceived => (timeouts.tcp_opening, 4),
            Self::OneWay => (timeouts.udp_unreplied, 4),
            Self::TwoWay => (timeouts.udp, u32::MAX),
            Self::Established => (timeouts.tcp_established, u32::MAX),
            Self::FinFromClient | Self::FinFromServer => (timeouts.tcp_half_closed, 60),
            Self::TimeWait | Self::Reset => (timeouts.tcp_closed, 2),
            Self::CookieWait | Self::CookieEchoed | Self::Shutdown | Self::ShutdownAck => (3, 2),
            Self::Associated => (timeouts.sctp, u32::MAX),
            Self::Closed => (10, 2),
        };
        if pressure { usual.min(pressed).into() } else { usual.into() }
    }
}
