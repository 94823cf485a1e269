//! The kernel's end of the host port.

use std::net::IpAddr;

use culvert_api::config::agent::HostPort as Config;
use culvert_api::value::IfName;
use culvert_host::netlink::{LinkChange, Netlink, NetlinkError, Route};
use culvert_host::netns::Netns;
use ipnet::IpNet;

use crate::pods::{InterfaceError, Lease, set_sysctls};

/// Who made a route, as the kernel notes it (`rtm_protocol`, rtnetlink(7)): a number that no routing daemon of
/// `/etc/iproute2/rt_protos` has.
const PROTOCOL: u8 = 67;

/// Why the interface is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostInterfaceError {
    /// The fast path has the port, and the node no such interface.
    #[error(
        "interface {0} of the host port is not in the agent's network namespace: agent and fast path must both run in the \
         node's own"
    )]
    Lost(IfName),
    /// It is somebody else's.
    #[error(
        "interface {0}: is no tap, so it is not that of the host port; rename it, or set overlay.hostPort.name"
    )]
    NoTap(IfName),
    /// A sysctl.
    #[error(transparent)]
    Sysctl(#[from] InterfaceError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The interface, and what it is to have.
#[derive(Debug)]
pub struct HostInterface<'a> {
    netns: &'a Netns,
    netlink: Netlink,
    lease: &'a Lease,
    /// Ranges of this node's pods.
    own: &'a [IpNet],
    config: &'a Config,
}

impl<'a> HostInterface<'a> {
    /// The interface of the port `lease`, in `netns`. `own` are the ranges of this node's pods.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn open(
        netns: &'a Netns,
        lease: &'a Lease,
        own: &'a [IpNet],
        config: &'a Config,
    ) -> Result<Self, HostInterfaceError> {
        Ok(Self { netns, netlink: Netlink::open_in(netns)?, lease, own, config })
    }

    /// Gives it MAC address, MTU, addresses and routes where it lacks them, and takes away what it has of ours and should
    /// not have any more. Returns whether anything was to be done.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses. What was done stays done.
    pub async fn set_up(&self) -> Result<bool, HostInterfaceError> {
        let lease = self.lease;
        let link = self.netlink.link_by_name(lease.port.as_str()).await?;
        let link = link.ok_or_else(|| HostInterfaceError::Lost(lease.port.clone()))?;
        if link.kind.as_deref() != Some("tun") {
            return Err(HostInterfaceError::NoTap(lease.port.clone()));
        }
        set_sysctls(self.netns, &lease.port, lease.addresses.iter().any(IpAddr::is_ipv6))?;
        let change = LinkChange {
            mac: Some(lease.mac).filter(|_| link.mac != Some(lease.mac)),
            mtu: Some(lease.mtu.into()).filter(|mtu| *mtu != link.mtu),
            up: (!link.up).then_some(true),
            ..LinkChange::default()
        };
        self.netlink.change_link(link.index, &change).await?;
        let addresses = self.set_addresses(link.index).await?;
        // After the addresses: with one of them a route to it may have gone.
        let routes = self.set_routes(link.index).await?;
        Ok(change != LinkChange::default() || addresses || routes)
    }

    /// An address of this node's pods that is not the port's would only be in a pod's way.
    async fn set_addresses(&self, index: u32) -> Result<bool, HostInterfaceError> {
        let wanted: Vec<_> = self.lease.addresses.iter().map(|address| IpNet::from(*address)).collect();
        let there: Vec<_> = self.netlink.addresses().await?;
        let there: Vec<_> = there.into_iter().filter(|(of, _)| *of == index).map(|(_, net)| net).collect();
        let ours = |net: &&IpNet| self.own.iter().any(|cidr| cidr.contains(&net.addr()));
        let gone: Vec<_> = there.iter().filter(ours).filter(|net| !wanted.contains(net)).collect();
        let new: Vec<_> = wanted.iter().filter(|net| !there.contains(net)).collect();
        // In this order: with its last address an interface loses all its routes, others' too.
        for net in &new {
            self.netlink.add_address(index, **net).await?;
        }
        for net in &gone {
            self.netlink.remove_address(index, **net).await?;
        }
        Ok(!gone.is_empty() || !new.is_empty())
    }

    async fn set_routes(&self, index: u32) -> Result<bool, HostInterfaceError> {
        let wanted = self.routes(index);
        let there = self.netlink.routes_of(PROTOCOL).await?;
        let there: Vec<_> = there.into_iter().filter(|route| route.interface == index).collect();
        let gone: Vec<_> = there.iter().filter(|route| !wanted.contains(route)).collect();
        let new: Vec<_> = wanted.iter().filter(|route| !there.contains(route)).collect();
        for route in &gone {
            self.netlink.remove_route_of(PROTOCOL, route).await?;
        }
        // The router first, by which the others lead.
        for route in &new {
            self.netlink.add_route_of(PROTOCOL, route).await?;
        }
        Ok(!gone.is_empty() || !new.is_empty())
    }

    /// For each router: itself on the link, and by it every range of its family.
    fn routes(&self, interface: u32) -> Vec<Route> {
        let ranges = || self.config.pod_cidrs.iter().chain(&self.config.service_cidrs);
        let of = |gateway: &IpAddr| {
            let (gateway, v4) = (*gateway, gateway.is_ipv4());
            let via = move |range: &IpNet| Route { destination: *range, gateway: Some(gateway), interface };
            let through = ranges().filter(move |range| range.addr().is_ipv4() == v4).map(via);
            std::iter::once(Route::on_link(IpNet::from(gateway), interface)).chain(through)
        };
        self.lease.gateways.iter().flat_map(of).collect()
    }
}
