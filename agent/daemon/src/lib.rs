//! culvert-agent: the node agent.

#![forbid(unsafe_code)]

pub mod app;
pub mod check;
pub mod cni;
pub mod errors;
pub mod fastpath;
pub mod health;
pub mod host_port;
pub mod kube;
pub mod logging;
pub mod metrics;
pub mod nic;
pub mod plugin;
pub mod pod_resources;
pub mod pods;
pub mod privileges;
pub mod reload;
pub mod shared_map;
pub mod socket;
pub mod tables;
#[cfg(test)]
mod testing;
