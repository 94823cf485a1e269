//! The 802.1Q tag between the Ethernet addresses and the EtherType.

use std::fmt;

use zerocopy::byteorder::network_endian::U16;

use crate::buf::PacketBuf;
use crate::eth::{EthHeader, EtherType};
use crate::view::wire;

/// Tag control information: priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tci(pub u16);

impl Tci {
    /// Tag of VLAN `id`, of which the low 12 bits count, with priority 0.
    pub const fn of_vlan(id: u16) -> Self {
        Self(id & 0xfff)
    }

    /// The same tag with priority `pcp`, of which the low 3 bits count.
    #[must_use]
    pub const fn with_priority(self, pcp: u8) -> Self {
        Self(self.0 & 0x1fff | (pcp as u16) << 13)
    }

    /// VLAN id, 0-4095; 0 is a tag that carries a priority only.
    #[inline]
    pub const fn id(self) -> u16 {
        self.0 & 0xfff
    }

    /// Priority, 0-7.
    #[inline]
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Whether the frame may be dropped before others when there is congestion.
    #[inline]
    pub const fn drop_eligible(self) -> bool {
        self.0 & 0x1000 != 0
    }
}

impl fmt::Debug for Tci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vlan {} priority {}", self.id(), self.priority())
    }
}

wire! {
    /// What follows the EtherType [`VLAN`](EtherType::VLAN).
    pub struct VlanHeader {
        tci: U16,
        ether_type: U16,
    }
}

impl VlanHeader {
    /// The tag.
    #[inline]
    pub const fn tci(&self) -> Tci {
        Tci(self.tci.get())
    }

    /// What follows the tag.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }
}

const ADDRESSES: usize = 12;

/// The outermost 802.1Q tag of a frame.
#[inline]
pub fn read(frame: &[u8]) -> Option<Tci> {
    let [high, low] = EtherType::VLAN.0.to_be_bytes();
    match *frame.get(ADDRESSES..)?.first_chunk::<4>()? {
        [a, b, c, d] if a == high && b == low => Some(Tci(u16::from_be_bytes([c, d]))),
        _ => None,
    }
}

/// Tags a frame; `false`, and nothing changed, if it is no frame or there is no headroom.
#[inline]
pub fn push(buf: &mut impl PacketBuf, tci: Tci) -> bool {
    if buf.len() < EthHeader::LEN {
        return false;
    }
    let Some(frame) = buf.prepend(VlanHeader::LEN) else { return false };
    frame.copy_within(VlanHeader::LEN..VlanHeader::LEN + ADDRESSES, 0);
    frame[ADDRESSES..ADDRESSES + 2].copy_from_slice(&EtherType::VLAN.0.to_be_bytes());
    frame[ADDRESSES + 2..ADDRESSES + 4].copy_from_slice(&tci.0.to_be_bytes());
    true
}

/// Takes the outermost 802.1Q tag off a frame; `None`, and nothing changed, if there is none.
#[inline]
pub fn pop(buf: &mut impl PacketBuf) -> Option<Tci> {
    let tci = read(buf.data())?;
    buf.data_mut().copy_within(..ADDRESSES, VlanHeader::LEN);
    buf.trim_front(VlanHeader::LEN);
    Some(tci)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::TestBuf;

    #[test]
    fn a_pushed_tag_reads_back_and_pops_off_again() {
        let frame: Vec<u8> = (0..20).collect();
        let mut buf = TestBuf::new(&frame);
        let tci = Tci::of_vlan(100).with_priority(5);
        assert!(push(&mut buf, tci));
        assert_eq!(buf.len(), 24);
        assert_eq!(&buf.data()[..12], &frame[..12]);
        assert_eq!(&buf.data()[12..18], [0x81, 0x00, 0xa0, 0x64, 12, 13]);
        let read_back = read(buf.data()).unwrap();
        assert_eq!((read_back.id(), read_back.priority(), read_back.drop_eligible()), (100, 5, false));
        assert_eq!(pop(&mut buf), Some(tci));
        assert_eq!(buf.data(), frame);
        assert_eq!(pop(&mut buf), None);
        assert_eq!(buf.data(), frame);
    }

    #[test]
    fn what_is_no_frame_is_not_tagged() {
        let mut buf = TestBuf::new(&[0; 13]);
        assert!(!push(&mut buf, Tci::of_vlan(1)));
        assert_eq!(buf.data(), [0; 13]);
        let mut full = TestBuf::with_headroom(&[0; 64], 3);
        assert!(!push(&mut full, Tci::of_vlan(1)));
        assert_eq!(full.data(), [0; 64]);
    }
}
