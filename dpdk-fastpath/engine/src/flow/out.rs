//! Where a packet goes.

use crate::table::PortIndex;

/// Where a packet goes, in 16 bits.
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
const NOWHERE: u16 = 0xffff;

impl Out {
    pub(super) const fn to_bits(self) -> u16 {
        match self {
            Self::Pod(port) => port.0,
            Self::Remote(slot) => REMOTE | slot as u16,
            Self::Nowhere => NOWHERE,
        }
    }

    pub(super) const fn from_bits(bits: u16) -> Self {
        match bits {
            NOWHERE => Self::Nowhere,
            REMOTE.. => Self::Remote((bits & !REMOTE) as u32),
            _ => Self::Pod(PortIndex(bits)),
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
            assert_eq!(Out::from_bits(out.to_bits()), out);
        }
    }
}
