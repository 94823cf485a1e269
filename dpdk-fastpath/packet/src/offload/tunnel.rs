//! Super-packets inside a tunnel.

use super::segment::Segments;
use super::{Offload, complete};
use crate::encap::{Encapsulation, decap, decap_geneve};
use crate::parse::{Parsed, parse};
use crate::udp::UdpHeader;

/// A packet in a tunnel, whose offload is that of the packet inside.
#[derive(Debug, Clone, Copy)]
pub struct Tunnelled {
    /// What is between the outer UDP header and the inner frame.
    pub encapsulation: Encapsulation,
    /// The outer packet.
    pub outer: Parsed,
    /// The inner one; its offsets count from its own first byte.
    pub inner: Parsed,
    /// Where that lies in the frame.
    pub inner_offset: usize,
    /// Whether the outer packet has a UDP checksum.
    has_checksum: bool,
}

impl Tunnelled {
    /// Reads a packet that a [template](crate::encap::Template) was put in front of; `None` if it is none.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let outer = parse(frame).ok()?;
        // Geneve without options begins with a zero, which VXLAN never does.
        let (encapsulation, decap) = match decap(frame, &outer) {
            Ok(decap) => (Encapsulation::Vxlan, decap),
            Err(_) => (Encapsulation::Geneve, decap_geneve(frame, &outer).ok()?),
        };
        let inner = parse(&frame[decap.inner_offset..]).ok()?;
        let udp = usize::from(outer.l4_offset);
        let has_checksum = frame[udp + 6..udp + 8] != [0, 0];
        Some(Self { encapsulation, outer, inner, inner_offset: decap.inner_offset, has_checksum })
    }

    /// The segments of the inner packet; `None` if it is not to be cut.
    pub fn segments<'a>(&'a self, frame: &'a [u8], offload: Offload) -> Option<Segments<'a>> {
        Segments::new(&frame[self.inner_offset..], &self.inner, offload.segment?)
    }

    /// Whether the outer packet has a UDP checksum.
    pub const fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// Makes the outer headers those of a packet with `payload` bytes behind the UDP header. Its UDP checksum becomes
    /// partial, or 0 for none.
    pub fn set_payload(&self, outer: &mut [u8], payload: usize, with_checksum: bool) {
        let (ip, udp) = (usize::from(self.outer.l3_offset), usize::from(self.outer.l4_offset));
        let udp_len = payload + UdpHeader::LEN;
        super::set_len(outer, &self.outer, udp - ip + udp_len);
        super::update_header(outer, &self.outer);
        outer[udp + 4..udp + 6].copy_from_slice(&(udp_len as u16).to_be_bytes());
        let sum = if with_checksum { super::pseudo(outer, &self.outer, udp_len).fold() } else { 0 };
        outer[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    }

    /// Makes the outer headers of a frame right for what is behind them, checksum included.
    pub fn seal(&self, frame: &mut [u8]) {
        let payload = frame.len() - usize::from(self.outer.l4_offset) - UdpHeader::LEN;
        self.set_payload(frame, payload, self.has_checksum);
        if self.has_checksum {
            let l3_len = (frame.len() - usize::from(self.outer.l3_offset)) as u32;
            complete(frame, &Parsed { l3_len, ..self.outer });
        }
    }
}
