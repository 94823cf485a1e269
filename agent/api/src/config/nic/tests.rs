use super::*;

const TWO_TENANTS: &str = r#"
pfs:
  - pf: 0000:03:00.0
    vfs: 4
    mac: { base: 02:00:00:00:01:00 }
    vlan: 7
    overrides:
      - { vfs: "0-1", vlan: 100 }
      - { vfs: "2-3", vlan: 200, qos: 3, spoofCheck: true, trust: false }
    pools: [ { name: tenant-a, vfs: "0-1" }, { name: tenant-b, vfs: 2 } ]
"#;

fn vf(policy: &NicPolicy, index: usize) -> &VfPolicy {
    &policy.pfs[0].vfs[index]
}

#[test]
fn a_range_overrides_the_pfs_own_settings_and_pools_take_their_vfs() {
    let policy = NicPolicy::from_yaml(TWO_TENANTS).unwrap();
    assert_eq!(policy.pfs[0].pf, PfSelector::Pci("0000:03:00.0".parse().unwrap()));
    assert!(!policy.apply_at_start);
    let (first, third, last) = (vf(&policy, 0), vf(&policy, 2), vf(&policy, 3));
    assert_eq!(first.mac, MacPolicy::Fixed("02:00:00:00:01:00".parse().unwrap()));
    assert_eq!(last.mac, MacPolicy::Fixed("02:00:00:00:01:03".parse().unwrap()));
    assert_eq!((first.vlan.get(), first.qos.get(), first.spoof_check), (100, 0, None));
    assert_eq!((third.vlan.get(), third.qos.get(), third.spoof_check), (200, 3, Some(true)));
    assert_eq!(third.trust, Some(false));
    assert_eq!(first.pool.as_ref().map(PoolName::as_str), Some("tenant-a"));
    assert_eq!(last.pool, None);
}

#[test]
fn what_is_not_said_is_derived_untagged_and_driven_by_the_kernel() {
    let policy = NicPolicy::from_yaml("applyAtStart: true\npfs: [{pf: eth0, vfs: 1}]").unwrap();
    assert!(policy.apply_at_start);
    assert_eq!(policy.pfs[0].pf.to_string(), "eth0");
    let vf = vf(&policy, 0);
    assert_eq!(vf.mac, MacPolicy::Derived);
    assert_eq!((vf.vlan, vf.driver, vf.rates, vf.mtu), (VlanId::MIN, VfDriver::Kernel, None, None));
}

#[test]
fn an_override_may_fix_the_mac_of_one_vf() {
    let yaml =
        "pfs: [{pf: eth0, vfs: 2, mac: derived, overrides: [{vfs: 1, mac: 02:00:00:00:00:09, minRate: 10}]}]";
    let policy = NicPolicy::from_yaml(yaml).unwrap();
    assert_eq!(vf(&policy, 0).mac, MacPolicy::Derived);
    assert_eq!(vf(&policy, 1).mac, MacPolicy::Fixed("02:00:00:00:00:09".parse().unwrap()));
    assert_eq!(vf(&policy, 1).rates.map(|r| (r.min.get(), r.max.get())), Some((10, 0)));
}

/// Bodies of a PF's entry, and what the error must say.
#[test]
fn what_makes_no_sense_is_refused_naming_object_and_value() {
    for (body, text) in [
        ("vfs: 1, vlan: 5000", "vlan 5000: must be 0-4094"),
        ("vfs: 1, colour: red", "colour"),
        ("vfs: 70000", "70000"),
        ("vfs: 2, overrides: [{vfs: 2, vlan: 1}]", "overrides of 0000:03:00.0: vf 2: must be 0-1 (vfs: 2)"),
        ("vfs: 0, pools: [{name: a, vfs: 0}]", "pool a of 0000:03:00.0: vf 0: there are no VFs (vfs: 0)"),
        ("vfs: 4, overrides: [{vfs: \"0-2\"}, {vfs: \"2-3\"}]", "vf 2: is in two overrides"),
        ("vfs: 4, overrides: [{vfs: \"3-1\"}]", "3-1 is the wrong way round"),
        ("vfs: 4, overrides: [{vfs: \"0-2,1\"}]", "names vf 1 twice"),
        ("vfs: 4, overrides: [{vfs: \"\"}]", "must look like 3, 0-3 or 0-1,5"),
        ("vfs: 4, overrides: [{vfs: -1}]", "must look like 3, 0-3 or 0-1,5"),
        (
            "vfs: 4, pools: [{name: a, vfs: \"0-1\"}, {name: b, vfs: 1}]",
            "pool b of 0000:03:00.0: vf 1: is in pool a, too",
        ),
        ("vfs: 4, pools: [{name: a, vfs: 0}, {name: a, vfs: 1}]", "pool a: is there twice"),
        (
            "vfs: 2, overrides: [{vfs: \"0-1\", mac: 02:00:00:00:00:01}]",
            "mac 02:00:00:00:00:01: is one address for 2 VFs",
        ),
        ("vfs: 3, mac: {list: [02:00:00:00:00:01]}", "number of addresses in mac list 1: must be 3"),
        (
            "vfs: 2, mac: {list: [02:00:00:00:00:01, 02:00:00:00:00:01]}",
            "vf 1 of 0000:03:00.0: mac 02:00:00:00:00:01: is that of vf 0 of 0000:03:00.0, too",
        ),
        ("vfs: 2, mac: {base: 02:ff:ff:ff:ff:ff}", "mac base 02:ff:ff:ff:ff:ff: leaves no unicast"),
        ("vfs: 1, mac: {base: 01:00:5e:00:00:01}", "multicast"),
        ("vfs: 1, qos: 3", "vf 0 of 0000:03:00.0: qos 3: needs a vlan"),
        ("vfs: 1, vlanProtocol: 802.1ad", "vlanProtocol 802.1ad: needs a vlan"),
        ("vfs: 1, minRate: 20, maxRate: 10", "minRate 20: must not be above maxRate 10"),
        ("vfs: 1, mtu: 9000, driver: vfio-pci", "mtu 9000: is for the kernel's driver"),
        ("vfs: 1, driver: uio", "uio"),
    ] {
        let yaml = format!("pfs: [{{pf: \"0000:03:00.0\", {body}}}]");
        let error = NicPolicy::from_yaml(&yaml).unwrap_err().to_string();
        assert!(error.contains(text), "{body}: {error}");
    }
}

#[test]
fn a_pf_named_twice_and_macs_shared_by_two_pfs_are_refused() {
    let twice = "pfs: [{pf: eth0, vfs: 1}, {pf: eth0, vfs: 2}]";
    let error = NicPolicy::from_yaml(twice).unwrap_err().to_string();
    assert!(error.contains("nic.pfs eth0: is named twice"), "{error}");

    let shared = "pfs: [{pf: eth0, vfs: 2, mac: {base: 02:00:00:00:00:01}}, {pf: eth1, vfs: 1, mac: {base: 02:00:00:00:00:02}}]";
    let error = NicPolicy::from_yaml(shared).unwrap_err().to_string();
    assert!(error.contains("vf 0 of eth1: mac 02:00:00:00:00:02: is that of vf 1 of eth0, too"), "{error}");
}

#[test]
fn a_mistake_is_told_with_line_and_column() {
    let error =
        NicPolicy::from_yaml("pfs:\n  - pf: eth0\n    vfs: 1\n    vlann: 3\n").unwrap_err().to_string();
    assert!(error.contains("line 4"), "{error}");
    let error = NicPolicy::from_yaml("pfs:\n  - pf: 0000:03:00\n    vfs: 1\n").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("must look like 0000:03:00.1"), "{error}");
}
