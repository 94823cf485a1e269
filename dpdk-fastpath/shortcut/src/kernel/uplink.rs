//! The uplink's part.

use std::os::fd::BorrowedFd;

use aya::programs::TcAttachType;
use aya::programs::tc::SchedClassifierLink;
use nix::net::if_::if_nametoindex;

use super::Kernel;
use crate::error::{Failed, UplinkError};

/// An uplink that is joined, until this is dropped.
#[derive(Debug)]
pub(super) struct Uplink {
    _link: SchedClassifierLink,
}

impl Kernel {
    /// Takes what comes at the interface `interface` of the calling thread's network namespace, and hides it from packet
    /// sockets there, whatever filter they had before. They go on to see frames to the uplink's address and to several stations,
    /// without a VLAN tag: so that address must be known by now.
    ///
    /// Another uplink that was joined before is left. If it fails, it may be that some of the sockets have the filter.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses.
    pub fn join_uplink(&mut self, interface: &str, sockets: &[BorrowedFd<'_>]) -> Result<(), UplinkError> {
        let of = |failed| UplinkError::of(interface, failed);
        self.memory.set_uplink(0);
        self.uplink = None;
        let index = if_nametoindex(interface).map_err(Failed::to("find it")).map_err(of)?;
        let link = self.programs.attach("from_uplink", interface, TcAttachType::Ingress).map_err(of)?;
        for socket in sockets {
            self.programs.filter_socket(*socket).map_err(of)?;
        }
        self.uplink = Some(Uplink { _link: link });
        self.memory.set_uplink(index);
        Ok(())
    }
}
