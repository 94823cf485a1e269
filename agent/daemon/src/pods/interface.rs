//! The pod's end of a port: a kernel interface in the pod's network namespace.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::PathBuf;

use culvert_api::value::IfName;
use culvert_host::netlink::{Link, LinkChange, Netlink, NetlinkError, Route};
use culvert_host::netns::{Netns, NetnsError};
use ipnet::IpNet;

use super::record::Lease;

/// What can go wrong inside a pod's namespace.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused.
    #[error("in {}", netns.display())]
    Netlink {
        /// Where.
        netns: PathBuf,
        /// What.
        source: NetlinkError,
    },
    /// The fast path made the port, but its interface is nowhere.
    #[error("interface {0} of the new port is neither in the agent's network namespace nor in the pod's")]
    Lost(IfName),
    /// The pod has one of that name.
    #[error("interface {ifname} exists in {} already", netns.display())]
    Exists {
        /// The name.
        ifname: IfName,
        /// Where.
        netns: PathBuf,
    },
    /// A sysctl could not be set.
    #[error("in {}: cannot set {key} to {value}", netns.display())]
    Sysctl {
        /// Where.
        netns: PathBuf,
        /// Such as `net/ipv6/conf/eth0/accept_ra`.
        key: String,
        /// The value wanted.
        value: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A pod's interface: where, what name, and what it is to have.
#[derive(Debug)]
pub(super) struct PodInterface<'a> {
    netns: &'a Netns,
    ifname: &'a IfName,
    lease: &'a Lease,
    pod: Netlink,
}

impl<'a> PodInterface<'a> {
    pub(super) fn open(
        netns: &'a Netns,
        ifname: &'a IfName,
        lease: &'a Lease,
    ) -> Result<Self, InterfaceError> {
        let pod = Netlink::open_in(netns).map_err(|e| failed(netns, e))?;
        Ok(Self { netns, ifname, lease, pod })
    }

    /// Makes sure that the pod has no interface of this name yet.
    pub(super) async fn ensure_absent(&self) -> Result<(), InterfaceError> {
        match self.find(self.ifname.as_str()).await? {
            None => Ok(()),
            Some(_) => Err(InterfaceError::Exists {
                ifname: self.ifname.clone(),
                netns: self.netns.path().to_owned(),
            }),
        }
    }

    /// Moves the port's interface into the pod and gives it name, addresses and routes.
    pub(super) async fn set_up(&self) -> Result<(), InterfaceError> {
        let port = self.lease.port.as_str();
        let own = Netns::current()?;
        let host = Netlink::open().map_err(|e| failed(&own, e))?;
        if let Some(link) = host.link_by_name(port).await.map_err(|e| failed(&own, e))?
            && own.id()? != self.netns.id()?
        {
            // Under its own name, which nobody in the pod has; the final one follows there.
            host.move_link(link.index, port, self.netns).await.map_err(|e| failed(&own, e))?;
        }
        let Some(link) = self.find(port).await? else {
            return Err(InterfaceError::Lost(self.lease.port.clone()));
        };
        let down = LinkChange {
            name: Some(self.ifname.to_string()),
            mac: Some(self.lease.mac),
            mtu: Some(self.lease.mtu.into()),
            up: Some(false),
            ..LinkChange::default()
        };
        self.change(link.index, &down).await?;
        set_sysctls(self.netns, self.ifname, self.lease.addresses.iter().any(IpAddr::is_ipv6))?;
        self.change(link.index, &LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        for address in &self.lease.addresses {
            self.pod
                .add_address(link.index, IpNet::from(*address))
                .await
                .map_err(|e| failed(self.netns, e))?;
        }
        for route in self.routes(link.index) {
            self.pod.add_route(&route).await.map_err(|e| failed(self.netns, e))?;
        }
        Ok(())
    }

    /// What about the interface is not as it should be; empty if all is well.
    pub(super) async fn faults(&self) -> Result<Vec<String>, InterfaceError> {
        let name = &self.ifname;
        let Some(link) = self.find(name.as_str()).await? else {
            return Ok(vec![format!("interface {name} is missing in {}", self.netns.path().display())]);
        };
        let lease = self.lease;
        let mut faults = Vec::new();
        if link.mac != Some(lease.mac) {
            let mac = link.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
            faults.push(format!("mac of {name} is {mac}, should be {}", lease.mac));
        }
        if link.mtu != u32::from(lease.mtu) {
            faults.push(format!("mtu of {name} is {}, should be {}", link.mtu, lease.mtu));
        }
        if !link.up {
            faults.push(format!("{name} is down"));
        }
        let there = self.pod.addresses().await.map_err(|e| failed(self.netns, e))?;
        for address in lease.addresses.iter().filter(|a| !there.contains(&(link.index, IpNet::from(**a)))) {
            faults.push(format!("address {address} of {name} is missing"));
        }
        let there = self.pod.routes().await.map_err(|e| failed(self.netns, e))?;
        for route in self.routes(link.index).iter().filter(|r| !there.contains(r)) {
            faults.push(format!("route {route} by {name} is missing"));
        }
        Ok(faults)
    }

    /// For each router: itself on the link, and everything else by it.
    fn routes(&self, interface: u32) -> Vec<Route> {
        let both = |gateway: &IpAddr| {
            [Route::on_link(IpNet::from(*gateway), interface), Route::default_via(*gateway, interface)]
        };
        self.lease.gateways.iter().flat_map(both).collect()
    }

    async fn find(&self, name: &str) -> Result<Option<Link>, InterfaceError> {
        self.pod.link_by_name(name).await.map_err(|e| failed(self.netns, e))
    }

    async fn change(&self, index: u32, change: &LinkChange) -> Result<(), InterfaceError> {
        self.pod.change_link(index, change).await.map_err(|e| failed(self.netns, e))
    }
}

/// The IPv6 of a port's interface comes from the agent alone: no addresses by advertisement, no wait for duplicates of an
/// address that nobody else may have; and no IPv6 at all where the port has no IPv6 address.
pub(crate) fn set_sysctls(netns: &Netns, ifname: &IfName, ipv6: bool) -> Result<(), InterfaceError> {
    let disable = if ipv6 { "0" } else { "1" };
    let settings = [("disable_ipv6", disable), ("accept_ra", "0"), ("accept_dad", "0")];
    let set = || {
        for (name, value) in settings {
            let key = format!("net/ipv6/conf/{ifname}/{name}");
            match write_sysctl(&key, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(e) if e.kind() == ErrorKind::NotFound && !ipv6 => {}
                Err(source) => return Err((key, value, source)),
                Ok(()) => {}
            }
        }
        Ok(())
    };
    netns.run(set)?.map_err(|(key, value, source)| InterfaceError::Sysctl {
        netns: netns.path().to_owned(),
        key,
        value,
        source,
    })
}

/// Writes a sysctl of the calling thread's network namespace, unless it has the value: `/proc/sys` may be read-only.
fn write_sysctl(key: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

fn failed(netns: &Netns, source: NetlinkError) -> InterfaceError {
    InterfaceError::Netlink { netns: netns.path().to_owned(), source }
}
