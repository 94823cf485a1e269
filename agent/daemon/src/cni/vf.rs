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
        network: conf.name.clone(),
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
            nics.detach_vf(key, None).await?;
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

#[cfg(test)]
mod tests {
    use culvert_api::value::LinkState;
    use serde_json::{Value, json};

    use super::super::tests::attachment;
    use super::*;
    use crate::nic::AttachedInterface;

    fn with(more: Value) -> Attachment {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:03:10.0" });
        let Value::Object(more) = more else { panic!("an object is wanted") };
        config.as_object_mut().unwrap().extend(more);
        attachment("net1", "MAC=02:00:00:00:00:02", &config)
    }

    #[test]
    fn nothing_said_changes_nothing_but_the_mac_of_cni_args() {
        let expected = VfChange { mac: "02:00:00:00:00:02".parse().ok(), ..VfChange::default() };
        assert_eq!(settings(&with(json!({}))).unwrap(), expected);
    }

    #[test]
    fn keys_that_users_of_sriov_cni_know_become_settings() {
        let change = settings(&with(json!({
            "runtimeConfig": { "mac": "02:00:00:00:00:01" }, "mac": "02:00:00:00:00:03",
            "vlan": 100, "vlanQoS": 3, "vlanProto": "802.1ad", "spoofchk": "off", "trust": "on",
            "link_state": "enable", "max_tx_rate": 1000,
        })))
        .unwrap();
        let vlan = change.vlan.unwrap();
        assert_eq!((vlan.id.get(), vlan.qos.get(), vlan.protocol), (100, 3, VlanProtocol::Dot1ad));
        assert_eq!((change.spoof_check, change.trust), (Some(false), Some(true)));
        assert_eq!(change.link_state, Some(LinkState::Enable));
        assert_eq!(change.rates.map(|r| (r.min.get(), r.max.get())), Some((0, 1000)));
        assert_eq!(change.mac, "02:00:00:00:00:01".parse().ok(), "the runtime's word counts first");
    }

    #[test]
    fn a_priority_without_a_vlan_and_another_address_plugin_are_refused() {
        let error = settings(&with(json!({ "vlanQoS": 3 }))).unwrap_err();
        assert!(error.to_string().contains("without vlan"), "{error}");
        let attachment = with(json!({ "ipam": { "type": "host-local" } }));
        let error = Plan::new(&Snapshot::default(), &attachment).err().unwrap();
        assert!(error.to_string().contains("ipam type \"host-local\": must be static"), "{error}");
    }

    #[test]
    fn addresses_and_routes_come_from_ipam_unless_the_runtime_asks_for_others() {
        let ipam = json!({
            "type": "static",
            "addresses": [{ "address": "10.9.0.5/24", "gateway": "10.9.0.1" }, { "address": "fd09::5/64" }],
            "routes": [{ "dst": "10.8.0.0/16" }, { "dst": "10.7.0.0/16", "gw": "10.9.0.2" }, { "dst": "fd08::/64" }],
        });
        let plan = Plan::new(&Snapshot::default(), &with(json!({ "ipam": ipam }))).unwrap();
        let (gateway, other) = ("10.9.0.1".parse().ok(), "10.9.0.2".parse().ok());
        let ips: Vec<_> = plan.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway)).collect();
        assert_eq!(ips, [("10.9.0.5/24".to_owned(), gateway), ("fd09::5/64".to_owned(), None)]);
        assert_eq!(plan.routes.iter().map(|r| r.gateway).collect::<Vec<_>>(), [gateway, other, None]);

        let asked = with(json!({ "ipam": ipam, "runtimeConfig": { "ips": ["10.9.0.77/24"] } }));
        let plan = Plan::new(&Snapshot::default(), &asked).unwrap();
        assert_eq!(plan.ips, [Ip { address: "10.9.0.77/24".parse().unwrap(), gateway }]);
    }

    #[test]
    fn a_vf_for_vfio_has_no_interface_in_the_pod_and_no_addresses() {
        let attachment = with(json!({ "ipam": { "addresses": [{ "address": "10.9.0.5/24" }] } }));
        let device: PciAddress = "0000:03:10.0".parse().unwrap();
        let mac = "02:00:00:00:00:02".parse().ok();
        let told = |interface| {
            let plan = Plan::new(&Snapshot::default(), &attachment).unwrap();
            result(&attachment, device, plan, VfAttached { mac, interface })
        };
        let vfio = told(None);
        assert!(vfio.sandbox.is_none() && vfio.ips.is_empty() && vfio.device == Some(device));
        let kernel = told(Some(AttachedInterface { name: "net1".parse().unwrap(), mtu: 1500 }));
        assert_eq!(
            (kernel.sandbox.as_deref(), kernel.mtu, kernel.ips.len()),
            (Some("/run/netns/x"), Some(1500), 1)
        );
    }
}
