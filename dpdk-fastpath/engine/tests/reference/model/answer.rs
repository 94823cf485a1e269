//! What we say ourselves: echo replies, ICMP errors (RFC 792, 1122, 1191, 1812, 4443), TCP resets (RFC 9293), SCTP aborts (RFC
//! 9260).
//!
//! Nothing is said to a group or about one, about a later fragment, or about an error message. Answers have 64 hops; an error
//! comes from the router's address, quotes as much as fits into 576 bytes or 1280, and over IPv4 has the class "internetwork
//! control".

use std::net::IpAddr;

use super::choice::Trial;
use super::{End, Inside, Model, Origin};
use crate::wire::dissect::{Net, Packet, Piece, Upper};
use crate::wire::make::{Ip, checked, frame as ethernet, icmp, ip, tcp};
use crate::wire::{ACK, ETH, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, checksum, is_station, put16, sctp};

/// What went wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Error {
    Hops,
    Net,
    Host,
    Port,
    TooBig(u16),
}

impl Error {
    /// Name of the counter, type, code and the second word; for IPv4.
    fn v4(self) -> (&'static str, u8, u8, [u8; 4]) {
        match self {
            Self::Hops => ("time-exceeded", 11, 0, [0; 4]),
            Self::Net => ("unreachable", 3, 0, [0; 4]),
            Self::Host => ("unreachable", 3, 1, [0; 4]),
            Self::Port => ("unreachable", 3, 3, [0; 4]),
            Self::TooBig(mtu) => ("too-big", 3, 4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]),
        }
    }

    /// For IPv6.
    fn v6(self) -> (&'static str, u8, u8, [u8; 4]) {
        match self {
            Self::Hops => ("time-exceeded", 3, 0, [0; 4]),
            Self::Net => ("unreachable", 1, 0, [0; 4]),
            Self::Host => ("unreachable", 1, 3, [0; 4]),
            Self::Port => ("unreachable", 1, 4, [0; 4]),
            Self::TooBig(mtu) => ("too-big", 2, 0, u32::from(mtu).to_be_bytes()),
        }
    }
}

/// The reply to an echo request; what is malformed, or `None` if it is not to be answered for another reason.
pub(crate) fn echo(frame: &[u8], packet: &Packet) -> Result<Vec<u8>, Option<&'static str>> {
    let (request, reply) = if packet.net == Net::V4 { (8, 0) } else { (128, 129) };
    if packet.upper != (Upper::Echo { kind: request }) || packet.is_fragment() || !between_hosts(packet) {
        return Err(None);
    }
    let message = &frame[packet.upper_at..packet.end];
    if !checksum::is_right(packet.src, packet.dst, packet.protocol, message) {
        return Err(Some("icmp-checksum"));
    }
    let mut out = [&packet.eth_src[..], &packet.eth_dst, &frame[12..packet.end]].concat();
    // Options, extension headers, class and data stay.
    let (source, width) = if packet.net == Net::V4 { (ETH + 12, 4) } else { (ETH + 8, 16) };
    out[source..source + width].copy_from_slice(&frame[source + width..source + 2 * width]);
    out[source + width..source + 2 * width].copy_from_slice(&frame[source..source + width]);
    out[if packet.net == Net::V4 { ETH + 8 } else { ETH + 7 }] = 64;
    if packet.net == Net::V4 {
        checksum::fill_ipv4(&mut out[ETH..]);
    }
    out[packet.upper_at] = reply;
    let right = checksum::transport(packet.dst, packet.src, packet.protocol, &out[packet.upper_at..]);
    put16(&mut out, packet.upper_at + 2, right);
    Ok(out)
}

/// Whether a frame goes from one station to one, and its packet from one host to one.
fn between_hosts(packet: &Packet) -> bool {
    let host = |address: IpAddr| match address {
        IpAddr::V4(v4) => ![0, 127].contains(&v4.octets()[0]) && v4.octets()[0] < 224,
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    };
    is_station(packet.eth_src) && is_station(packet.eth_dst) && host(packet.src) && host(packet.dst)
}

impl Model {
    /// Ends a packet and tells its sender why, if that may be.
    pub(crate) fn report(
        &mut self,
        inside: &Inside,
        reason: &'static str,
        error: Error,
        trial: &mut Trial<'_>,
    ) -> End {
        let end = self.drop(inside.port, reason);
        let packet = &inside.packet;
        let Some(from) = self.gateway(inside.key.tenant, packet.src) else { return end };
        if !self.may_tell(inside.port) {
            return end;
        }
        let is_error = match (packet.net, packet.upper) {
            (Net::V4, Upper::Icmp { kind }) => [3, 4, 5, 11, 12].contains(&kind),
            (_, Upper::Icmp { kind }) => kind < 128 || kind == 137,
            _ => false,
        };
        if packet.piece == Piece::Later || is_error || !between_hosts(packet) {
            return end;
        }
        let (to, v4) = (packet.src, packet.net == Net::V4);
        let (name, kind, code, word) = if v4 { error.v4() } else { error.v6() };
        let quote = packet.len().min(if v4 { 576 - 28 } else { 1280 - 48 });
        let protocol = if v4 { ICMP } else { ICMPV6 };
        let message = checked(from, to, protocol, icmp(kind, code, word, &inside.frame[ETH..ETH + quote]));
        let header = Ip { protocol, hops: 64, class: if v4 { 0xc0 } else { 0 } };
        self.tell(inside.port);
        let answer = ethernet(packet.eth_src, packet.eth_dst, &ip(from, to, header, &message));
        match self.back(inside, answer, trial) {
            Ok(frame) => self.answer(inside.port, name, frame),
            Err(_) => end,
        }
    }

    /// Ends a packet and tells its sender that nobody serves this port.
    pub(crate) fn refuse(&mut self, inside: &Inside, reason: &'static str, trial: &mut Trial<'_>) -> End {
        let packet = &inside.packet;
        let flags = match packet.upper {
            Upper::Tcp { flags } => flags,
            Upper::Sctp { chunks } => return self.abort(inside, chunks, reason, trial),
            _ => return self.report(inside, reason, Error::Port, trial),
        };
        let end = self.drop(inside.port, reason);
        if packet.is_fragment() || flags & RST != 0 || !between_hosts(packet) {
            return end;
        }
        let segment = &inside.frame[packet.upper_at..];
        let long = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
        let ports = (packet.ports.1, packet.ports.0);
        let reset = if flags & ACK != 0 {
            tcp(ports, long(8), 0, RST, 0, &[])
        } else {
            let data = segment.len() - usize::from(segment[12] >> 4) * 4;
            let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let next = long(4).wrapping_add(data as u32).wrapping_add(controls);
            tcp(ports, 0, next, RST | ACK, 0, &[])
        };
        let (from, to) = (packet.dst, packet.src);
        let message = checked(from, to, TCP, reset);
        let answer = ethernet(packet.eth_src, packet.eth_dst, &ip(from, to, Ip::of(TCP), &message));
        match self.back(inside, answer, trial) {
            Ok(frame) => self.answer(inside.port, "tcp-reset", frame),
            Err(_) => end,
        }
    }

    /// Ends an SCTP packet with an ABORT, or the last of an orderly end with what comes after it (RFC 9260, section 8.4).
    fn abort(&mut self, inside: &Inside, chunks: u8, reason: &'static str, trial: &mut Trial<'_>) -> End {
        let end = self.drop(inside.port, reason);
        let packet = &inside.packet;
        let association = &inside.frame[packet.upper_at..];
        let last = sctp::ABORT | sctp::SHUTDOWN_COMPLETE | sctp::COOKIE_ACK;
        if packet.is_fragment() || chunks & last != 0 || !between_hosts(packet) || association.len() < 16 {
            return end;
        }
        let four = |at: usize| <[u8; 4]>::try_from(&association[at..at + 4]).expect("four bytes");
        // INIT says by what tag to answer; of all others only the tag is known that they expect us to have.
        let (tag, flags) =
            if chunks & sctp::INIT != 0 && association.len() >= 20 { (four(16), 0) } else { (four(4), 1) };
        let kind = if chunks & sctp::SHUTDOWN_ACK != 0 { 14 } else { 6 };
        let message = sctp::make_short((packet.ports.1, packet.ports.0), tag, kind, flags);
        let (from, to) = (packet.dst, packet.src);
        let answer = ethernet(packet.eth_src, packet.eth_dst, &ip(from, to, Ip::of(SCTP), &message));
        match self.back(inside, answer, trial) {
            Ok(frame) => self.answer(inside.port, "sctp-abort", frame),
            Err(_) => end,
        }
    }

    /// An answer on its way back: as it is to a pod, else in the tunnel, whose class may depend on the answer's own.
    pub(crate) fn back(
        &mut self,
        inside: &Inside,
        frame: Vec<u8>,
        trial: &mut Trial<'_>,
    ) -> Result<Vec<u8>, &'static str> {
        match &inside.origin {
            Origin::Pod => Ok(frame),
            Origin::Tunnel(name) => {
                let packet = &frame[ETH..];
                let class = if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
                self.encapsulate((name, inside.key.tenant), inside.key, packet, (class, 64), trial)
            }
        }
    }
}
