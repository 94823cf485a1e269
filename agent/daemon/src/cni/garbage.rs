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
    let stale = |of: &str, key: &Key| {
        let listed =
            |v: &ValidAttachment| v.container_id == key.container_id && v.ifname == key.ifname.as_str();
        of == network && !valid.iter().any(listed)
    };
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
    for attachment in nics.attachments().iter().filter(|a| stale(&a.network, &a.key)) {
        let done = nics.detach_vf(&attachment.key, None).await;
        note(&attachment.key, &attachment.owner, done.map_err(Into::into));
    }
    for record in overlay.map(|o| o.store().all()).unwrap_or_default() {
        if let (Some(overlay), true) = (overlay, stale(&record.network, &record.key)) {
            note(&record.key, &record.owner(), overlay.detach(&record.key).await.map_err(Into::into));
        }
    }
    first
}
