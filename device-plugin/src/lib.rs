//! Resource pools and the kubelet device plugin v1beta1.
//!
//! Its input is a `tokio::sync::watch` of [`Device`]s; whoever keeps the inventory sends the whole list at each change.

#![forbid(unsafe_code)]

mod device;

pub use device::{Device, Health, IommuGroup};
