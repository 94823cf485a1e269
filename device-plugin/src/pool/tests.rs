use super::*;
use crate::testing::{device, inventory, pci};

fn pool_of(devices: &[Device]) -> Pool {
    let mut pool = Pool::new("culvert.io/a".parse().unwrap());
    pool.update(&inventory(devices));
    pool
}

fn health(pool: &Pool) -> Vec<(String, String)> {
    pool.list().into_iter().map(|d| (d.id, d.health)).collect()
}

fn pair(id: &str, health: &str) -> (String, String) {
    (id.to_owned(), health.to_owned())
}

#[test]
fn only_its_own_devices_are_listed_in_the_order_of_addresses() {
    let pool =
        pool_of(&[device("0000:03:02.1", "a"), device("0000:03:02.0", "a"), device("0000:03:02.2", "b")]);
    assert_eq!(health(&pool), [pair("0000:03:02.0", "Healthy"), pair("0000:03:02.1", "Healthy")]);
}

#[test]
fn a_device_that_vanishes_stays_as_unhealthy_and_recovers_when_it_is_back() {
    let (first, second) = (device("0000:03:02.0", "a"), device("0000:03:02.1", "a"));
    let mut pool = pool_of(&[first.clone(), second.clone()]);
    pool.update(&inventory(std::slice::from_ref(&first)));
    assert_eq!(health(&pool), [pair("0000:03:02.0", "Healthy"), pair("0000:03:02.1", "Unhealthy")]);
    assert_eq!(pool.get(pci("0000:03:02.1")).unwrap().problem(), Some("gone from the machine"));
    pool.update(&inventory(&[first, second]));
    assert_eq!(health(&pool), [pair("0000:03:02.0", "Healthy"), pair("0000:03:02.1", "Healthy")]);
}

#[test]
fn a_device_that_moves_to_another_pool_or_to_none_leaves() {
    let mut pool =
        pool_of(&[device("0000:03:02.0", "a"), device("0000:03:02.1", "a"), device("0000:03:02.2", "a")]);
    let withdrawn = Device::new(pci("0000:03:02.2"));
    pool.update(&inventory(&[device("0000:03:02.0", "a"), device("0000:03:02.1", "b"), withdrawn]));
    assert_eq!(health(&pool), [pair("0000:03:02.0", "Healthy")]);
}

#[test]
fn the_numa_node_is_told_where_it_is_known() {
    let mut known = device("0000:03:02.0", "a");
    known.numa = Some(1);
    let list = pool_of(&[known, device("0000:03:02.1", "a")]).list();
    assert_eq!(list[0].topology, Some(v1beta1::TopologyInfo { nodes: vec![v1beta1::NumaNode { id: 1 }] }));
    assert_eq!(list[1].topology, None);
}

#[test]
fn the_numa_node_is_not_told_where_it_is_hidden() {
    let hidden = Device { numa: Some(1), hide_numa: true, ..device("0000:03:02.0", "a") };
    assert_eq!(pool_of(&[hidden]).list()[0].topology, None);
}

#[test]
fn pools_of_one_name_and_two_prefixes_are_two_resources() {
    let mut other = device("0000:03:02.1", "a");
    other.prefix = Some("intel.com".parse().unwrap());
    let devices = [device("0000:03:02.0", "a"), other];
    assert_eq!(health(&pool_of(&devices)), [pair("0000:03:02.0", "Healthy")]);
    let mut second = Pool::new("intel.com/a".parse().unwrap());
    second.update(&inventory(&devices));
    assert_eq!(health(&second), [pair("0000:03:02.1", "Healthy")]);
}
