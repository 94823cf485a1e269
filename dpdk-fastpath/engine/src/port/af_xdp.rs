//! AF_XDP: the uplink is an interface that the kernel keeps but whose receive queues it hands over before its own stack
//! sees them, by DPDK's net_af_xdp.
//!
//! An XDP program on the interface, of libxdp's, redirects everything: so nothing of what comes in reaches the kernel, and
//! every queue that the interface has needs a worker.

mod taken;

use std::thread;
use std::time::{Duration, Instant};

use culvert_api::value::IfName;
use culvert_dpdk::{PortError, Vdev};

use super::{Interface, InterfaceError};

/// Why AF_XDP cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// What comes in at a queue without a worker would be lost, and a worker without a queue could not send.
    #[error(
        "interface {interface}: has {queues} queues, and there are {workers} workers: make the two the same \
         (`ethtool -L {interface} combined {workers}`, or other `workers`), or take `afPacket`"
    )]
    Queues {
        /// The interface.
        interface: IfName,
        /// Its queues.
        queues: usize,
        /// The workers.
        workers: u16,
    },
    /// DPDK or the kernel.
    #[error(
        "interface {interface}: AF_XDP cannot be used. It needs DPDK's driver net_af_xdp with libxdp (Debian: \
         librte-net-af-xdp23), a kernel with CONFIG_XDP_SOCKETS, CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, an MTU that fits \
         into a packet buffer, and no other XDP program on the interface. `afPacket` needs none of this"
    )]
    Refused {
        /// The interface.
        interface: IfName,
        /// Why not.
        source: Box<PortError>,
    },
}

impl AfXdpError {
    pub(super) fn new(interface: &IfName, source: PortError) -> Self {
        Self::Refused { interface: interface.clone(), source: Box::new(source) }
    }
}

/// How long the kernel may take to let go of the queues that an ended process had: it does so some time later.
const RELEASE: Duration = Duration::from_secs(2);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until the queues are free that another process has just had.
pub(super) fn wait_for_queues(name: &IfName) -> Result<(), AfXdpError> {
    let Interface { index, queues, .. } = Interface::find(name)?;
    let end = Instant::now() + RELEASE;
    for queue in 0..queues as u32 {
        loop {
            match taken::is_taken(index, queue) {
                Ok(true) if Instant::now() < end => thread::sleep(PAUSE),
                Ok(_) => break,
                // net_af_xdp will say the same.
                Err(error) => {
                    tracing::debug!(%name, queue, %error, "nobody knows who has this queue");
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The device for an interface with as many queues as there are workers.
pub(super) fn device(name: &IfName, workers: u16) -> Result<Vdev, AfXdpError> {
    let queues = Interface::find(name)?.queues;
    if queues != usize::from(workers) {
        return Err(AfXdpError::Queues { interface: name.clone(), queues, workers });
    }
    Ok(Vdev::AfXdp { interface: name.to_string(), queues: workers })
}
