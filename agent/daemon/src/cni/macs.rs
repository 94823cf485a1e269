//! No two pods of a node with one MAC address, be it on the overlay or on a VF.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use culvert_api::value::Mac;

use super::error::CniError;
use crate::nic::{self, NicManager};
use crate::pods::{Key, Overlay, Record};

/// MACs that are being given out at this moment, and to whom. What has been given out is in the records.
#[derive(Debug, Default)]
pub(super) struct Macs(Mutex<BTreeMap<Mac, Key>>);

/// A MAC that is being given out; nobody else gets it until this is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    macs: &'a Macs,
    mac: Mac,
}

impl Macs {
    /// Claims `mac` for `key`, unless somebody has it or is just getting it.
    ///
    /// # Errors
    /// One that names who has it.
    pub(super) fn claim(
        &self,
        mac: Mac,
        key: &Key,
        overlay: Option<&Overlay>,
        nics: &NicManager,
    ) -> Result<Claim<'_>, CniError> {
        // First the claim, then the look: of two who ask at once, one at least sees the other.
        let claim = self.reserve(mac, key)?;
        let ports = overlay.map(|overlay| overlay.store().all()).unwrap_or_default();
        match holder(mac, key, &ports, &nics.attachments()) {
            Some(holder) => Err(taken(mac, &holder)),
            None => Ok(claim),
        }
    }

    /// # Errors
    /// When `mac` is that of a VF which a pod may get at any moment. (Of VFs the NIC manager knows it itself.)
    pub(super) async fn check_free_vfs(mac: Mac, nics: &NicManager) -> Result<(), CniError> {
        let list = nics.list().await.map_err(|e| CniError::unavailable(&e))?;
        let text = mac.to_string();
        for pf in &list.pfs {
            if let Some(vf) = pf.vfs.iter().find(|vf| vf.mac == text) {
                return Err(taken(mac, &format!("vf {} of {}", vf.index, pf.pci)));
            }
        }
        Ok(())
    }

    fn reserve(&self, mac: Mac, key: &Key) -> Result<Claim<'_>, CniError> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = claims.get(&mac) {
            return Err(taken(mac, &other.to_string()));
        }
        claims.insert(mac, key.clone());
        Ok(Claim { macs: self, mac })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.macs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.mac);
    }
}

fn taken(mac: Mac, holder: &str) -> CniError {
    CniError::config(format!("mac {mac}: is that of {holder}, too; give each pod of a node its own"))
}

/// Who but `key` has `mac`, on the overlay or on a VF.
fn holder(mac: Mac, key: &Key, ports: &[Record], vfs: &[nic::Attachment]) -> Option<String> {
    let port = || ports.iter().find(|r| r.lease.mac == mac && r.key != *key);
    let vf = || vfs.iter().find(|a| a.mac == Some(mac) && a.key != *key);
    port()
        .map(|r| format!("pod {}, {}", r.owner(), r.key))
        .or_else(|| vf().map(|a| format!("pod {}, {}", a.owner, a.key)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{port, vf};
    use super::*;

    fn key(container: &str) -> Key {
        Key { container_id: container.to_owned(), ifname: "eth0".parse().unwrap() }
    }

    #[test]
    fn a_mac_is_one_pods_across_the_overlay_and_vfs_and_the_pod_is_named() {
        let mac = |last: u8| format!("02:00:00:00:00:{last:02x}").parse().unwrap();
        let (ports, vfs) = ([port("c1", "web", mac(1))], [vf("c2", "db", mac(2))]);
        let holder = |last, container| holder(mac(last), &key(container), &ports, &vfs);
        assert_eq!(holder(1, "c3").as_deref(), Some("pod default/web, interface eth0 of container c1"));
        assert_eq!(holder(2, "c3").as_deref(), Some("pod default/db, interface eth0 of container c2"));
        assert_eq!(holder(3, "c3"), None);
        assert_eq!((holder(1, "c1"), holder(2, "c2")), (None, None), "it may ask again for what it has");
    }

    #[test]
    fn a_mac_that_is_being_given_out_is_nobody_elses_until_that_is_over() {
        let (macs, mac) = (Macs::default(), "02:00:00:00:00:01".parse().unwrap());
        let claim = macs.reserve(mac, &key("c1")).unwrap();
        let error = macs.reserve(mac, &key("c2")).unwrap_err();
        assert_eq!(error.code(), 7);
        assert!(
            error.to_string().contains("02:00:00:00:00:01: is that of interface eth0 of container c1"),
            "{error}"
        );
        drop(claim);
        drop(macs.reserve(mac, &key("c2")).unwrap());
    }
}
