//! Ports: one uplink, and one for each pod.
//!
//! [`PortManager`] knows which there are, gives each its number (under which the data path knows it) and the worker that
//! polls it; a [`Backend`] makes them real: [taps](tap) of our own, or devices of DPDK.

mod cut;
mod driver;
mod manager;
mod queue;
pub mod tap;

#[cfg(test)]
mod tests;

pub use cut::Cutting;
pub use driver::{BackendError, Device, Devices, Drivers, PortDriver};
pub use manager::{Backend, Entry, Leaving, ManagerError, NewPort, PortManager};
pub use queue::{DeviceTx, Queues, Rx, Tx};
