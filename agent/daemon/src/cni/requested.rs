//! What somebody wants an interface to have: its pod, its runtime, its network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_api::config::cni::PodMayChoose;
use culvert_api::value::{Mac, VlanId};
use ipnet::IpNet;

use super::annotations::Chosen;
use super::error::CniError;
use super::invocation::Attachment;
use crate::kube::{Name, Pod, Snapshot};
use crate::pods::{Fixed, Sharing};

/// What an interface is to have, of the first who says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Requested {
    /// Of the pod's annotation, else CNI_ARGS `IP`, else `runtimeConfig.ips`.
    pub(super) addresses: Vec<Fixed>,
    /// Whether it was the pod who chose them.
    pub(super) addresses_of_pod: bool,
    /// Of the pod's annotation, else `runtimeConfig.mac`, else CNI_ARGS `MAC`, else key `mac`.
    pub(super) mac: Option<Mac>,
    /// Of the pod's annotation; the network's own is in its configuration.
    pub(super) vlan: Option<VlanId>,
    /// Of the pod's annotation: how its port shares memory with a program.
    pub(super) port: Option<Sharing>,
}

/// The attachment's Pod object, if it is known.
pub(super) fn pod<'a>(snapshot: &'a Snapshot, attachment: &Attachment) -> Option<&'a Pod> {
    let name = attachment.args.pod.as_ref()?;
    snapshot.objects.pods.get(&Name::new(name.namespace.as_str(), name.name.as_str())).map(|pod| &**pod)
}

impl Requested {
    /// Annotations count first: those of the Pod object, then those that the runtime passes on.
    ///
    /// # Errors
    /// When one that counts makes no sense, or a pod chooses what pods `may` not choose.
    pub(super) fn of(
        attachment: &Attachment,
        pod: Option<&Pod>,
        may: &PodMayChoose,
    ) -> Result<Self, CniError> {
        let Attachment { key, args, conf, .. } = attachment;
        let none = BTreeMap::new();
        let annotations = pod.and_then(|pod| pod.metadata.annotations.as_ref()).unwrap_or(&none);
        let chosen = Chosen::read(annotations, key.ifname.as_str(), may)?;
        let passed_on = Chosen::read(&conf.runtime_config.pod_annotations, key.ifname.as_str(), may)?;
        let chosen = chosen.or(passed_on);
        let addresses_of_pod = chosen.addresses.is_some();
        let addresses = match chosen.addresses {
            Some(addresses) => addresses,
            None if !args.ips.is_empty() => fixed(&args.ips, "CNI_ARGS IP"),
            None => {
                let ips = conf.runtime_config.ips.join(",");
                let parsed = parse_addresses(&ips).ok_or_else(|| {
                    CniError::config(format!("runtimeConfig.ips {ips:?}: must be IP addresses"))
                })?;
                fixed(&parsed, "runtimeConfig.ips")
            }
        };
        let mac = chosen.mac.or(conf.runtime_config.mac).or(args.mac).or(conf.mac);
        Ok(Self { addresses, addresses_of_pod, mac, vlan: chosen.vlan, port: chosen.port })
    }
}

pub(super) fn fixed(addresses: &[IpNet], source: &'static str) -> Vec<Fixed> {
    addresses.iter().map(|address| Fixed { address: *address, source }).collect()
}

/// Addresses separated by commas or white space, each with or without the length of its prefix.
pub(super) fn parse_addresses(text: &str) -> Option<Vec<IpNet>> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let address = |part: &str| part.parse().ok().or_else(|| part.parse().ok().map(|ip: IpAddr| ip.into()));
    parts.map(address).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::super::annotations::ADDRESSES;
    use super::super::tests::attachment;
    use super::*;

    fn requested(args: &str, more: &Value, annotations: &Value) -> Result<Requested, CniError> {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pod: Pod = from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "annotations": annotations }
        }))
        .unwrap();
        Requested::of(&attachment("eth0", args, &config), Some(&pod), &PodMayChoose::default())
    }

    #[test]
    fn addresses_are_the_pods_then_those_passed_on_then_cni_args_then_runtime_config() {
        let annotation = |ip: &str| json!({ ADDRESSES: ip });
        let none = json!({});
        let runtime = |ip: &str| json!({ "runtimeConfig": { "ips": [ip, "fd00::4/64"] } });
        let cri = json!({ "runtimeConfig": {
            "io.kubernetes.cri.pod-annotations": { ADDRESSES: "10.0.0.2" }, "ips": ["10.0.0.4/24"]
        } });
        for (args, runtime, annotations, expected) in [
            (
                "IP=10.0.0.3/24",
                &cri,
                &annotation("10.0.0.1/24, fd00::1"),
                &["10.0.0.1/24", "fd00::1/128"][..],
            ),
            ("IP=10.0.0.3/24", &cri, &none, &["10.0.0.2/32"]),
            ("IP=10.0.0.3/24", &runtime("10.0.0.4/24"), &none, &["10.0.0.3/24"]),
            ("", &runtime("10.0.0.4/24"), &none, &["10.0.0.4/24", "fd00::4/64"]),
            ("", &none, &none, &[]),
        ] {
            let addresses = requested(args, runtime, annotations).unwrap().addresses;
            let addresses: Vec<String> = addresses.iter().map(|f| f.address.to_string()).collect();
            assert_eq!(addresses, expected);
        }
    }

    #[test]
    fn the_mac_is_the_pods_then_the_runtimes_then_that_of_cni_args_then_the_configurations() {
        let mac = |last: u8| format!("02:00:00:00:00:0{last}");
        let (annotation, none) = (json!({ "culvert.io/mac": mac(1) }), json!({}));
        let conf = json!({ "mac": mac(4).to_uppercase() });
        let both = json!({ "mac": mac(4), "runtimeConfig": { "mac": mac(2).replace(':', "-") } });
        let args = format!("IgnoreUnknown=1;MAC=02:00:00:00:00:09;MAC={}", mac(3));
        for (args, conf, annotations, expected) in [
            (args.as_str(), &both, &annotation, 1),
            (args.as_str(), &both, &none, 2),
            (args.as_str(), &conf, &none, 3),
            ("", &conf, &none, 4),
        ] {
            let found = requested(args, conf, annotations).unwrap().mac;
            assert_eq!(found, mac(expected).parse().ok(), "{args} {conf} {annotations}");
        }
        assert_eq!(requested("", &none, &none).unwrap().mac, None);
    }

    #[test]
    fn what_is_no_address_is_refused_by_key_and_value() {
        let error = requested("", &json!({ "runtimeConfig": { "ips": ["x"] } }), &json!({})).unwrap_err();
        assert!(error.to_string().contains("runtimeConfig.ips \"x\""), "{error}");
    }
}
