//! The side towards kubelet: sockets, services, registration.

mod backoff;
mod connection;
mod folder;
mod register;
mod service;
mod socket;
mod upkeep;

pub(crate) use folder::Folder;
pub(crate) use socket::remove_stale;
pub(crate) use upkeep::{Offer, Way, serve};
