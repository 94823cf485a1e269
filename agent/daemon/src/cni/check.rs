//! CHECK against `prevResult`: what ADD told is what is on record.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::CniError;
use super::invocation::Attachment;
use crate::nic;
use crate::pods::Overlay;

/// What is on record of an attachment, in the words of a result.
#[derive(Debug, Default, PartialEq)]
struct Recorded {
    mac: Option<String>,
    /// Without the lengths of prefixes.
    addresses: BTreeSet<String>,
}

/// # Errors
/// When `prevResult`, which the runtime kept since ADD, does not have the interface or lacks an address that it was given,
/// or tells another MAC. Plugins that were called after us may have added to it.
pub(super) fn previous(
    attachment: &Attachment,
    vfs: &[nic::Attachment],
    overlay: Option<&Overlay>,
) -> Result<(), CniError> {
    let Some(previous) = &attachment.conf.previous else { return Ok(()) };
    let key = &attachment.key;
    let vf = vfs.iter().find(|a| a.key == *key).and_then(|a| a.interface.as_ref());
    let port = || overlay.and_then(|overlay| overlay.store().get(key));
    let recorded = match vf {
        Some(interface) => Recorded {
            mac: Some(interface.mac.to_string()),
            addresses: interface.addresses.iter().map(|a| a.addr().to_string()).collect(),
        },
        None => port().map_or_else(Recorded::default, |record| Recorded {
            mac: Some(record.lease.mac.to_string()),
            addresses: record.lease.addresses.iter().map(ToString::to_string).collect(),
        }),
    };
    let problems = compare(previous, key.ifname.as_str(), &recorded);
    if problems.is_empty() { Ok(()) } else { Err(CniError::differs(&problems)) }
}

fn compare(previous: &Value, ifname: &str, recorded: &Recorded) -> Vec<String> {
    let list = |key: &str| previous[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let in_pod = |i: &&Value| i["name"] == ifname && i["sandbox"].as_str().is_some_and(|s| !s.is_empty());
    let Some(interface) = list("interfaces").iter().find(in_pod) else {
        return vec![format!("prevResult has no interface {ifname} in the pod")];
    };
    let mut problems = Vec::new();
    if let (Some(told), Some(mac)) = (interface["mac"].as_str(), &recorded.mac)
        && !told.eq_ignore_ascii_case(mac)
    {
        problems.push(format!("prevResult has mac {told} for interface {ifname}, which was given {mac}"));
    }
    let told: BTreeSet<&str> =
        list("ips").iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()).collect();
    let missing = recorded.addresses.iter().filter(|address| !told.contains(address.as_str()));
    problems.extend(
        missing.map(|address| format!("prevResult lacks address {address}, which {ifname} was given")),
    );
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded() -> Recorded {
        Recorded {
            mac: Some("02:00:00:00:00:0a".to_owned()),
            addresses: ["10.9.0.5".to_owned(), "fd09::5".to_owned()].into(),
        }
    }

    fn previous() -> Value {
        json!({
            "interfaces": [{ "name": "net1" }, { "name": "net1", "mac": "02:00:00:00:00:0A", "sandbox": "/run/netns/x" }],
            "ips": [{ "address": "10.9.0.5/24" }, { "address": "fd09::5/64" }, { "address": "192.0.2.1/32" }],
        })
    }

    #[test]
    fn a_result_with_more_than_we_gave_is_fine() {
        assert_eq!(compare(&previous(), "net1", &recorded()), Vec::<String>::new());
    }

    #[test]
    fn what_differs_is_named() {
        let mut other = previous();
        other["interfaces"][1]["mac"] = "02:00:00:00:00:0b".into();
        other["ips"][1]["address"] = "fd09::6/64".into();
        let problems = compare(&other, "net1", &recorded()).join("; ");
        assert!(
            problems.contains("mac 02:00:00:00:00:0b for interface net1, which was given 02:00:00:00:00:0a")
        );
        assert!(problems.contains("lacks address fd09::5"), "{problems}");
        for without in [json!({}), json!({ "interfaces": [{ "name": "eth0", "sandbox": "/x" }] })] {
            assert_eq!(
                compare(&without, "net1", &recorded()),
                ["prevResult has no interface net1 in the pod"]
            );
        }
    }
}
