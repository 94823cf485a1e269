//! A VF's interface inside a pod.

use culvert_host::netlink::{Link, LinkChange, Route as HostRoute};
use ipnet::IpNet;

use super::super::apply::MachineError;
use super::super::attachment::{Attachment, PodInterface};
use super::Route;
use super::ops::Net;
use crate::pods::Phase;

/// The interface of the VF in `net`, whatever it is called.
pub(super) async fn interface<N: Net>(
    net: &N,
    attachment: &Attachment,
) -> Result<Option<Link>, MachineError> {
    let (vf, temporary) = (attachment.vf.to_string(), attachment.temporary_name());
    let mut links = net.links().await?;
    if let Some(found) = links.iter().position(|link| link.parent.as_ref() == Some(&vf)) {
        return Ok(Some(links.swap_remove(found)));
    }
    // Before Linux 5.14 the kernel does not say whose an interface is. While the VF is on its way, the pod may have
    // another of the name that it is to get.
    links.retain(|link| link.parent.is_none());
    let named = |name: &str| links.iter().position(|link| link.name == name);
    let ours = |at: &usize| attachment.phase == Phase::Attached || links[*at].mac == attachment.mac;
    let found = named(temporary.as_str()).or_else(|| named(attachment.key.ifname.as_str()).filter(ours));
    Ok(found.map(|at| links.swap_remove(at)))
}

/// Gives interface `index` its name and everything else, brings it up and makes it known to its neighbours; what it is
/// then.
pub(super) async fn set_up<N: Net>(
    net: &N,
    index: u32,
    attachment: &Attachment,
    wanted: &PodInterface,
) -> Result<Link, MachineError> {
    let name = attachment.key.ifname.as_str();
    let change = LinkChange {
        name: Some(name.to_owned()),
        mtu: wanted.mtu.map(|mtu| mtu.get().into()),
        ..LinkChange::default()
    };
    net.change_link(index, &change).await?;
    net.set_sysctls(&sysctls(name)).await?;
    add_addresses(net, index, name, &wanted.addresses).await?;
    net.change_link(index, &LinkChange { up: Some(true), ..LinkChange::default() }).await?;
    add_routes(net, index, &wanted.routes).await?;
    let link = net.link(index).await?.ok_or(MachineError::NoInterface(attachment.vf))?;
    if link.mac != Some(wanted.mac) {
        let reports = link.mac.map_or_else(|| "none".to_owned(), |m| m.to_string());
        return Err(MachineError::MacNotTaken { vf: attachment.vf, mac: wanted.mac, reports });
    }
    net.announce(index, wanted.mac, &wanted.addresses);
    Ok(link)
}

/// Adds addresses and routes to interface `index`, which is up, and makes them known.
pub(super) async fn give_addresses<N: Net>(
    net: &N,
    index: u32,
    name: &str,
    wanted: &PodInterface,
) -> Result<(), MachineError> {
    add_addresses(net, index, name, &wanted.addresses).await?;
    add_routes(net, index, &wanted.routes).await?;
    net.announce(index, wanted.mac, &wanted.addresses);
    Ok(())
}

async fn add_addresses<N: Net>(
    net: &N,
    index: u32,
    name: &str,
    addresses: &[IpNet],
) -> Result<(), MachineError> {
    if addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
        // Some runtimes switch IPv6 off in the whole namespace: whoever gives an address wants it.
        net.set_sysctls(&[(format!("net/ipv6/conf/{name}/disable_ipv6"), "0")]).await?;
    }
    for address in addresses {
        net.add_address(index, *address).await?;
    }
    Ok(())
}

async fn add_routes<N: Net>(net: &N, index: u32, routes: &[Route]) -> Result<(), MachineError> {
    for (destination, gateway) in routes {
        let route = HostRoute { destination: *destination, gateway: *gateway, interface: index };
        net.add_route(&route).await?;
    }
    Ok(())
}

/// Has the kernel tell the neighbours when the interface comes up or changes its MAC, and use an IPv6 address before it
/// is sure that nobody else has it (RFC 4429). `Documentation/networking/ip-sysctl.rst`.
fn sysctls(name: &str) -> [(String, &'static str); 3] {
    [
        (format!("net/ipv4/conf/{name}/arp_notify"), "1"),
        (format!("net/ipv6/conf/{name}/ndisc_notify"), "1"),
        (format!("net/ipv6/conf/{name}/optimistic_dad"), "1"),
    ]
}
