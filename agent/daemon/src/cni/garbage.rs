//! GC: what the runtime does not know any more is taken back.

use tracing::{info, warn};

use super::error::CniError;
use super::netconf::ValidAttachment;
use crate::nic::NicManager;
use crate::pods::{Key, Overlay};

/// Detaches what belongs to `network` and is not among `valid`. Goes on after a failure and reports the first.
pub(super) async fn collect(
    overlay: Option<&Overlay>,
    nics: &NicManager,
    network: &str,
    valid: &[ValidAttachment],
) -> Result<(), CniError> {
    let mut first = Ok(());
    let mut note = |key: &Key, owner: &str, done: Result<(), CniError>| match done {
        Ok(()) => info!(network, owner, "{key}: the runtime does not know it any more, taken back"),
        Err(e) => {
            warn!(network, owner, "{key}: {e}");
            if first.is_ok() {
                first = Err(e);
            }
        }
    };
    for attachment in nics.attachments().iter().filter(|a| is_stale(&a.network, &a.key, network, valid)) {
        let done = nics.detach_vf(&attachment.key, None).await;
        note(&attachment.key, &attachment.owner, done.map_err(Into::into));
    }
    for record in overlay.map(|o| o.store().all()).unwrap_or_default() {
        if let (Some(overlay), true) = (overlay, is_stale(&record.network, &record.key, network, valid)) {
            note(&record.key, &record.owner(), overlay.detach(&record.key).await.map_err(Into::into));
        }
    }
    first
}

/// Whether an attachment of network `of` is garbage by a list for `network`: other networks have lists of their own.
fn is_stale(of: &str, key: &Key, network: &str, valid: &[ValidAttachment]) -> bool {
    let listed = |v: &ValidAttachment| v.container_id == key.container_id && v.ifname == key.ifname.as_str();
    of == network && !valid.iter().any(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_what_the_list_of_its_own_network_lacks() {
        let key = |container: &str, ifname: &str| Key {
            container_id: container.to_owned(),
            ifname: ifname.parse().unwrap(),
        };
        let valid = [ValidAttachment { container_id: "c1".to_owned(), ifname: "net1".to_owned() }];
        for (of, container, ifname, stale) in [
            ("n", "c1", "net1", false),
            ("n", "c1", "net2", true),
            ("n", "c2", "net1", true),
            ("other", "c2", "net1", false),
            // Recorded by an agent that did not write the network down.
            ("", "c2", "net1", false),
        ] {
            assert_eq!(
                is_stale(of, &key(container, ifname), "n", &valid),
                stale,
                "{of} {container} {ifname}"
            );
        }
    }
}
