//! Super-packets inside a tunnel.

use super::Offload;
use super::segment::Segments;
use crate::encap::decap;
use crate::parse::{Parsed, parse};
use crate::udp::UdpHeader;

/// A packet in a tunnel, whose offload is that of the packet inside.
#[derive(Debug, Clone, Copy)]
pub struct Tunnelled {
    /// The outer packet.
    pub outer: Parsed,
    /// The inner one; its offsets count from its own first byte.
    pub inner: Parsed,
    /// Where that lies in the frame.
    pub inner_offset: usize,
}

impl Tunnelled {
    /// `None` if it is no packet in a tunnel.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let outer = parse(frame).ok()?;
        let inner_offset = decap(frame, &outer).ok()?.inner_offset;
        let inner = parse(&frame[inner_offset..]).ok()?;
        Some(Self { outer, inner, inner_offset })
    }

    /// The segments of the inner packet; `None` if it is not to be cut.
    pub fn segments<'a>(&'a self, frame: &'a [u8], offload: Offload) -> Option<Segments<'a>> {
        Segments::new(&frame[self.inner_offset..], &self.inner, offload.segment?)
    }

    /// Makes the outer headers those of a packet with `payload` bytes behind the UDP header. Its UDP checksum becomes 0,
    /// for none.
    pub fn set_payload(&self, outer: &mut [u8], payload: usize) {
        let (ip, udp) = (usize::from(self.outer.l3_offset), usize::from(self.outer.l4_offset));
        let udp_len = payload + UdpHeader::LEN;
        super::set_len(outer, &self.outer, udp - ip + udp_len);
        super::update_header(outer, &self.outer);
        outer[udp + 4..udp + 6].copy_from_slice(&(udp_len as u16).to_be_bytes());
        outer[udp + 6..udp + 8].fill(0);
    }

    /// Makes the headers in front of an inner frame, all of them, those of one of `len` bytes.
    pub fn set_inner(&self, outer: &mut [u8], len: usize) {
        let udp_end = usize::from(self.outer.l4_offset) + UdpHeader::LEN;
        self.set_payload(outer, self.inner_offset - udp_end + len);
    }

    /// As [`set_payload`](Self::set_payload), with a partial UDP checksum.
    pub fn set_payload_partial(&self, outer: &mut [u8], payload: usize) {
        self.set_payload(outer, payload);
        let udp = usize::from(self.outer.l4_offset);
        let sum = super::pseudo(outer, &self.outer, payload + UdpHeader::LEN);
        outer[udp + 6..udp + 8].copy_from_slice(&sum.fold().to_be_bytes());
    }
}
