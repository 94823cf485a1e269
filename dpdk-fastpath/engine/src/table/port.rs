//! Ports: where packets come from and go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use culvert_api::fastpath as proto;
use culvert_api::value::Mtu;
use culvert_packet::eth::EthAddr;
use culvert_packet::flow::Tenant;

use super::error::{Problem, TableError};
use super::wire;

/// Most ports of a process.
pub const MAX_PORTS: usize = 4096;

/// Longest name of a port, as of a kernel interface (`IFNAMSIZ` with its closing zero).
const MAX_NAME: usize = 15;

/// Longest path of a socket: `sun_path` without its closing zero (unix(7)).
const MAX_SOCKET: usize = 107;

/// Number of a port, below [`MAX_PORTS`]. A port that leaves frees its number for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIndex(pub u16);

/// What is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// The underlay: other nodes.
    Uplink,
    /// One pod.
    Pod,
    /// This node itself: what runs in our own network namespace. To packets it is a pod.
    Host,
}

/// What packets need to know of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Unique name, 1-15 characters.
    pub name: String,
    /// What is behind the port.
    pub kind: PortKind,
    /// Ethernet address: that of the pod's end, or the uplink's own.
    pub mac: EthAddr,
    /// The pod's IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Largest IP packet that may be sent to the port, in bytes.
    pub mtu: u16,
    /// Routing domain of the pod.
    pub tenant: Tenant,
    /// Who holds the port, for people.
    pub owner: String,
    /// Where a program in the pod finds the port; without it the port is a kernel interface.
    pub socket: Option<Socket>,
}

/// A Unix socket over which the memory of a port is shared with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// How.
    pub sharing: Sharing,
    /// Where it is.
    pub path: PathBuf,
}

/// How memory is shared over a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// memif; the fast path listens.
    Memif,
    /// vhost-user; the fast path connects.
    VhostUser,
}

/// All that it takes to send to a pod: eight bytes, since there are many ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Door {
    /// Ethernet address of the pod's end.
    pub mac: EthAddr,
    /// Largest IP packet that may be sent to the port, in bytes; 0 where there is no port.
    pub mtu: u16,
}

impl Port {
    /// The uplink. Its addresses are those of the local node, and come with the tables.
    pub fn uplink(name: &str, mac: EthAddr, mtu: Mtu) -> Self {
        Self {
            name: name.to_owned(),
            kind: PortKind::Uplink,
            mac,
            v4: None,
            v6: None,
            mtu: mtu.get(),
            tenant: Tenant::DEFAULT,
            owner: String::new(),
            socket: None,
        }
    }

    /// The pod's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl TryFrom<&proto::AttachPortRequest> for Port {
    type Error = TableError;

    /// A pod's port, or the host's, as it is asked for.
    fn try_from(request: &proto::AttachPortRequest) -> Result<Self, TableError> {
        let build = || -> Result<Self, Problem> {
            let len = request.name.len();
            if !(1..=MAX_NAME).contains(&len) {
                return Err(Problem::Range {
                    field: "length of the name",
                    value: len as u64,
                    min: 1,
                    max: MAX_NAME as u64,
                });
            }
            let mut port = Self {
                name: request.name.clone(),
                kind: kind(request)?,
                mac: wire::mac("mac", &request.mac)?,
                v4: None,
                v6: None,
                mtu: Mtu::try_from(request.mtu)?.get(),
                tenant: tenant(request.tenant)?,
                owner: request.owner.clone(),
                socket: Socket::of(request)?,
            };
            for address in wire::addresses("address", &request.addresses)? {
                match address {
                    IpAddr::V4(v4) => port.v4 = Some(v4),
                    IpAddr::V6(v6) => port.v6 = Some(v6),
                }
            }
            if port.v4.is_none() && port.v6.is_none() {
                return Err(Problem::Empty { field: "addresses" });
            }
            if port.kind == PortKind::Host && (port.tenant != Tenant::DEFAULT || port.socket.is_some()) {
                return Err(Problem::HostPort);
            }
            Ok(port)
        };
        build().map_err(|problem| TableError::new(format!("port {}", request.name), problem))
    }
}

fn kind(request: &proto::AttachPortRequest) -> Result<PortKind, Problem> {
    match proto::PortKind::try_from(request.kind) {
        Ok(proto::PortKind::Unspecified | proto::PortKind::Pod) => Ok(PortKind::Pod),
        Ok(proto::PortKind::Host) => Ok(PortKind::Host),
        Ok(proto::PortKind::Uplink) | Err(_) => Err(Problem::Kind(request.kind)),
    }
}

impl Socket {
    fn of(request: &proto::AttachPortRequest) -> Result<Option<Self>, Problem> {
        let path = &request.socket;
        let sharing = match proto::PortDevice::try_from(request.device) {
            Ok(proto::PortDevice::Memif) => Sharing::Memif,
            Ok(proto::PortDevice::VhostUser) => Sharing::VhostUser,
            Ok(proto::PortDevice::Unspecified) if path.is_empty() => return Ok(None),
            Ok(proto::PortDevice::Unspecified) => {
                return Err(Problem::Socket {
                    path: path.clone(),
                    must: "goes only with memif and vhost-user",
                });
            }
            Err(_) => return Err(Problem::Unknown { field: "device", value: request.device }),
        };
        // DPDK has no quotes for what means something in its arguments.
        if !path.starts_with('/') || path.len() > MAX_SOCKET || path.contains([',', '=', '[', ']', '\0']) {
            let must = "must be an absolute path of at most 107 bytes without , = [ ]";
            return Err(Problem::Socket { path: path.clone(), must });
        }
        Ok(Some(Self { sharing, path: path.into() }))
    }
}

pub(crate) fn tenant(id: u32) -> Result<Tenant, Problem> {
    Tenant::new(id).ok_or(Problem::Range { field: "tenant", value: id.into(), min: 0, max: 0xff_ffff })
}
