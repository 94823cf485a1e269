//! CNI commands for virtual functions: the NIC manager does it, this says what.

use std::net::IpAddr;

use culvert_api::value::{PciAddress, Rate, VlanProtocol, VlanQos};
use culvert_host::netlink::{VfChange, VfRates, VfVlanTag};
use ipnet::IpNet;

use super::error::CniError;
use super::invocation::Attachment;
use super::netconf::NetConf;
use super::output::{CniResult, Ip, Route};
use super::requested;
use crate::kube::Snapshot;
use crate::nic::{AttachError, NicManager, VfAttach, VfAttached};

/// Addresses and routes of the pod's interface.
struct Plan {
    ips: Vec<Ip>,
    routes: Vec<Route>,
}

pub(super) async fn add(
    nics: &NicManager,
    snapshot: &Snapshot,
    attachment: &Attachment,
    device: PciAddress,
) -> Result<CniResult, CniError> {
    let Attachment { key, netns, args, conf } = attachment;
    let plan = Plan::new(snapshot, attachment)?;
    let request = VfAttach {
        key: key.clone(),
        owner: args.pod.as_ref().map_or_else(|| key.container_id.clone(), ToString::to_string),
        device,
        netns: netns.clone(),
        settings: settings(attachment)?,
        mtu: conf.mtu,
        addresses: plan.ips.iter().map(|ip| ip.address).collect(),
        routes: plan.routes.iter().map(|r| (r.destination, r.gateway)).collect(),
    };
    let attached = match nics.attach_vf(request.clone()).await {
        // A runtime that lost our answer asks again: what was given is taken back and given anew.
        Err(AttachError::Twice { .. }) => {
            nics.detach_vf(key).await?;
            nics.attach_vf(request).await?
        }
        attached => attached?,
    };
    Ok(result(attachment, device, plan, attached))
}

/// What the VF is to be at its PF while the pod has it, where that differs from its own settings.
fn settings(attachment: &Attachment) -> Result<VfChange, CniError> {
    let NetConf { vlan, vlan_qos, vlan_proto, spoofchk, trust, link_state, min_tx_rate, max_tx_rate, .. } =
        &attachment.conf;
    if vlan.is_none() && (vlan_qos.is_some() || vlan_proto.is_some()) {
        return Err(CniError::config("vlanQoS, vlanProto: are of no use without vlan"));
    }
    let vlan = vlan.map(|id| VfVlanTag {
        id,
        qos: vlan_qos.unwrap_or(VlanQos::MIN),
        protocol: vlan_proto.unwrap_or(VlanProtocol::Dot1q),
    });
    let rates = match (min_tx_rate, max_tx_rate) {
        (None, None) => None,
        // 0 is "no guarantee" and "no limit".
        (min, max) => Some(VfRates { min: min.unwrap_or(Rate::MIN), max: max.unwrap_or(Rate::MIN) }),
    };
    Ok(VfChange {
        mac: attachment.mac(),
        vlan,
        spoof_check: spoofchk.map(Into::into),
        trust: trust.map(Into::into),
        link_state: *link_state,
        rates,
    })
}

impl Plan {
    /// Addresses that the pod's annotation or the runtime asks for, else those of `ipam`; routes of `ipam`.
    fn new(snapshot: &Snapshot, attachment: &Attachment) -> Result<Self, CniError> {
        let conf = &attachment.conf;
        let asked = requested::addresses(attachment, requested::pod(snapshot, attachment))?;
        let listed = conf.static_addresses()?;
        let gateway = |address: &IpNet| {
            let same =
                listed.iter().filter_map(|l| l.gateway).find(|g| g.is_ipv4() == address.addr().is_ipv4());
            same.filter(|gateway| address.contains(gateway))
        };
        let ips: Vec<Ip> = if asked.is_empty() {
            listed.iter().map(|l| Ip { address: l.address, gateway: l.gateway }).collect()
        } else {
            asked.iter().map(|a| Ip { address: a.address, gateway: gateway(&a.address) }).collect()
        };
        let next_hop = |dst: &IpNet| {
            let families = |ip: &&Ip| ip.address.addr().is_ipv4() == dst.addr().is_ipv4();
            ips.iter().filter(families).find_map(|ip| ip.gateway)
        };
        let route = |dst: IpNet, gw: Option<IpAddr>| Route {
            destination: dst,
            gateway: gw.or_else(|| next_hop(&dst)),
        };
        let listed = conf.ipam.iter().flat_map(|ipam| &ipam.routes);
        let routes = listed.map(|r| route(r.dst, r.gw)).collect();
        Ok(Self { ips, routes })
    }
}

fn result(attachment: &Attachment, device: PciAddress, plan: Plan, attached: VfAttached) -> CniResult {
    let ipam_dns = attachment.conf.ipam.as_ref().and_then(|ipam| ipam.dns.clone());
    // A program drives the VF through vfio: there is no interface in the pod, and nothing that has addresses.
    let (sandbox, plan) = match &attached.interface {
        Some(_) => (Some(attachment.netns.display().to_string()), plan),
        None => (None, Plan { ips: Vec::new(), routes: Vec::new() }),
    };
    CniResult {
        ifname: attachment.key.ifname.clone(),
        mac: attached.mac,
        mtu: attached.interface.map(|i| i.mtu),
        sandbox,
        device: Some(device),
        ips: plan.ips,
        routes: plan.routes,
        dns: attachment.conf.dns.clone().or(ipam_dns),
    }
}
