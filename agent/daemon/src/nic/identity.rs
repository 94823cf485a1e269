//! MACs that a VF keeps for ever.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::config::nic::MacRange;
use culvert_api::hash::fnv1a;
use culvert_api::value::{Mac, PciAddress, VfIndex};

use super::observe::ObservedPf;

/// What a PF is known by for ever: its permanent MAC, which stays with the card when that is moved to another slot; its PCI
/// address if its driver tells none. Not the serial number: the ports of a card share it.
pub(super) fn pf_key(pf: &ObservedPf) -> String {
    match pf.permanent_mac {
        Some(mac) => mac.to_string(),
        None => PciAddress::to_string(&pf.pf.pci.address),
    }
}

/// The MAC of VF `vf` of a PF on `node`: the same after every restart, reboot and re-carve, locally administered.
pub(super) fn derived_mac(node: &str, pf: &ObservedPf, vf: VfIndex) -> Mac {
    let key = pf_key(pf);
    let hash = fnv1a(&[node.as_bytes(), b"\0", key.as_bytes(), b"\0", &vf.get().to_be_bytes()]);
    Mac::local_from(mix(hash))
}

/// MACs out of pools, by [`pf_key`] and VF.
pub(super) type Leases = BTreeMap<(String, VfIndex), Mac>;

/// Gives MACs out of pools to VFs.
pub(super) struct Lessor<'a> {
    leases: &'a Leases,
    /// Keys of the PFs that are there: what others had is used again when a pool has nothing else left.
    present: BTreeSet<String>,
    /// Addresses that are somebody's.
    taken: BTreeSet<Mac>,
    /// Where the search in a pool goes on.
    unused: BTreeMap<MacRange, Box<dyn Iterator<Item = Mac> + Send>>,
    /// What was given and is not yet recorded.
    given: Leases,
}

impl<'a> Lessor<'a> {
    /// `foreign`: addresses that no VF may be given. `pfs`: those that are there.
    pub(super) fn new<'b>(
        leases: &'a Leases,
        foreign: impl IntoIterator<Item = Mac>,
        pfs: impl IntoIterator<Item = &'b ObservedPf>,
    ) -> Self {
        let present: BTreeSet<String> = pfs.into_iter().map(pf_key).collect();
        let kept = leases.iter().filter(|((pf, _), _)| present.contains(pf)).map(|(_, mac)| *mac);
        let taken = foreign.into_iter().chain(kept).collect();
        Self { leases, present, taken, unused: BTreeMap::new(), given: Leases::new() }
    }

    /// The MAC of VF `vf` of the PF with key `pf`: the one that it has had, else the one that it bears `now` if that is of
    /// the pool and nobody's, else the first that is free. `None`: the pool is used up.
    pub(super) fn lease(&mut self, pool: MacRange, pf: &str, vf: VfIndex, now: Option<Mac>) -> Option<Mac> {
        let key = (pf.to_owned(), vf);
        if let Some(mac) = self.leases.get(&key).filter(|mac| pool.contains(**mac)) {
            return Some(*mac);
        }
        let mac =
            now.filter(|mac| pool.contains(*mac) && !self.taken.contains(mac)).or_else(|| self.free(pool))?;
        self.taken.insert(mac);
        self.given.insert(key, mac);
        Some(mac)
    }

    /// What was given that was not yet in the leases; leases of PFs that are not there may have gone for it.
    pub(super) fn given(self) -> Leases {
        self.given
    }

    fn free(&mut self, pool: MacRange) -> Option<Mac> {
        let absent = |(pf, _): &(String, VfIndex)| !self.present.contains(pf);
        let reserved: BTreeSet<Mac> =
            self.leases.iter().filter(|(key, _)| absent(key)).map(|(_, mac)| *mac).collect();
        let unused = self.unused.entry(pool).or_insert_with(|| Box::new(pool.addresses()));
        let taken = &self.taken;
        let fresh = unused.find(|mac| !taken.contains(mac) && !reserved.contains(mac));
        fresh.or_else(|| reserved.into_iter().find(|mac| pool.contains(*mac) && !taken.contains(mac)))
    }
}

/// Adds what was given to the leases. An address has one owner: whoever had it before has it no more.
pub(super) fn renew(leases: &mut Leases, pf: String, vf: VfIndex, mac: Mac) {
    leases.retain(|_, other| *other != mac);
    leases.insert((pf, vf), mac);
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

    fn pool(from: &str, to: &str) -> MacRange {
        let text = format!("pfs: [{{pf: eth0, vfs: 1, mac: {{pool: {{from: {from}, to: {to}}}}}}}]");
        let policy = culvert_api::config::nic::NicPolicy::from_yaml(&text).unwrap();
        match policy.pfs[0].vf(vf(0)).unwrap().mac {
            culvert_api::config::nic::MacPolicy::Pool(pool) => pool,
            other => panic!("{other:?}"),
        }
    }

    fn mac(last: u8) -> Mac {
        Mac::try_from([2, 0, 0, 0, 0, last]).unwrap()
    }

    #[test]
    fn a_pool_gives_what_a_vf_had_then_what_it_bears_then_what_is_free() {
        let (one, two) = (model::pf("0000:03:00.0", 7), model::pf("0000:04:00.0", 7));
        let pool = pool("02:00:00:00:00:01", "02:00:00:00:00:05");
        let leases = Leases::from([
            ((pf_key(&one), vf(0)), mac(4)),
            (("a card that is gone".to_owned(), vf(0)), mac(5)),
        ]);
        let mut lessor = Lessor::new(&leases, [mac(1)], [&one, &two]);
        let mut lease = |pf: &ObservedPf, index, now| lessor.lease(pool, &pf_key(pf), vf(index), now);
        assert_eq!(lease(&one, 0, Some(mac(2))), Some(mac(4)), "what it had");
        assert_eq!(
            lease(&two, 0, Some(mac(4))),
            Some(mac(2)),
            "not what another has, be it that it bears it"
        );
        assert_eq!(lease(&two, 1, Some(mac(3))), Some(mac(3)), "what it bears");
        assert_eq!(
            lease(&two, 2, None),
            Some(mac(5)),
            "that of a card that is gone, when nothing else is left"
        );
        assert_eq!(lease(&two, 3, None), None, "used up");
        let given: Vec<Mac> = lessor.given().into_values().collect();
        assert_eq!(given, [mac(2), mac(3), mac(5)], "only what is new");
    }

    #[test]
    fn an_address_has_one_owner() {
        let mut leases = Leases::from([(("gone".to_owned(), vf(0)), mac(5))]);
        renew(&mut leases, "new".to_owned(), vf(1), mac(5));
        assert_eq!(leases, Leases::from([(("new".to_owned(), vf(1)), mac(5))]));
    }
}
