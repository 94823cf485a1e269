//! A VF's interface inside a pod.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use culvert_host::FileError;
use culvert_host::netlink::{Link, LinkChange, Netlink, Route};
use culvert_host::netns::{Netns, NetnsError};
use ipnet::IpNet;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};

/// The pod's namespace, with a socket in it.
pub(super) struct Pod {
    pub(super) netns: Netns,
    pub(super) netlink: Netlink,
}

impl Pod {
    pub(super) fn open(path: &Path) -> Result<Self, MachineError> {
        let netns = Netns::open(path)?;
        let netlink = Netlink::open_in(&netns)?;
        Ok(Self { netns, netlink })
    }

    /// The namespace that `attachment` was made in; `None` if that does not exist any more.
    pub(super) fn of(attachment: &Attachment) -> Result<Option<Self>, MachineError> {
        Ok(match namespace(attachment)? {
            None => None,
            Some(netns) => {
                let netlink = Netlink::open_in(&netns)?;
                Some(Self { netns, netlink })
            }
        })
    }

    /// The interface of the VF, whatever it is called.
    pub(super) async fn interface(&self, attachment: &Attachment) -> Result<Option<Link>, MachineError> {
        let vf = attachment.vf.to_string();
        let temporary = attachment.temporary_name();
        let links = self.netlink.links().await?;
        Ok(links.into_iter().find(|link| match &link.parent {
            Some(parent) => *parent == vf,
            // Before Linux 5.14 the kernel does not say whose it is.
            None => link.name == attachment.key.ifname.as_str() || link.name == temporary.as_str(),
        }))
    }

    /// Gives interface `index` its name and everything else, brings it up and makes it known to its neighbours.
    pub(super) async fn set_up(
        &self,
        index: u32,
        attachment: &Attachment,
        interface: &PodInterface,
        routes: &[(IpNet, Option<IpAddr>)],
    ) -> Result<(), MachineError> {
        let name = attachment.key.ifname.as_str();
        let change = LinkChange {
            name: Some(name.to_owned()),
            mtu: interface.mtu.map(|mtu| mtu.get().into()),
            ..LinkChange::default()
        };
        self.netlink.change_link(index, &change).await?;
        self.announce(name)?;
        for address in &interface.addresses {
            self.netlink.add_address(index, *address).await?;
        }
        self.netlink.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        self.give_addresses(index, &[], routes).await
    }

    /// Adds addresses and routes to interface `index`, which is up.
    pub(super) async fn give_addresses(
        &self,
        index: u32,
        addresses: &[IpNet],
        routes: &[(IpNet, Option<IpAddr>)],
    ) -> Result<(), MachineError> {
        for address in addresses {
            self.netlink.add_address(index, *address).await?;
        }
        for (destination, gateway) in routes {
            let route = Route { destination: *destination, gateway: *gateway, interface: index };
            self.netlink.add_route(&route).await?;
        }
        Ok(())
    }

    /// Has the kernel tell the neighbours (gratuitous ARP, unsolicited neighbour advertisement) when the interface comes
    /// up: they may still know an address by the MAC of an earlier pod. `Documentation/networking/ip-sysctl.rst`.
    fn announce(&self, name: &str) -> Result<(), MachineError> {
        let set = |path: String| match fs::write(&path, "1") {
            // A kernel without IPv6.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|e| FileError::new("write 1 to", path, e)),
        };
        let both = self.netns.run(|| {
            set(format!("/proc/sys/net/ipv4/conf/{name}/arp_notify"))?;
            set(format!("/proc/sys/net/ipv6/conf/{name}/ndisc_notify"))
        });
        Ok(both??)
    }
}

/// The namespace that `attachment` was made in; `None` if that does not exist any more, or its path leads elsewhere.
pub(super) fn namespace(attachment: &Attachment) -> Result<Option<Netns>, NetnsError> {
    let netns = match Netns::open(&attachment.netns) {
        Ok(netns) => netns,
        Err(e) if e.is_absent() => return Ok(None),
        Err(e) => return Err(e),
    };
    let same = attachment.netns_id == netns.id()?;
    Ok(same.then_some(netns))
}
