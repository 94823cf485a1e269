//! CNI commands for pods on the overlay.

use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::CniError;
use super::invocation::Attachment;
use super::netconf::Ipam;
use super::output::{CniResult, Ip, Route};
use super::requested::Requested;
use crate::kube::Pod;
use crate::pods::{AttachError, Attached, Fixed, Overlay, OverlayRequest, Socket, Wish};

pub(super) async fn add(
    overlay: &Overlay,
    attachment: &Attachment,
    pod: Option<&Pod>,
    requested: Requested,
    kubelet: &Path,
) -> Result<CniResult, CniError> {
    let Attachment { key, netns, args, conf } = attachment;
    if let Some(vlan) = requested.vlan {
        return Err(CniError::config(format!(
            "annotation culvert.io/vlan {vlan}: a pod on the overlay has no VLAN"
        )));
    }
    let mut fixed = requested.addresses;
    match &conf.ipam {
        Ipam::Plugin(plugin) => {
            return Err(CniError::config(format!(
                "ipam.type {plugin:?}: a pod on the overlay has its address from the agent; leave ipam out, or take \
                 \"static\""
            )));
        }
        Ipam::Static(listed) if fixed.is_empty() => {
            let source = "ipam.addresses";
            fixed.extend(listed.addresses.iter().map(|l| Fixed { address: l.address, source }));
        }
        Ipam::Static(_) | Ipam::None => {}
    }
    let socket = requested.port.map(|sharing| {
        Socket::of(kubelet, args.uid.as_deref(), &key.ifname, sharing).map_err(AttachError::from)
    });
    let request = OverlayRequest {
        key: key.clone(),
        network: conf.name.clone(),
        netns: netns.clone(),
        pod: args.pod.clone(),
        wish: Wish { fixed, preferred: pod.map(pod_ips).unwrap_or_default() },
        mac: requested.mac,
        socket: socket.transpose()?,
    };
    let attached = overlay.attach(&request).await?;
    Ok(result(attachment, &attached))
}

pub(super) async fn check(overlay: &Overlay, attachment: &Attachment) -> Result<(), CniError> {
    overlay.check(&attachment.key, &attachment.netns).await?;
    Ok(())
}

/// The addresses that the pod had when its object was written.
fn pod_ips(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect()
}

fn result(attachment: &Attachment, attached: &Attached) -> CniResult {
    let lease = &attached.lease;
    let gateway =
        |address: &IpAddr| lease.gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4()).copied();
    let ip = |address: &IpAddr| Ip { address: IpNet::from(*address), gateway: gateway(address) };
    let route = |gateway: &IpAddr| {
        let destination = match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        Route { destination, gateway: Some(*gateway) }
    };
    CniResult {
        ifname: attachment.key.ifname.clone(),
        mac: Some(lease.mac),
        mtu: Some(lease.mtu.into()),
        sandbox: Some(attached.netns.display().to_string()),
        device: None,
        socket: attached.socket.as_ref().map(|socket| socket.path.display().to_string()),
        ips: lease.addresses.iter().map(ip).collect(),
        routes: lease.gateways.iter().map(route).collect(),
        dns: attachment.conf.dns.clone(),
    }
}
