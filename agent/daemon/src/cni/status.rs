//! STATUS: could a pod be attached now, and if not, why not?

use culvert_api::agent::NicListReply;

use super::error::CniError;
use crate::nic::NicManager;
use crate::pods::{AttachError, Overlay};

/// # Errors
/// Code 51 while pods that are attached are cut off, too; else code 50.
pub(super) async fn overlay(overlay: &Overlay) -> Result<(), CniError> {
    overlay.status().await.map_err(|e| match e {
        AttachError::FastPath(_) => CniError::cut_off(&e),
        _ => CniError::unavailable(&e),
    })
}

/// # Errors
/// Those of [`judge`], and code 50 while the machine cannot be looked at.
pub(super) async fn vfs(nics: &NicManager) -> Result<(), CniError> {
    judge(&nics.list().await.map_err(|e| CniError::unavailable(&e))?)
}

/// Whether there is a VF that can be, or is, a pod's.
fn judge(list: &NicListReply) -> Result<(), CniError> {
    let carved: Vec<_> = list.pfs.iter().filter(|pf| !pf.vfs.is_empty()).collect();
    if carved.is_empty() {
        let reason = "no PF of this node has VFs; `culvert nic plan` shows what the policy makes of them";
        return Err(CniError::unavailable_as(reason));
    }
    if carved.iter().all(|pf| pf.link != "up") {
        let links = carved.iter().map(|pf| format!("PF {} ({}): link is {}", pf.pci, pf.interface, pf.link));
        return Err(CniError::cut_off_as(&links.collect::<Vec<_>>().join("; ")));
    }
    let pooled: Vec<_> = carved.iter().flat_map(|pf| &pf.vfs).filter(|vf| !vf.pool.is_empty()).collect();
    // VFs that somebody else carved are in no pool, and nobody says how they are.
    if !pooled.is_empty() && pooled.iter().all(|vf| !vf.healthy) {
        let count = pooled.len();
        return Err(CniError::unavailable_as(&format!(
            "none of the {count} VFs of the pools is ready; `culvert nic list` shows why"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use culvert_api::agent::{Pf, Vf};

    use super::*;

    fn pf(link: &str, vfs: &[(&str, bool)]) -> Pf {
        let vf = |(pool, healthy): &(&str, bool)| Vf {
            pool: (*pool).to_owned(),
            healthy: *healthy,
            ..Vf::default()
        };
        Pf {
            pci: "0000:03:00.0".to_owned(),
            interface: "ens1f0".to_owned(),
            link: link.to_owned(),
            vfs: vfs.iter().map(vf).collect(),
            ..Pf::default()
        }
    }

    #[test]
    fn status_says_why_no_vf_can_be_had_and_whether_pods_are_cut_off() {
        for (pfs, code, part) in [
            (vec![], 50, "no PF of this node has VFs"),
            (vec![pf("up", &[])], 50, "no PF of this node has VFs"),
            (vec![pf("down", &[("a", false)])], 51, "PF 0000:03:00.0 (ens1f0): link is down"),
            (vec![pf("no carrier", &[("a", true)])], 51, "link is no carrier"),
            (vec![pf("up", &[("a", false), ("a", false)])], 50, "none of the 2 VFs"),
        ] {
            let error = judge(&NicListReply { pfs }).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn one_good_pf_or_vf_is_enough_and_vfs_of_no_pool_are_taken_as_they_are() {
        for pfs in [
            vec![pf("down", &[("a", false)]), pf("up", &[("a", true)])],
            vec![pf("up", &[("a", false), ("b", true)])],
            vec![pf("up", &[("", false)])],
        ] {
            assert!(judge(&NicListReply { pfs }).is_ok());
        }
    }
}
