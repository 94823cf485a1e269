//! What the fast path knows: ports, this node, other nodes, services.
//!
//! - [`Snapshot`] is what workers read: immutable, published whole ([`quiescent`](crate::quiescent)).
//! - [`Builder`] is the control thread's side: it takes the agent's tables, the attached ports and the resolved
//!   neighbours, refuses what is wrong before it changes anything, and makes snapshots. It does no I/O.
//!
//! Parts that did not change are shared between a snapshot and the next, down to a page of services: a
//! [change](Builder::change) of one Service copies some kilobytes, however many there are.
//!
//! # Slots, generations, epochs
//! Remote nodes, services and backends have *slots*: small numbers that stay the same for as long as the thing exists.
//! Flow entries name slots, never addresses in memory. A backend's slot also has a *generation* that changes when the
//! backend goes, so that a flow to one that is gone is told from a flow to its slot's next occupant.
//!
//! A snapshot's [`epoch`](Snapshot::epoch) changes when a decision made under an earlier snapshot may no longer hold. A
//! flow entry decided under the current epoch needs no further check; one of another epoch is checked at its next
//! packet, once. Nothing ever scans the flows.

mod balancing;
mod builder;
mod changes;
mod check;
mod common;
mod domain;
mod error;
mod local;
mod maglev;
mod map;
mod policy;
mod port;
mod remote;
mod rotation;
mod route;
mod service;
mod shared;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;
mod tunnel;
mod wire;

pub use self::balancing::Balancing;
pub use self::builder::{Applied, Builder};
pub use self::domain::Domain;
pub use self::error::{Problem, TableError};
pub use self::local::{LocalNode, UnderlayAddress};
pub use self::maglev::{Choice, Maglev};
pub use self::policy::{FlowPolicy, LostConnections};
pub(crate) use self::port::tenant;
pub use self::port::{Door, MAX_PORTS, Port, PortIndex, PortKind, Sharing, Socket};
pub use self::remote::{MAX_REMOTES, Remote, Unreachable, Way, overhead};
pub use self::route::Target;
pub(crate) use self::service::octets;
pub use self::service::{Backend, MAX_SERVICES, Service, ServiceKey, Stickiness};
pub(crate) use self::snapshot::Remotes;
pub use self::snapshot::{BackendId, Snapshot};
pub use self::tunnel::Tunnels;
