//! CNI commands for virtual functions: the NIC manager does it, this says what.

use culvert_api::value::PciAddress;
use culvert_host::netlink::VfChange;
use tracing::warn;

use super::addressing::Addressing;
use super::error::CniError;
use super::invocation::Attachment;
use super::netconf::Ipam;
use super::output::CniResult;
use super::requested::Requested;
use crate::errors::chain;
use crate::nic::{AttachError, NicManager, VfAttach, VfAttached};

/// What an ADD came to.
#[derive(Debug)]
pub(super) enum Added {
    /// All is done.
    Done(Box<CniResult>),
    /// The pod has its VF, and an IPAM plugin says what addresses it gets; `afresh`: it was asked once before.
    AwaitsIpam { plugin: String, afresh: bool },
}

/// Gives a pod its VF. Addresses of another plugin come later, by [`address`]: some ask the network for them, through the
/// interface.
pub(super) async fn add(
    nics: &NicManager,
    attachment: &Attachment,
    requested: &Requested,
    device: PciAddress,
) -> Result<Added, CniError> {
    let Attachment { key, netns, args, conf } = attachment;
    if let (Ipam::Plugin(plugin), true) = (&conf.ipam, requested.addresses_of_pod) {
        return Err(CniError::config(format!(
            "annotation culvert.io/addresses: ipam plugin {plugin} gives this network's addresses; an annotation \
             needs ipam.type static, or none"
        )));
    }
    let addressing = Addressing::of_configuration(conf, requested);
    let addressing = if let Ipam::Plugin(_) = conf.ipam { Addressing::default() } else { addressing };
    let request = VfAttach {
        key: key.clone(),
        network: conf.name.clone(),
        owner: args.pod.as_ref().map_or_else(|| key.container_id.clone(), ToString::to_string),
        device,
        netns: netns.clone(),
        settings: settings(attachment, requested)?,
        mtu: conf.mtu,
        addresses: addressing.addresses(),
        routes: addressing.routes(),
    };
    let (attached, afresh) = match nics.attach_vf(request.clone()).await {
        // A runtime that lost our answer asks again: what was given is taken back and given anew.
        Err(AttachError::Twice { .. }) => {
            nics.detach_vf(key, None).await?;
            (nics.attach_vf(request).await?, true)
        }
        attached => (attached?, false),
    };
    Ok(match &conf.ipam {
        Ipam::Plugin(plugin) => Added::AwaitsIpam { plugin: plugin.clone(), afresh },
        _ => Added::Done(Box::new(result(attachment, device, addressing, &attached))),
    })
}

/// Gives a VF that a pod has what an IPAM plugin printed. If that does not work, the VF is taken back.
pub(super) async fn address(
    nics: &NicManager,
    attachment: &Attachment,
    device: PciAddress,
    plugin: &str,
    printed: &[u8],
) -> Result<CniResult, CniError> {
    let addressing = match Addressing::of_plugin(plugin, printed) {
        Ok(addressing) => addressing,
        Err(e) => {
            if let Err(left) = nics.detach_vf(&attachment.key, None).await {
                warn!("{}: DEL has to do it: {}", attachment.key, chain(&left));
            }
            return Err(e);
        }
    };
    let attached = nics.address_vf(&attachment.key, addressing.addresses(), addressing.routes()).await?;
    Ok(result(attachment, device, addressing, &attached))
}

/// What the VF is to be at its PF while the pod has it, where that differs from its own settings.
fn settings(attachment: &Attachment, requested: &Requested) -> Result<VfChange, CniError> {
    let conf = &attachment.conf;
    Ok(VfChange {
        mac: requested.mac,
        vlan: conf.vlan_tag(requested.vlan)?,
        spoof_check: conf.spoofchk,
        trust: conf.trust,
        link_state: conf.link_state,
        rates: conf.rates,
    })
}

/// A VF that a program drives through vfio has no interface. Its addresses are told all the same, and the sandbox, for
/// want of which Multus would pass it over in the pod's network status.
fn result(
    attachment: &Attachment,
    device: PciAddress,
    addressing: Addressing,
    attached: &VfAttached,
) -> CniResult {
    let Addressing { ips, routes, dns } = addressing;
    CniResult {
        ifname: attachment.key.ifname.clone(),
        mac: attached.mac,
        mtu: attached.interface.as_ref().map(|i| i.mtu),
        sandbox: Some(attachment.netns.display().to_string()),
        device: Some(device),
        socket: None,
        ips,
        routes,
        dns: attachment.conf.dns.clone().or(dns),
    }
}

#[cfg(test)]
mod tests {
    use culvert_api::value::{LinkState, VlanProtocol};
    use serde_json::{Value, json};

    use super::super::tests::attachment;
    use super::*;
    use crate::nic::AttachedInterface;

    fn with(more: Value) -> Attachment {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n", "deviceID": "0000:03:10.0" });
        let Value::Object(more) = more else { panic!("an object is wanted") };
        config.as_object_mut().unwrap().extend(more);
        attachment("net1", "", &config)
    }

    #[test]
    fn nothing_said_changes_nothing() {
        assert_eq!(settings(&with(json!({})), &Requested::default()).unwrap(), VfChange::default());
    }

    #[test]
    fn keys_that_users_of_sriov_cni_know_become_settings() {
        let conf = with(json!({
            "vlan": 100, "vlanQoS": 3, "vlanProto": "802.1AD", "spoofchk": "off", "trust": "on",
            "link_state": "enable", "max_tx_rate": 1000,
        }));
        let mac = "02:00:00:00:00:01".parse().ok();
        let change = settings(&conf, &Requested { mac, ..Requested::default() }).unwrap();
        let vlan = change.vlan.unwrap();
        assert_eq!((vlan.id.get(), vlan.qos.get(), vlan.protocol), (100, 3, VlanProtocol::Dot1ad));
        assert_eq!((change.spoof_check, change.trust), (Some(false), Some(true)));
        assert_eq!(change.link_state, Some(LinkState::Enable));
        assert_eq!(change.rates.map(|r| (r.min.get(), r.max.get())), Some((0, 1000)));
        assert_eq!(change.mac, mac);
    }

    #[test]
    fn a_pods_own_vlan_takes_the_place_of_the_networks_and_keeps_its_priority() {
        let requested = Requested { vlan: 150.try_into().ok(), ..Requested::default() };
        let vlan = settings(&with(json!({ "vlan": 100, "vlanQoS": 3 })), &requested).unwrap().vlan.unwrap();
        assert_eq!((vlan.id.get(), vlan.qos.get()), (150, 3));
        let vlan = settings(&with(json!({})), &requested).unwrap().vlan.unwrap();
        assert_eq!((vlan.id.get(), vlan.qos.get()), (150, 0));
    }

    #[test]
    fn a_vf_for_vfio_has_its_addresses_and_its_sandbox_in_the_result_and_no_mtu() {
        let attachment = with(json!({ "ipam": { "addresses": [{ "address": "10.9.0.5/24" }] } }));
        let device: PciAddress = "0000:03:10.0".parse().unwrap();
        let mac = "02:00:00:00:00:02".parse().ok();
        let told = |interface| {
            let addressing = Addressing::of_configuration(&attachment.conf, &Requested::default());
            result(&attachment, device, addressing, &VfAttached { mac, interface })
        };
        let vfio = told(None);
        assert_eq!((vfio.sandbox.as_deref(), vfio.mtu, vfio.ips.len()), (Some("/run/netns/x"), None, 1));
        let kernel = told(Some(AttachedInterface { name: "net1".parse().unwrap(), mtu: 1500 }));
        assert_eq!(CniResult { mtu: None, ..kernel }, vfio);
    }
}
