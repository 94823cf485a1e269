//! Addresses that somebody wants a pod to have.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;

use super::error::CniError;
use super::invocation::Attachment;
use crate::kube::{Name, Snapshot};
use crate::pods::Fixed;

/// Annotation of a Pod: the addresses it must have, separated by commas. Followed by a dot and the name of an
/// interface, it is for that interface alone; without, it is for `eth0`.
pub(super) const ADDRESSES: &str = "culvert.io/addresses";
/// The interface that a pod has in any case.
const FIRST_INTERFACE: &str = "eth0";

/// The attachment's Pod object, if it is known.
pub(super) fn pod<'a>(snapshot: &'a Snapshot, attachment: &Attachment) -> Option<&'a Pod> {
    let name = attachment.args.pod.as_ref()?;
    snapshot.objects.pods.get(&Name::new(&name.namespace, &name.name)).map(|pod| &**pod)
}

/// The annotation of the Pod object decides, else the one that the runtime passes on, else CNI_ARGS, else runtimeConfig.
///
/// # Errors
/// When one that counts holds something that is no address.
pub(super) fn addresses(attachment: &Attachment, pod: Option<&Pod>) -> Result<Vec<Fixed>, CniError> {
    let ifname = attachment.key.ifname.as_str();
    let runtime = &attachment.conf.runtime_config;
    let own_key = format!("{ADDRESSES}.{ifname}");
    let annotations = pod.and_then(|pod| pod.metadata.annotations.as_ref());
    for annotations in annotations.into_iter().chain([&runtime.pod_annotations]) {
        let general = || annotations.get(ADDRESSES).filter(|_| ifname == FIRST_INTERFACE);
        if let Some(text) = annotations.get(&own_key).or_else(general) {
            let found = parse(text, "annotation culvert.io/addresses");
            return found.ok_or_else(|| {
                CniError::config(format!(
                    "annotation {ADDRESSES} {text:?}: must be IP addresses separated by commas"
                ))
            });
        }
    }
    if !attachment.args.ips.is_empty() {
        let fixed = |address: &IpNet| Fixed { address: *address, source: "CNI_ARGS IP" };
        return Ok(attachment.args.ips.iter().map(fixed).collect());
    }
    let ips = runtime.ips.join(",");
    parse(&ips, "runtimeConfig.ips")
        .ok_or_else(|| CniError::config(format!("runtimeConfig.ips {ips:?}: must be IP addresses")))
}

fn parse(text: &str, source: &'static str) -> Option<Vec<Fixed>> {
    let fixed = |address| Fixed { address, source };
    Some(parse_addresses(text)?.into_iter().map(fixed).collect())
}

/// Addresses separated by commas or white space, each with or without the length of its prefix.
pub(super) fn parse_addresses(text: &str) -> Option<Vec<IpNet>> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let address =
        |part: &str| part.parse().ok().or_else(|| part.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    parts.map(address).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::{Value, from_value, json};

    use super::super::tests::attachment;
    use super::*;

    fn asked(
        ifname: &str,
        args: &str,
        runtime: &Value,
        annotations: &Value,
    ) -> Result<Vec<String>, CniError> {
        let config = json!({ "cniVersion": "1.1.0", "name": "n", "runtimeConfig": runtime });
        let pod: Pod = from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "annotations": annotations }
        }))
        .unwrap();
        let addresses = addresses(&attachment(ifname, args, &config), Some(&pod))?;
        Ok(addresses.iter().map(|f| f.address.to_string()).collect())
    }

    #[test]
    fn the_pods_annotation_counts_before_the_runtimes_then_cni_args_then_runtime_config() {
        let annotation = |ip: &str| json!({ ADDRESSES: ip });
        let none = json!({});
        let runtime = |ip: &str| json!({ "ips": [ip, "fd00::4/64"] });
        let cri =
            json!({ "io.kubernetes.cri.pod-annotations": { ADDRESSES: "10.0.0.2" }, "ips": ["10.0.0.4/24"] });
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
            assert_eq!(asked("eth0", args, runtime, annotations).unwrap(), expected);
        }
    }

    #[test]
    fn an_annotation_with_an_interfaces_name_is_for_that_one_and_one_without_for_eth0() {
        let annotations = json!({ ADDRESSES: "10.0.0.1", "culvert.io/addresses.net1": "10.9.0.1/24" });
        assert_eq!(asked("eth0", "", &json!({}), &annotations).unwrap(), ["10.0.0.1/32"]);
        assert_eq!(asked("net1", "", &json!({}), &annotations).unwrap(), ["10.9.0.1/24"]);
        assert!(asked("net2", "", &json!({}), &annotations).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_address_is_refused_by_key_and_value() {
        let error = asked("eth0", "", &json!({}), &json!({ ADDRESSES: "10.0.0.300" })).unwrap_err();
        assert!(error.to_string().contains("culvert.io/addresses \"10.0.0.300\""), "{error}");
        let error = asked("eth0", "", &json!({ "ips": ["x"] }), &json!({})).unwrap_err();
        assert!(error.to_string().contains("runtimeConfig.ips \"x\""), "{error}");
    }
}
