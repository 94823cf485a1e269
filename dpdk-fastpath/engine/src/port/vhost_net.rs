//! vhost-net: a pod's port is a tap whose packets a thread of the kernel's moves between it and rings in our memory, so that a
//! worker makes no system call for them.
//!
//! Of virtio_user's offloads none is negotiated: with them DPDK receives a super-packet as a chain of mbufs, and here each
//! packet lies in one. So packets come and go with their checksums and no longer than the MTU. A port is one of the 32 devices
//! that DPDK has room for.

use std::fs::OpenOptions;
use std::io;

use culvert_dpdk::Vdev;

use super::NewPort;

/// Where the kernel offers it.
const DEVICE: &str = "/dev/vhost-net";

/// Why the kernel cannot be asked to move packets.
#[derive(Debug, thiserror::Error)]
pub enum VhostNetError {
    /// No module.
    #[error(
        "podPorts vhostNet: {DEVICE} does not exist: load the kernel module (`modprobe vhost_net`), and in a container pass \
         the device in; or take `podPorts: tap`"
    )]
    Missing,
    /// Not allowed, or out of order.
    #[error("podPorts vhostNet: {DEVICE} cannot be opened: run as root, or take `podPorts: tap`")]
    NotOpened(#[source] io::Error),
}

/// Whether the kernel offers it.
///
/// # Errors
/// When it does not, or not to this process.
pub fn check() -> Result<(), VhostNetError> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
            Err(VhostNetError::Missing)
        }
        Err(error) => Err(VhostNetError::NotOpened(error)),
    }
}

/// The device of a port.
pub(super) fn device(port: &NewPort<'_>) -> Result<Vdev, VhostNetError> {
    check()?;
    Ok(Vdev::VhostNet { interface: port.interface.to_string(), mac: port.mac.octets() })
}
