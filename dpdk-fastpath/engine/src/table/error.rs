//! Why tables or a port are refused.

use std::net::IpAddr;

use culvert_api::value::{MacError, RangeError};

/// An object that is refused, by name, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {problem}")]
pub struct TableError {
    object: String,
    #[source]
    problem: Problem,
}

impl TableError {
    pub(super) fn new(object: impl Into<String>, problem: impl Into<Problem>) -> Self {
        Self { object: object.into(), problem: problem.into() }
    }

    /// What is wrong, without the object.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum Problem {
    #[error("{field} of {len} bytes: must be 4 or 16")]
    AddressLength { field: &'static str, len: usize },
    #[error("{field} {address}: must be a unicast address that can be routed")]
    AddressKind { field: &'static str, address: IpAddr },
    #[error("{field} {address}: must be of the same IP version as {other}")]
    AddressFamily { field: &'static str, address: IpAddr, other: IpAddr },
    #[error("{field}: two IPv{version} addresses; at most one of each version")]
    TwoOfAFamily { field: &'static str, version: u8 },
    #[error("{field} {address}: is already {owner}'s")]
    AddressTaken { field: &'static str, address: IpAddr, owner: String },
    #[error("{field} {address}/{len}: longer than the address")]
    PrefixLength { field: &'static str, address: IpAddr, len: u32 },
    #[error("{field}: {error}")]
    Mac { field: &'static str, error: MacError },
    #[error("{field} {value}: must be {min}-{max}")]
    Range { field: &'static str, value: u64, min: u64, max: u64 },
    #[error("{field} {value}: not known here")]
    Unknown { field: &'static str, value: i32 },
    #[error("{0}")]
    Number(#[from] RangeError),
    #[error("{field} is empty")]
    Empty { field: &'static str },
    #[error("there are two of that name")]
    Twice,
    #[error("the same address, protocol and port as {0}")]
    SameService(String),
    #[error("backend {address} port {port}: is there twice")]
    BackendTwice { address: IpAddr, port: u16 },
    #[error("protocol {0}: must be 1 (TCP), 2 (UDP), 3 (SCTP) or 4 (ICMP)")]
    Protocol(i32),
    #[error("balancing {0}: must be 0 or 1 (Maglev), 2 (round robin) or 3 (least flow)")]
    Balancing(i32),
    #[error("revision {new}: must not be below {current}, which is in force")]
    OldRevision { new: u64, current: u64 },
    #[error("base {base}: revision {current} is in force; send the whole tables")]
    OtherBase { base: u64, current: u64 },
    #[error("revision {new}: must be above its base {base}")]
    NotAbove { new: u64, base: u64 },
    #[error("cannot be removed before the tables are marked as synced")]
    NotSynced,
    #[error("cannot be removed: it is not there")]
    NotThere,
    #[error("is named twice")]
    Again,
    #[error("tenant {tenant}: is there twice")]
    TenantTwice { tenant: u32 },
    #[error("vni {vni}: is already tenant {owner}'s")]
    VniTaken { vni: u32, owner: u32 },
    #[error("the local node is missing")]
    NoLocalNode,
    #[error("kind {0}: must be 0 or 2 (a pod's port) or 3 (the host's)")]
    Kind(i32),
    #[error("the host's port belongs to tenant 0, and is an interface of the kernel")]
    HostPort,
    #[error("port {0} is the host's, of which there is one: detach it first")]
    SecondHostPort(String),
    #[error("socket {path:?}: {must}")]
    Socket { path: String, must: &'static str },
    #[error("{count} {what}: at most {max}")]
    TooMany { what: &'static str, count: usize, max: usize },
}
