use proptest::prelude::*;

use super::*;
use crate::Health;
use crate::testing::{device, inventory, pci};

/// A VF of PF `0000:BUS:00.0`.
fn vf(bus: u8, index: u8, numa: u16) -> Device {
    let address = format!("0000:{bus:02x}:{:02x}.{:x}", 2 + index / 8, index % 8);
    Device { pf: Some(pci(&format!("0000:{bus:02x}:00.0"))), numa: Some(numa), ..device(&address, "a") }
}

fn pool_of(devices: &[Device]) -> Pool {
    let mut pool = Pool::new("culvert.io/a".parse().unwrap());
    pool.update(&inventory(devices));
    pool
}

fn ask(
    pool: &Pool,
    available: &[&Device],
    fixed: &[&Device],
    size: i32,
) -> Result<Vec<String>, RequestError> {
    ask_for(Allocation::Packed, pool, available, fixed, size)
}

fn ask_for(
    allocation: Allocation,
    pool: &Pool,
    available: &[&Device],
    fixed: &[&Device],
    size: i32,
) -> Result<Vec<String>, RequestError> {
    let ids = |devices: &[&Device]| devices.iter().map(|d| d.pci.to_string()).collect();
    preferred(
        pool,
        &ContainerPreferredAllocationRequest {
            available_device_ids: ids(available),
            must_include_device_ids: ids(fixed),
            allocation_size: size,
        },
        allocation,
    )
}

#[test]
fn a_request_stays_on_one_pf_and_takes_the_one_with_least_to_spare() {
    let devices: Vec<Device> = (0..4).map(|i| vf(3, i, 0)).chain((0..2).map(|i| vf(4, i, 0))).collect();
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    assert_eq!(ask(&pool, &all, &[], 2).unwrap(), ["0000:04:02.0", "0000:04:02.1"]);
    assert_eq!(ask(&pool, &all, &[], 3).unwrap(), ["0000:03:02.0", "0000:03:02.1", "0000:03:02.2"]);
}

#[test]
fn one_numa_node_matters_more_than_one_pf() {
    // Node 0 has two PFs with two VFs each, node 1 one PF with three.
    let devices = [vf(3, 0, 0), vf(3, 1, 0), vf(4, 0, 0), vf(4, 1, 0), vf(9, 0, 1), vf(9, 1, 1), vf(9, 2, 1)];
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    let four = ask(&pool, &all, &[], 4).unwrap();
    assert!(four.iter().all(|id| id.starts_with("0000:03") || id.starts_with("0000:04")), "{four:?}");
    let three = ask(&pool, &all, &[], 3).unwrap();
    assert!(three.iter().all(|id| id.starts_with("0000:09")), "{three:?}");
}

#[test]
fn pfs_below_one_root_port_are_taken_together() {
    // Two cards with two PFs each, two VFs per PF, on one node.
    let below = |bus, index, port: &str| Device { root_port: Some(pci(port)), ..vf(bus, index, 0) };
    let devices: Vec<Device> =
        [(3, "0000:00:01.0"), (4, "0000:00:02.0"), (5, "0000:00:01.0"), (6, "0000:00:02.0")]
            .iter()
            .flat_map(|(bus, port)| [below(*bus, 0, port), below(*bus, 1, port)])
            .collect();
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    for allocation in [Allocation::Packed, Allocation::Spread] {
        let three = ask_for(allocation, &pool, &all, &[], 3).unwrap();
        let card = |id: &String| matches!(&id[5..7], "03" | "05");
        assert!(three.iter().all(card) || !three.iter().any(card), "{allocation:?}: {three:?}");
    }
}

#[test]
fn spread_takes_turns_between_pfs_and_begins_with_the_one_used_least() {
    let devices: Vec<Device> =
        [3, 4, 5].iter().flat_map(|bus| (0..4).map(|index| vf(*bus, index, 0))).collect();
    let pool = pool_of(&devices);
    // Two of the first PF and one of the second are given away.
    let free: Vec<&Device> =
        devices.iter().enumerate().filter(|(i, _)| ![0, 1, 4].contains(i)).map(|(_, d)| d).collect();
    let ask = |fixed: &[&Device], size| ask_for(Allocation::Spread, &pool, &free, fixed, size).unwrap();
    assert_eq!(ask(&[], 1), ["0000:05:02.0"]);
    assert_eq!(ask(&[], 2), ["0000:05:02.0", "0000:04:02.1"]);
    assert_eq!(ask(&[], 4), ["0000:05:02.0", "0000:04:02.1", "0000:03:02.2", "0000:05:02.1"]);
    // What must be in counts.
    assert_eq!(ask(&[&devices[8]], 2), ["0000:05:02.0", "0000:04:02.1"]);
}

#[test]
fn spread_stays_on_one_node_and_takes_the_emptier_one() {
    let devices = [vf(3, 0, 0), vf(4, 0, 0), vf(8, 0, 1), vf(9, 0, 1), vf(9, 1, 1)];
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    let ids = ask_for(Allocation::Spread, &pool, &all, &[], 2).unwrap();
    assert_eq!(ids, ["0000:09:02.0", "0000:08:02.0"]);
    let near = ask_for(Allocation::Spread, &pool, &all, &[&devices[0]], 2).unwrap();
    assert_eq!(near, ["0000:03:02.0", "0000:04:02.0"]);
}

#[test]
fn others_join_those_that_must_be_included() {
    let devices = [vf(3, 0, 0), vf(3, 1, 0), vf(9, 0, 1), vf(9, 1, 1), vf(9, 2, 1)];
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    assert_eq!(ask(&pool, &all, &[&devices[3]], 2).unwrap(), ["0000:09:02.1", "0000:09:02.0"]);
    assert_eq!(
        ask(&pool, &all, &[&devices[1]], 3).unwrap(),
        ["0000:03:02.1", "0000:03:02.0", "0000:09:02.0"]
    );
}

#[test]
fn unhealthy_devices_come_last() {
    let mut sick = vf(3, 0, 0);
    sick.health = Health::Unhealthy("not ready".to_owned());
    let devices = [sick, vf(3, 1, 0)];
    let all: Vec<&Device> = devices.iter().collect();
    assert_eq!(ask(&pool_of(&devices), &all, &[], 1).unwrap(), ["0000:03:02.1"]);
    assert_eq!(ask(&pool_of(&devices), &all, &[], 2).unwrap(), ["0000:03:02.1", "0000:03:02.0"]);
}

#[test]
fn sizes_that_cannot_be_met_are_refused() {
    let devices = [vf(3, 0, 0), vf(3, 1, 0)];
    let all: Vec<&Device> = devices.iter().collect();
    let pool = pool_of(&devices);
    for (size, fixed) in [(3, vec![]), (0, vec![]), (-1, vec![]), (1, all.clone())] {
        assert!(matches!(ask(&pool, &all, &fixed, size), Err(RequestError::Size { .. })), "{size}");
    }
    let error = ask(&pool, &all, &[], 3).unwrap_err().to_string();
    assert_eq!(error, "culvert.io/a: 3 devices wanted, 0 of them fixed, out of 2 available");
}

proptest! {
    #[test]
    fn the_answer_has_the_size_asked_for_no_id_twice_and_all_that_must_be_in(
        places in prop::collection::vec((0u8..3, 0u16..2), 1..24),
        fixed in 0usize..4,
        size in 1usize..24,
        spread in any::<bool>(),
    ) {
        let allocation = if spread { Allocation::Spread } else { Allocation::Packed };
        let devices: Vec<Device> = (0u8..).zip(&places).map(|(i, (bus, numa))| vf(*bus, i, *numa)).collect();
        let all: Vec<&Device> = devices.iter().collect();
        let fixed = &all[..fixed.min(all.len())];
        let answer = ask_for(allocation, &pool_of(&devices), &all, fixed, i32::try_from(size).unwrap());
        if size < fixed.len() || size > all.len() {
            prop_assert!(answer.is_err());
        } else {
            let answer = answer.unwrap();
            let unique: BTreeSet<&String> = answer.iter().collect();
            prop_assert_eq!(unique.len(), size);
            prop_assert_eq!(answer.len(), size);
            for device in fixed {
                prop_assert!(answer.contains(&device.pci.to_string()));
            }
            for id in &answer {
                prop_assert!(all.iter().any(|d| d.pci.to_string() == *id));
            }
        }
    }

    #[test]
    fn one_node_serves_the_request_whenever_one_node_can(
        places in prop::collection::vec((0u8..3, 0u16..3), 1..24),
        size in 1usize..12,
        spread in any::<bool>(),
    ) {
        let allocation = if spread { Allocation::Spread } else { Allocation::Packed };
        let devices: Vec<Device> = (0u8..).zip(&places).map(|(i, (bus, numa))| vf(*bus, i, *numa)).collect();
        let all: Vec<&Device> = devices.iter().collect();
        let most = (0..3).map(|n| all.iter().filter(|d| d.numa == Some(n)).count()).max().unwrap();
        if size <= most {
            let answer = ask_for(allocation, &pool_of(&devices), &all, &[], i32::try_from(size).unwrap()).unwrap();
            let nodes: BTreeSet<_> = all.iter().filter(|d| answer.contains(&d.pci.to_string())).map(|d| d.numa).collect();
            prop_assert_eq!(nodes.len(), 1);
        }
    }
}
