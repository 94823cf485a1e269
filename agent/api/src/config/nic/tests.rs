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

fn vf(policy: &NicPolicy, index: u32) -> VfPolicy {
    policy.pfs[0].vf(VfIndex::try_from(index).unwrap()).unwrap()
}

#[test]
fn a_range_overrides_the_pfs_own_settings_and_pools_take_their_vfs() {
    let policy = NicPolicy::from_yaml(TWO_TENANTS).unwrap();
    assert_eq!(policy.pfs[0].pf.address(), Some("0000:03:00.0".parse().unwrap()));
    assert!(!policy.apply_at_start);
    let (first, third, last) = (vf(&policy, 0), vf(&policy, 2), vf(&policy, 3));
    assert_eq!(first.mac, MacPolicy::Fixed("02:00:00:00:01:00".parse().unwrap()));
    assert_eq!(last.mac, MacPolicy::Fixed("02:00:00:00:01:03".parse().unwrap()));
    assert_eq!(
        (first.settings.vlan.get(), first.settings.qos.get(), first.settings.spoof_check),
        (100, 0, None)
    );
    assert_eq!(
        (third.settings.vlan.get(), third.settings.qos.get(), third.settings.spoof_check),
        (200, 3, Some(true))
    );
    assert_eq!(third.settings.trust, Some(false));
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
    assert_eq!(
        (vf.settings.vlan, vf.settings.driver, vf.settings.rates, vf.settings.mtu),
        (VlanId::MIN, VfDriver::Kernel, None, None)
    );
}

#[test]
fn an_override_may_fix_the_mac_of_one_vf() {
    let yaml =
        "pfs: [{pf: eth0, vfs: 2, mac: derived, overrides: [{vfs: 1, mac: 02:00:00:00:00:09, minRate: 10}]}]";
    let policy = NicPolicy::from_yaml(yaml).unwrap();
    assert_eq!(vf(&policy, 0).mac, MacPolicy::Derived);
    assert_eq!(vf(&policy, 1).mac, MacPolicy::Fixed("02:00:00:00:00:09".parse().unwrap()));
    assert_eq!(vf(&policy, 1).settings.rates.map(|r| (r.min.get(), r.max.get())), Some((10, 0)));
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
        ("vfs: 4, overrides: [{vfs: \"\"}]", "must look like 3, 0-3, 0-1,5 or 4-, or be all"),
        ("vfs: 4, overrides: [{vfs: -1}]", "must look like 3, 0-3, 0-1,5 or 4-, or be all"),
        (
            "vfs: 4, pools: [{name: a, vfs: \"0-1\"}, {name: b, vfs: 1}]",
            "pool b of 0000:03:00.0: vf 1: is in pool a, too",
        ),
        ("vfs: 4, pools: [{name: a, vfs: 0}, {name: a, vfs: 1}]", "pool a: is there twice"),
        (
            "vfs: 2, overrides: [{vfs: \"0-1\", mac: 02:00:00:00:00:01}]",
            "mac 02:00:00:00:00:01: is one address for vfs 0-1",
        ),
        ("vfs: 3, mac: {list: [02:00:00:00:00:01]}", "number of addresses in mac list 1: must be 3"),
        (
            "vfs: 2, mac: {list: [02:00:00:00:00:01, 02:00:00:00:00:01]}",
            "vf 1 of 0000:03:00.0: mac 02:00:00:00:00:01: is that of vf 0 of 0000:03:00.0, too",
        ),
        ("vfs: 2, mac: {base: 02:ff:ff:ff:ff:ff}", "mac base 02:ff:ff:ff:ff:ff: leaves no unicast"),
        ("vfs: 1, mac: {base: 01:00:5e:00:00:01}", "multicast"),
        ("vfs: 1, qos: 3", "0000:03:00.0: qos 3: needs a vlan"),
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

fn facts<'a>(address: &str, names: &'a [&'a str]) -> PfFacts<'a> {
    PfFacts {
        address: address.parse().unwrap(),
        names,
        id: (0x8086, 0x1592),
        numa: Some(1),
        driver: Some("ice"),
    }
}

#[test]
fn a_selector_matches_when_all_its_conditions_hold() {
    let policy = |pf: &str| NicPolicy::from_yaml(&format!("pfs: [{{pf: {pf}, vfs: 1}}]")).unwrap();
    let pf = facts("0000:3b:00.0", &["ens1f0"]);
    for (selector, matches, explicit) in [
        ("0000:3b:00.0", true, true),
        ("0000:3b:00.1", false, true),
        ("ens1f0", true, true),
        ("ens1f1", false, true),
        ("\"0000:3B:*\"", true, false),
        ("\"ens*f0\"", true, false),
        ("\"ens*f1\"", false, false),
        ("\"8086:1592\"", true, false),
        ("\"8086:*\"", true, false),
        ("\"15b3:*\"", false, false),
        ("{numa: 1}", true, false),
        ("{numa: 0}", false, false),
        ("{driver: ice, id: \"8086:1592\"}", true, false),
        ("{driver: i40e, id: \"8086:1592\"}", false, false),
        ("{name: ens1f0, numa: 0}", false, true),
    ] {
        let policy = policy(selector);
        assert_eq!(policy.pfs[0].pf.matches(&pf), matches, "{selector}");
        assert_eq!(policy.pfs[0].pf.is_explicit(), explicit, "{selector}");
    }
}

#[test]
fn of_two_selectors_the_explicit_one_or_the_one_with_more_conditions_goes_first() {
    let selector = |text: &str| {
        NicPolicy::from_yaml(&format!("pfs: [{{pf: {text}, vfs: 1}}]")).unwrap().pfs.remove(0).pf
    };
    for (one, two) in [
        ("eth0", "\"eth*\""),
        ("0000:03:00.0", "{id: \"8086:1592\", numa: 0, driver: ice}"),
        ("{id: \"8086:1592\", numa: 0}", "\"8086:1592\""),
        ("{name: eth0, numa: 0}", "eth0"),
    ] {
        assert!(selector(one).beats(&selector(two)), "{one} {two}");
        assert!(!selector(two).beats(&selector(one)), "{two} {one}");
    }
    for (one, two) in [
        ("eth0", "0000:03:00.0"),
        ("\"eth*\"", "\"8086:1592\""),
        ("{id: \"8086:1592\", numa: 0}", "{id: \"8086:*\"}"),
        ("\"eth*\"", "\"eth?\""),
    ] {
        assert!(!selector(one).beats(&selector(two)) && !selector(two).beats(&selector(one)), "{one} {two}");
    }
}

#[test]
fn a_selector_prints_as_it_may_be_written() {
    for text in ["eth0", "0000:03:00.0", "ens*f0", "8086:1592", "8086:*", "{id: 8086:1592, numa: 0}"] {
        let quoted = if text.starts_with('{') { text.to_owned() } else { format!("\"{text}\"") };
        let policy = NicPolicy::from_yaml(&format!("pfs: [{{pf: {quoted}, vfs: 1}}]")).unwrap();
        assert_eq!(policy.pfs[0].pf.to_string(), text);
    }
}

#[test]
fn several_vfs_are_named_by_open_ranges_and_max_counts_what_the_pf_can_have() {
    let yaml =
        "pfs: [{pf: eth0, vfs: max, vlan: 5, overrides: [{vfs: 4-, vlan: 6}], pools: [{name: a, vfs: all}]}]";
    let policy = NicPolicy::from_yaml(yaml).unwrap();
    let pf = &policy.pfs[0];
    assert_eq!((pf.vfs.of(63), pf.carve.of(63)), (63, 63));
    assert_eq!((vf(&policy, 3).settings.vlan.get(), vf(&policy, 62).settings.vlan.get()), (5, 6));
    assert_eq!(vf(&policy, 62).pool.unwrap().as_str(), "a");
    assert_eq!(pf.beyond(5), None);
    assert_eq!(pf.beyond(4).as_deref(), Some("overrides: vf 4"));
}

#[test]
fn an_inherited_mtu_does_not_count_for_a_vf_of_vfio() {
    let yaml = "pfs: [{pf: eth0, vfs: 2, mtu: 9000, overrides: [{vfs: 1, driver: vfio-pci}]}]";
    let policy = NicPolicy::from_yaml(yaml).unwrap();
    assert_eq!(vf(&policy, 0).settings.mtu.map(Mtu::get), Some(9000));
    assert_eq!(vf(&policy, 1).settings.mtu, None);
}

#[test]
fn selectors_counts_and_mac_rules_that_make_no_sense_are_refused() {
    for (entry, text) in [
        ("pf: \"ens[\", vfs: 1", "[ needs characters and a ]"),
        ("pf: \"a/*\", vfs: 1", "a pattern of one has letters"),
        ("pf: \"0000:xx:*\", vfs: 1", "a pattern of one has hexadecimal digits"),
        ("pf: \"8086:15\", vfs: 1", "must look like 8086:1592"),
        ("pf: {}, vfs: 1", "needs a condition"),
        ("pf: {nam: eth0}, vfs: 1", "nam"),
        ("pf: {driver: \"\"}, vfs: 1", "driver: must name one"),
        ("pf: eth0, vfs: some", "must be 0-65535 or max"),
        ("pf: eth0, vfs: 4, carve: 2", "eth0: carve 2: must be at least vfs, which is 4"),
        ("pf: eth0, vfs: max, carve: 2", "eth0: carve 2: must be at least vfs, which is max"),
        ("pf: \"eth*\", vfs: 1, mac: {base: 02:00:00:00:00:01}", "would be for each PF that eth* matches"),
        ("pf: \"eth*\", vfs: 1, mac: {list: [02:00:00:00:00:01]}", "would be for each PF that eth* matches"),
        (
            "pf: \"eth*\", vfs: 1, overrides: [{vfs: 0, mac: 02:00:00:00:00:01}]",
            "would be for each PF that eth* matches",
        ),
        (
            "pf: eth0, vfs: 4, mac: {pool: {from: 02:00:00:00:00:01, to: 02:00:00:00:00:02}}",
            "mac pool 02:00:00:00:00:01 to 02:00:00:00:00:02: has 2 addresses, for 4 VFs",
        ),
        (
            "pf: eth0, vfs: 1, mac: {pool: {from: 02:00:00:00:00:02, to: 02:00:00:00:00:01}}",
            "is the wrong way round",
        ),
        ("pf: eth0, vfs: 1, pfMtu: 1500, mtu: 9000", "eth0: mtu 9000: must not be above pfMtu 1500"),
        ("pf: eth0, vfs: 4, overrides: [{vfs: all}, {vfs: 3}]", "vf 3: is in two overrides"),
        ("pf: eth0, vfs: max, pools: [{name: a, vfs: 2-}, {name: b, vfs: 9}]", "vf 9: is in pool a, too"),
        ("pf: eth0, vfs: max, overrides: [{vfs: all, mac: 02:00:00:00:00:01}]", "is one address for vfs all"),
    ] {
        let error = NicPolicy::from_yaml(&format!("pfs: [{{{entry}}}]")).unwrap_err().to_string();
        assert!(error.contains(text), "{entry}: {error}");
    }
}

#[test]
fn a_policy_is_read_from_the_section_or_from_a_whole_configuration() {
    let section = "pfs: [{pf: eth0, vfs: 1}]";
    let whole = format!("node: a\nnic: {{{section}}}");
    assert_eq!(NicPolicy::from_any_yaml(section).unwrap(), NicPolicy::from_any_yaml(&whole).unwrap());
    assert_eq!(NicPolicy::from_any_yaml("node: a").unwrap(), NicPolicy::default());
    let error = NicPolicy::from_any_yaml("node: a\nnic:\n  pfs: [{pf: eth0, vf: 1}]").unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
}
