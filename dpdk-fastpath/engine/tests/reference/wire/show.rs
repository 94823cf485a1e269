//! Frames as people read them.

use std::fmt::Write as _;

use super::dissect::{Net, Packet, Piece, Upper, dissect};
use super::{ETH, Mac, get16};

/// An Ethernet address as people write it.
pub(crate) fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A frame in one line, with what is in its tunnel.
pub(crate) fn line(frame: &[u8]) -> String {
    let packet = match dissect(frame) {
        Ok(packet) => packet,
        Err(why) => return format!("{} bytes, {why}", frame.len()),
    };
    let mut out = format!("{} > {} ", mac(packet.eth_src), mac(packet.eth_dst));
    if packet.tagged {
        out.push_str("tagged ");
    }
    out.push_str(&network(frame, &packet));
    if frame.len() > packet.end {
        let _ = write!(out, " +{} bytes behind it", frame.len() - packet.end);
    }
    if let Some(inner) = inner(frame, &packet) {
        let vni = u32::from_be_bytes([
            0,
            frame[packet.upper_at + 12],
            frame[packet.upper_at + 13],
            frame[packet.upper_at + 14],
        ]);
        let _ = write!(out, "\n        vni {vni}: {}", line(inner));
    }
    out
}

/// What may be the frame in a VXLAN packet.
pub(crate) fn inner<'a>(frame: &'a [u8], packet: &Packet) -> Option<&'a [u8]> {
    let header = packet.upper_at + 8;
    let looks = packet.upper == Upper::Udp
        && packet.piece == Piece::Whole
        && packet.end >= header + 8 + ETH
        && ([[8, 0, 0, 0], [0, 0, 0x65, 0x58]].contains(&[0, 1, 2, 3].map(|n| frame[header + n])))
        && frame[header + 7] == 0;
    looks.then(|| &frame[header + 8..packet.end])
}

fn network(frame: &[u8], packet: &Packet) -> String {
    let Packet { src, dst, ports, hops, class, .. } = packet;
    let tail = format!("hops {hops} class {class:#04x} {} bytes", packet.len());
    match packet.net {
        Net::Other(ether_type) => format!("EtherType {ether_type:#06x}"),
        Net::Arp => format!("ARP operation {} {src} asks for {dst}", get16(frame, packet.ip_at + 6)),
        Net::V4 | Net::V6 => {
            let piece = match packet.piece {
                Piece::Whole => "",
                Piece::First => " first fragment",
                Piece::Later => " later fragment",
            };
            match packet.upper {
                Upper::Tcp { flags } => {
                    format!("TCP {src} {} > {dst} {} {} {tail}{piece}", ports.0, ports.1, tcp_flags(flags))
                }
                Upper::Udp => format!("UDP {src} {} > {dst} {} {tail}{piece}", ports.0, ports.1),
                Upper::Sctp { chunks } => {
                    format!("SCTP {src} {} > {dst} {} chunks {chunks:#04x} {tail}{piece}", ports.0, ports.1)
                }
                Upper::Echo { kind } => {
                    format!("echo type {kind} id {} {src} > {dst} {tail}{piece}", ports.0)
                }
                Upper::Icmp { kind } => {
                    let code = frame[packet.upper_at + 1];
                    format!("ICMP type {kind} code {code} {src} > {dst} {tail}{piece}")
                }
                Upper::Unknown => format!("protocol {} {src} > {dst} {tail}{piece}", packet.protocol),
            }
        }
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set: Vec<_> =
        names.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| *name).collect();
    if set.is_empty() { "none".to_owned() } else { set.join("+") }
}

/// The bytes of a frame, sixteen a line.
pub(crate) fn hex(frame: &[u8]) -> String {
    let mut out = String::new();
    for (line, bytes) in frame.chunks(16).enumerate() {
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(out, "      {:04x}  {}", line * 16, bytes.join(" "));
    }
    out
}

/// The first byte in which two frames differ.
pub(crate) fn difference(sent: &[u8], expected: &[u8]) -> String {
    if let Some(at) = sent.iter().zip(expected).position(|(a, b)| a != b) {
        return format!("byte {at:#06x}: the engine {:#04x}, the model {:#04x}", sent[at], expected[at]);
    }
    format!("the engine {} bytes, the model {}", sent.len(), expected.len())
}
