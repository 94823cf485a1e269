//! Ports: one uplink, one for each pod, and one for the host if it is wanted.
//!
//! [`PortManager`] knows which there are, gives each its number (under which the data path knows it) and the worker that
//! polls it; a [`Backend`] makes them real: [taps](tap) of our own, [packet sockets](packet_socket), or devices of DPDK.

pub mod af_xdp;
mod cut;
mod driver;
mod interface;
mod manager;
pub mod memif;
pub mod nic;
pub mod packet_socket;
mod queue;
mod release;
mod segmentation;
pub mod tap;
pub mod vhost_net;
mod vhost_user;

#[cfg(test)]
mod tests;

pub use cut::Cutting;
pub use driver::{BackendError, Device, Devices, Drivers, PortDriver};
pub use interface::{Interface, InterfaceError};
pub use manager::{Backend, Entry, Leaving, ManagerError, NewPort, PortManager};
pub use queue::{DeviceTx, Queues, Rx, SharedTx, Tx};
pub use segmentation::{Asked, Asking, Segmentation};
