//! The plugin against a kubelet stand-in that speaks the real protobuf.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails like a test")]

mod node;
mod offer;
mod pod_resources;
mod registration;
mod restart;
mod script;
