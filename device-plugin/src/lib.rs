//! Resource pools and the kubelet device plugin v1beta1.
//!
//! [`Plugin::start`] takes a `tokio::sync::watch` of [`Device`]s; whoever keeps the inventory sends the whole list at
//! each change. Every pool that a device names becomes a resource of the node with a socket of its own:
//!
//! ```text
//! inventory -> Plugin --pool--> server  <- kubelet: ListAndWatch, GetPreferredAllocation, Allocate
//!                     \-------> upkeep  -> kubelet: Register; looks after the socket, notices kubelet's restarts
//! ```
//!
//! A device that vanishes stays in the list as unhealthy, and the list's stream is ended by shutdown alone: kubelet
//! takes both a shrinking list and the end of a stream for lost capacity.

#![forbid(unsafe_code)]

mod allocate;
mod device;
mod grant;
mod kubelet;
mod memory;
mod plugin;
mod pool;
mod preferred;
mod publish;
pub mod resource_list;
#[cfg(test)]
mod testing;

pub use device::{Device, Health, IommuGroup, Rdma};
pub use memory::Memory;
pub use plugin::{Plugin, PoolStatus, Statuses};
pub use publish::device_information;
