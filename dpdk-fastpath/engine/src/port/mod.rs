//! Ports: one uplink, and one for each pod.
//!
//! [`PortManager`] knows which there are, gives each its number (under which the data path knows it) and the worker that
//! polls it; a [`Backend`] makes them real.

mod driver;
mod manager;

#[cfg(test)]
mod tests;

pub use driver::{BackendError, DpdkBackend, PortDriver};
pub use manager::{Backend, Entry, Leaving, ManagerError, NewPort, PortManager};
