//! The uplink's part.

use aya::programs::TcAttachType;
use aya::programs::tc::SchedClassifierLink;
use culvert_packet::eth::EthAddr;
use nix::net::if_::if_nametoindex;

use super::Kernel;
use crate::error::{Failed, UplinkError};

/// An uplink that is joined, until this is dropped.
#[derive(Debug)]
pub(super) struct Uplink {
    _link: SchedClassifierLink,
}

impl Kernel {
    /// Takes what comes at the interface `interface` of the calling thread's network namespace and belongs to decided connections.
    /// `mac` is the address of the fast path there, `apart` if no interface of the kernel has it.
    ///
    /// A packet socket for all protocols sees frames before, one for a protocol after that, and without their VLAN tag. Of frames
    /// with a tag that are for an address apart nobody sees anything; others are `PACKET_OTHERHOST` then.
    ///
    /// Another uplink that was joined before is left.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses.
    pub fn join_uplink(&mut self, interface: &str, mac: EthAddr, apart: bool) -> Result<(), UplinkError> {
        let of = |failed| UplinkError::of(interface, failed);
        self.memory.close_uplink();
        self.uplink = None;
        let index = if_nametoindex(interface).map_err(Failed::to("find it")).map_err(of)?;
        let link = self.programs.attach("from_uplink", interface, TcAttachType::Ingress).map_err(of)?;
        self.uplink = Some(Uplink { _link: link });
        self.memory.set_uplink(index, mac, apart);
        Ok(())
    }
}
