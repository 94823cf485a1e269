use std::sync::Mutex;

use culvert_host::netlink::NetlinkCause;

use super::super::model::{attachment, create_vfs, pf};
use super::*;

/// A kernel that counts how often it is asked, and may be out of order.
#[derive(Default)]
struct Kernel {
    asked: Mutex<u64>,
    broken: Mutex<bool>,
}

impl Counting for Kernel {
    async fn vf_counters(&self, pf: u32) -> Result<PfCounters, NetlinkError> {
        if *self.broken.lock().unwrap() {
            let cause = NetlinkCause::Protocol("no answer".to_owned());
            return Err(NetlinkError { object: format!("interface {pf}"), action: "read".to_owned(), cause });
        }
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        Ok([(VfIndex::MIN, VfCounters { rx_packets: *asked, ..VfCounters::default() })].into())
    }
}

fn card() -> ObservedPf {
    let mut card = pf("0000:03:00.0", 7);
    create_vfs(&mut card, 2);
    card
}

fn packets(counters: &BTreeMap<PciAddress, PfCounters>) -> Option<u64> {
    Some(counters.values().next()?.get(&VfIndex::MIN)?.rx_packets)
}

#[tokio::test]
async fn the_kernel_is_asked_once_a_second_and_what_it_said_stays_while_it_does_not_answer() {
    let (cache, kernel, card, bare) =
        (CounterCache::default(), Kernel::default(), card(), pf("0000:04:00.0", 7));
    let pfs = [&card, &bare];
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(
            packets(&cache.read(&kernel, &pfs, start).await),
            Some(1),
            "one dump, and none for a PF without VFs"
        );
    }
    let later = start + FRESH;
    assert_eq!(packets(&cache.read(&kernel, &pfs, later).await), Some(2));
    *kernel.broken.lock().unwrap() = true;
    let later = start + FRESH * 60;
    assert_eq!(packets(&cache.read(&kernel, &pfs, later).await), Some(2), "neither gone nor 0");
    *kernel.broken.lock().unwrap() = false;
    assert_eq!(packets(&cache.read(&kernel, &pfs, later).await), Some(3));
}

#[tokio::test]
async fn counters_of_vfs_that_were_removed_are_forgotten() {
    let (cache, kernel, mut card) = (CounterCache::default(), Kernel::default(), card());
    assert_eq!(packets(&cache.read(&kernel, &[&card], Instant::now()).await), Some(1));
    let vfs = std::mem::take(&mut card.pf.vfs);
    assert!(cache.read(&kernel, &[&card], Instant::now()).await.is_empty());
    card.pf.vfs = vfs;
    assert_eq!(packets(&cache.read(&kernel, &[&card], Instant::now()).await), Some(2), "new VFs start anew");
}

#[test]
fn a_vf_has_its_pool_its_health_its_owner_and_its_counters() {
    let card = card();
    let (first, second) = (card.pf.vfs[0].pci.address, card.pf.vfs[1].pci.address);
    let mut state = State::default();
    for (container, vf, phase) in [("a", first, Phase::Attached), ("b", second, Phase::Detaching)] {
        let attachment = attachment(container, &vf.to_string(), phase);
        state.attachments.insert(attachment.key.clone(), attachment);
    }
    let sick = Health::Unhealthy("down".to_owned());
    let devices = [Device { pool: Some("p".parse().unwrap()), health: sick, ..Device::new(first) }];
    let counters = [(card.pf.pci.address, [(VfIndex::MIN, VfCounters::default())].into())].into();
    let observed = Observed { pfs: vec![card], ..Observed::default() };
    let tally = tally(&observed, &state, &devices, &counters);
    assert_eq!((tally.attachments, tally.unfinished, tally.step_under_way), (2, 1, false));
    let seen = |vf: &VfTally| (vf.pool.is_some(), vf.healthy, vf.owner.clone(), vf.counters.is_some());
    assert_eq!(seen(&tally.vfs[0]), (true, Some(false), Some("default/a".to_owned()), true));
    assert_eq!(seen(&tally.vfs[1]), (false, None, Some("default/b".to_owned()), false));
    assert_eq!((tally.pfs[0].vfs, tally.pfs[0].total_vfs), (2, 7));
}
