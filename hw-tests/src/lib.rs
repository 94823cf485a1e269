//! Tests on real packets and real VFs.
//!
//! - [`frame`]: what a case is, how cases are chosen, run and counted.
//! - [`net`]: namespaces, processes and traffic: what every topology is made of.
//! - [`topology`]: a node that runs Culvert, and a far node that is nothing but the Linux kernel.
//! - [`guest`]: a throw-away virtual machine with emulated SR-IOV NICs.
//! - [`kubelet`]: a kubelet stand-in for device plugins.
//! - [`cases`]: the tests themselves, about ten lines each.
//! - [`demo`]: the same topologies, shown to people.

#![forbid(unsafe_code)]

pub mod cases;
pub mod demo;
pub mod frame;
pub mod guest;
pub mod kubelet;
pub mod net;
pub mod topology;
