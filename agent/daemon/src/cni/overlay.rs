//! CNI commands for pods on the overlay.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::CniError;
use super::invocation::Attachment;
use super::netconf::ValidAttachment;
use super::output::{CniResult, Ip, Route};
use crate::pods::{ADDRESSES, Attached, Fixed, Key, Overlay, OverlayRequest, parse_addresses};

pub(super) async fn add(overlay: &Overlay, attachment: &Attachment) -> Result<CniResult, CniError> {
    let Attachment { key, netns, args, conf } = attachment;
    let request = OverlayRequest {
        key: key.clone(),
        network: conf.name.clone(),
        netns: netns.clone(),
        pod: args.pod.clone(),
        fixed: fixed(attachment)?,
        mac: conf.runtime_config.mac.or(args.mac).or(conf.mac),
    };
    let attached = overlay.attach(&request).await?;
    Ok(result(attachment, &attached))
}

pub(super) async fn delete(overlay: &Overlay, key: &Key) -> Result<(), CniError> {
    Ok(overlay.detach(key).await?)
}

pub(super) async fn check(overlay: &Overlay, attachment: &Attachment) -> Result<(), CniError> {
    overlay.check(&attachment.key, &attachment.netns).await?;
    Ok(())
}

/// Detaches what belongs to `network` and is not among `valid`. Goes on after a failure and reports the first.
pub(super) async fn collect_garbage(
    overlay: &Overlay,
    network: &str,
    valid: &[ValidAttachment],
) -> Result<(), CniError> {
    let known = |key: &Key| {
        valid.iter().any(|v| v.container_id == key.container_id && v.ifname == key.ifname.as_str())
    };
    let mut first = Ok(());
    for record in overlay.store().all() {
        if record.network == network && !known(&record.key) {
            let detached = overlay.detach(&record.key).await;
            if first.is_ok() {
                first = detached;
            }
        }
    }
    Ok(first?)
}

/// Addresses that the runtime wants: the pod's annotation where the runtime passes it on, else CNI_ARGS, else
/// runtimeConfig.
fn fixed(attachment: &Attachment) -> Result<Vec<Fixed>, CniError> {
    let from = |source: &'static str, addresses: Vec<IpAddr>| {
        addresses.into_iter().map(|address| Fixed { address, source }).collect()
    };
    let runtime = &attachment.conf.runtime_config;
    if let Some(text) = runtime.pod_annotations.get(ADDRESSES) {
        let addresses = parse_addresses(text).ok_or_else(|| {
            CniError::config(format!(
                "pod annotation {ADDRESSES} {text:?}: must be IP addresses separated by commas"
            ))
        })?;
        return Ok(from("annotation culvert.io/addresses", addresses));
    }
    if !attachment.args.ips.is_empty() {
        return Ok(from("CNI_ARGS IP", attachment.args.ips.clone()));
    }
    let ips = runtime.ips.join(",");
    let addresses = parse_addresses(&ips)
        .ok_or_else(|| CniError::config(format!("runtimeConfig.ips {ips:?}: must be IP addresses")))?;
    Ok(from("runtimeConfig.ips", addresses))
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
        mac: lease.mac,
        mtu: Some(lease.mtu.into()),
        sandbox: attached.netns.display().to_string(),
        device: None,
        ips: lease.addresses.iter().map(ip).collect(),
        routes: lease.gateways.iter().map(route).collect(),
        dns: attachment.conf.dns.clone(),
    }
}
