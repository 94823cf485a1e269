//! Where a packet goes.

use crate::table::PortIndex;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// To a local pod.
    Pod(PortIndex),
    /// Through the tunnel to the remote node in this slot.
    Remote(u32),
    /// There is no way.
    Nowhere,
}

const REMOTE: u16 = 0x8000;

/// An [`Out`] in 16 bits, as records keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutBits(u16);

impl OutBits {
    /// [`Out::Nowhere`].
    pub const NOWHERE: Self = Self(0xffff);

    /// The plain number.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// That of a plain number.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The port, if it is a local pod's.
    #[inline(always)]
    pub const fn port(self) -> Option<PortIndex> {
        if self.0 & REMOTE == 0 { Some(PortIndex(self.0)) } else { None }
    }

    /// The slot of the remote node, if it is none of a local pod; more than any slot if there is no way.
    #[inline(always)]
    pub const fn slot(self) -> usize {
        (self.0 & !REMOTE) as usize
    }
}

impl From<Out> for OutBits {
    #[inline]
    fn from(out: Out) -> Self {
        match out {
            Out::Pod(port) => Self(port.0),
            Out::Remote(slot) => Self(REMOTE | slot as u16),
            Out::Nowhere => Self::NOWHERE,
        }
    }
}

impl From<OutBits> for Out {
    #[inline]
    fn from(bits: OutBits) -> Self {
        match bits.port() {
            Some(port) => Self::Pod(port),
            None if bits == OutBits::NOWHERE => Self::Nowhere,
            None => Self::Remote(bits.slot() as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{MAX_PORTS, MAX_REMOTES};

    #[test]
    fn every_port_and_remote_slot_fits() {
        let ports = [0, 1, MAX_PORTS as u16 - 1].map(|port| Out::Pod(PortIndex(port)));
        let remotes = [0, 1, MAX_REMOTES as u32 - 1].map(Out::Remote);
        for out in ports.into_iter().chain(remotes).chain([Out::Nowhere]) {
            assert_eq!(Out::from(OutBits::from(out)), out);
        }
        assert!(OutBits::NOWHERE.slot() >= MAX_REMOTES);
    }
}
