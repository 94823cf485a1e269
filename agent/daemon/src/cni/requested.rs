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
