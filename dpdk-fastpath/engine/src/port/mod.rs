//! Ports: one uplink, and one for each pod.
//!
//! [`PortManager`] knows which there are, gives each its slot (the index under which the data path knows it) and the
//! worker that polls it; a [`Backend`] makes them real.

mod manager;
mod spec;

#[cfg(test)]
mod tests;

pub use manager::{Backend, Entry, Leaving, ManagerError, NewPort, PortManager, Role, Uplink};
pub use spec::{FieldError, PodPort, SpecError};
