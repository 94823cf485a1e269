//! What can go wrong with a port.

use super::vdev::mac_text;
use crate::error::DpdkError;

/// Why something could not be done to a port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A field of a device cannot be used.
    #[error("device {device}: {field}: {value:?}: {must}")]
    BadDevice {
        /// The device.
        device: String,
        /// The field of [`Vdev`](super::Vdev).
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// Not the address of one station.
    #[error("{port}: mac {}: must be a unicast address", mac_text(*.mac))]
    BadMac {
        /// The port.
        port: String,
        /// The address.
        mac: [u8; 6],
    },
    /// The interface is there already, and may be somebody else's.
    #[error(
        "tap {interface}: an interface of this name exists: remove it (`ip link del {interface}`) or take another name"
    )]
    InterfaceExists {
        /// Its name.
        interface: String,
    },
    /// No tap device.
    #[error(
        "tap {interface}: /dev/net/tun does not exist: load the kernel module (`modprobe tun`), and in a container pass \
         the device in"
    )]
    NoTun {
        /// The tap that was to be made.
        interface: String,
    },
    /// Not allowed to make taps.
    #[error(
        "tap {interface}: no permission {missing}: run as root, or with CAP_NET_ADMIN and access to /dev/net/tun"
    )]
    TunNotPermitted {
        /// The tap that was to be made.
        interface: String,
        /// What is not permitted.
        missing: &'static str,
    },
    /// No such port.
    #[error("port {port}: there is no such port")]
    NoSuchPort {
        /// Number or device name.
        port: String,
    },
    /// Another [`Port`](super::Port) stands for it.
    #[error("port {port}: it has an owner already")]
    Owned {
        /// Number or device name.
        port: String,
    },
    /// Queues that were handed out are still held, and may be polled.
    #[error("port {port}: {queues} of its queues are still in use")]
    QueuesInUse {
        /// The port.
        port: String,
        /// How many.
        queues: usize,
    },
    /// Started twice.
    #[error("port {port}: it is started already")]
    Started {
        /// The port.
        port: String,
    },
    /// A value of the configuration is outside what the device can.
    #[error("port {port}: {field}: {value}: must be {min}-{max}")]
    BadConfig {
        /// The port.
        port: String,
        /// The field of [`PortConfig`](super::PortConfig).
        field: &'static str,
        /// Its value.
        value: u32,
        /// The least that can be.
        min: u32,
        /// The most.
        max: u32,
    },
    /// net_tap moves packets of a queue pair through one descriptor.
    #[error("port {port}: a tap has as many receive as transmit queues, not {rx} and {tx}")]
    UnevenQueues {
        /// The port.
        port: String,
        /// Receive queues asked for.
        rx: u16,
        /// Transmit queues asked for.
        tx: u16,
    },
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// Taking it away met several problems; it was done as far as could be.
    #[error("port {port}: {}", join(.errors))]
    Teardown {
        /// The port.
        port: String,
        /// All of them.
        errors: Vec<DpdkError>,
    },
}

fn join(errors: &[DpdkError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
