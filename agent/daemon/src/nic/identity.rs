//! MACs that a VF keeps for ever.

use culvert_api::hash::fnv1a;
use culvert_api::value::{Mac, PciAddress, VfIndex};

use super::observe::ObservedPf;

/// The MAC of VF `vf` of a PF on `node`: the same after every restart, reboot and re-carve, locally administered.
pub(super) fn derived_mac(node: &str, pf: &ObservedPf, vf: VfIndex) -> Mac {
    let key = match pf.permanent_mac {
        // Stays with the card when it is moved to another slot.
        Some(mac) => mac.to_string(),
        None => PciAddress::to_string(&pf.pf.pci.address),
    };
    let hash = fnv1a(&[node.as_bytes(), b"\0", key.as_bytes(), b"\0", &vf.get().to_be_bytes()]);
    Mac::local_from(mix(hash))
}

/// Spreads every bit of `hash` over all others (the finaliser of MurmurHash3): of FNV-1a's bits, the last byte reaches
/// only some. One to one, so that it adds no collisions.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::model;
    use super::*;

    fn vf(index: u32) -> VfIndex {
        VfIndex::try_from(index).unwrap()
    }

    #[test]
    fn a_derived_mac_never_changes() {
        let mut pf = model::pf("0000:03:00.0", 7);
        pf.permanent_mac = Some("52:54:00:00:00:01".parse().unwrap());
        // VFs of running nodes bear these: a change here gives all of them new ones.
        assert_eq!(derived_mac("node-a", &pf, vf(0)).to_string(), "6a:d3:00:f3:45:41");
        pf.permanent_mac = None;
        assert_eq!(derived_mac("node-a", &pf, vf(0)).to_string(), "fe:b2:18:51:a0:4c");
    }

    #[test]
    fn nodes_cards_and_vfs_all_get_macs_of_their_own_and_the_slot_does_not_matter() {
        let mut pf = model::pf("0000:03:00.0", 7);
        pf.permanent_mac = Some("52:54:00:00:00:01".parse().unwrap());
        let mut moved = model::pf("0000:81:00.0", 7);
        moved.permanent_mac = pf.permanent_mac;
        let other = model::pf("0000:03:00.1", 7);
        let mut seen = BTreeSet::new();
        for node in ["node-a", "node-b"] {
            for pf in [&pf, &other] {
                for index in 0..256 {
                    let mac = derived_mac(node, pf, vf(index));
                    assert!(mac.is_local());
                    assert!(seen.insert(mac), "{mac} twice");
                }
            }
            assert_eq!(derived_mac(node, &moved, vf(3)), derived_mac(node, &pf, vf(3)));
        }
    }
}
