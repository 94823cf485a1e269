//! The uplink's part.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use culvert_packet::eth::EthAddr;
use nix::net::if_::if_nametoindex;

use super::Kernel;
use super::link::{Attachment, Hook};
use crate::error::{Failed, UplinkError};

/// What sees its packets.
const PROGRAM: &str = "from_uplink";

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
        self.uplink = Some(self.programs.attach(PROGRAM, index, Hook::Ingress).map_err(of)?);
        self.memory.set_uplink(index, mac, apart);
        Ok(())
    }

    /// Whether `left`, the [descriptor](Self::uplink) of another process's uplink, is that of this interface. Its program goes on
    /// until this process [goes on](Self::resume_uplink) with it.
    pub fn has_left_uplink(interface: &str, left: &OwnedFd) -> bool {
        let is_there = || {
            let left = Attachment::from(left.try_clone()?);
            left.is_on(if_nametoindex(interface)?, Hook::Ingress)
        };
        is_there().unwrap_or(false)
    }

    /// As [`join_uplink`](Self::join_uplink), in place of the program that another process has left there; if that does not go,
    /// beside it.
    ///
    /// # Errors
    /// As of that.
    pub fn resume_uplink(
        &mut self,
        interface: &str,
        mac: EthAddr,
        apart: bool,
        left: OwnedFd,
    ) -> Result<(), UplinkError> {
        let left = Attachment::from(left);
        let resume = || {
            self.programs.succeed(PROGRAM, &left)?;
            left.interface().map_err(Failed::to("find the uplink of another process"))
        };
        match resume() {
            Ok(index) => {
                self.uplink = Some(left);
                self.memory.set_uplink(index, mac, apart);
                Ok(())
            }
            Err(Failed { action, cause }) => {
                tracing::info!(uplink = interface, action, %cause, "the uplink is joined anew");
                self.join_uplink(interface, mac, apart)
            }
        }
    }

    /// The descriptor of what sees the uplink's packets. As long as anybody has it, decided connections go on.
    pub fn uplink(&self) -> Option<BorrowedFd<'_>> {
        self.uplink.as_ref().map(|uplink| uplink.as_fd())
    }
}
