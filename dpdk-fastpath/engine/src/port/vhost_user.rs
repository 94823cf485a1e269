//! vhost-user: a pod's port is memory that a program in the pod shares, one with DPDK's virtio_user or a virtual machine's
//! monitor.
//!
//! The pod's end listens at a socket (`server=1` of virtio_user, `server=on` of QEMU) and the fast path connects, again every
//! second while nobody is there: so either may be started first, and started again; virtio_user takes a second connection if
//! its link interrupts are on. Packets are copied once in each direction, with their checksums and no longer than the MTU.

use std::path::Path;

use culvert_api::value::IfName;
use culvert_dpdk::Vdev;

/// The device of a port that is found at `socket`.
pub(super) fn device(name: &IfName, socket: &Path) -> Vdev {
    Vdev::VhostUser { name: name.to_string(), socket: socket.to_owned() }
}
