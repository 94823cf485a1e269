use super::*;
use crate::testing::pci;

fn prefix() -> ResourcePrefix {
    "intel.com".parse().unwrap()
}

fn read(text: &str) -> ResourceList {
    ResourceList::parse(text, &prefix()).unwrap()
}

fn findings(list: &[Finding]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// One resource with these selectors.
fn with_selectors(selectors: &str) -> ResourceList {
    read(&format!("{{\"resourceList\":[{{\"resourceName\":\"nics\",\"selectors\":{selectors}}}]}}"))
}

/// VF `index` of an 8086:1889 NIC at `0000:BUS:00.0`, called `ens<BUS>f0`.
fn vf(bus: u8, index: u32) -> Candidate {
    let pf = pci(&format!("0000:{bus:02x}:00.0"));
    Candidate {
        pci: pci(&format!("0000:{bus:02x}:{:02x}.{:x}", 1 + index / 8, index % 8)),
        vendor: 0x8086,
        device: 0x1889,
        driver: Some("iavf".to_owned()),
        pf,
        pf_names: vec![format!("ens{bus}f0")],
        vf: Some(index),
        link_type: Some(LinkType::Ether),
        acpi_index: None,
        ddp_profile: None,
        p_key: None,
        rdma: false,
        vdpa: None,
        bound: None,
    }
}

/// Which of the candidates the first selector takes.
fn taken(selectors: &str, candidates: &[Candidate]) -> Vec<usize> {
    let list = with_selectors(selectors);
    let takes = |c: &Candidate| list.resources[0].selectors.iter().any(|s| s.takes(c));
    candidates.iter().enumerate().filter(|(_, c)| takes(c)).map(|(i, _)| i).collect()
}

#[test]
fn a_file_of_several_resources_is_taken_over_whole() {
    let list = read(
        r#"{
    "resourceList": [
        {
            "resourceName": "netdevs",
            "selectors": { "vendors": ["8086"], "devices": ["154c", "1889"], "drivers": ["iavf"] }
        },
        {
            "resourceName": "dpdk",
            "resourcePrefix": "dpdk.org",
            "excludeTopology": true,
            "additionalInfo": { "*": { "token": "t-1" }, "0000:03:01.0": { "lane": "0" } },
            "selectors": [
                { "drivers": ["vfio-pci"], "pfNames": ["ens3f0#0-3,5"], "needVhostNet": true },
                { "vendors": ["15b3"], "isRdma": true, "rootDevices": ["0000:81:00.0"], "linkTypes": ["ether"] }
            ]
        }
    ]
}"#,
    );
    assert_eq!(findings(&list.findings), [] as [&str; 0]);
    let names: Vec<String> = list.resources.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["intel.com/netdevs", "dpdk.org/dpdk"]);
    assert_eq!(list.resources[0].selectors.len(), 1);
    assert_eq!(list.resources[0].selectors[0].devices, ["154c", "1889"]);
    let dpdk = &list.resources[1];
    assert_eq!((dpdk.at, dpdk.exclude_topology), (Spot { line: 7, column: 9 }, true));
    assert_eq!(dpdk.additional_info["*"]["token"], "t-1");
    assert_eq!(dpdk.additional_info["0000:03:01.0"]["lane"], "0");
    assert!(dpdk.selectors[0].need_vhost_net && dpdk.selectors[1].is_rdma);
    assert_eq!(dpdk.selectors[0].pf_names[0].which, Which::Vfs(vec![0..=3, 5..=5]));
    assert_eq!(dpdk.selectors[1].root_devices[0].pf, "0000:81:00.0");
    assert_eq!(dpdk.selectors[1].link_types, [LinkType::Ether]);
}

#[test]
fn keys_count_in_any_case_and_null_counts_as_absent() {
    let list = read(
        r#"{"RESOURCELIST":[{"resourcename":"sriovnics","deviceType":null,"resourcePrefix":"",
            "Selectors":{"pfNames":["ens1f0#0-4"],"IsRdma":false,"NeedVhostNet":true,"vendors":null},"SelectorObj":null}]}"#,
    );
    assert_eq!(list.resources[0].name.to_string(), "intel.com/sriovnics");
    assert!(list.resources[0].selectors[0].need_vhost_net);
    assert_eq!(
        findings(&list.findings),
        ["line 2 column 102: warning: a resource: unknown key \"SelectorObj\", which is null; ignored"]
    );
    assert!(list.is_sound());
}

#[test]
fn broken_json_is_refused_with_line_and_column() {
    let trailing = "{\n  \"resourceList\": [\n    {\n      \"resourceName\": \"down\",\n      \"selectors\": [{\n        \"pciAddresses\": [\n          \"0000:00:09.0\",\n          \"0000:00:0a.0\"\n        ],\n      }],\n    }\n  ]\n}\n";
    let brackets =
        "{\n    \"resourceList\": [{\n        {\n            \"resourceName\": \"v\"\n        }\n    ]\n}\n";
    for (text, message) in [
        (trailing, "line 10 column 7: '}' after a comma: remove the comma"),
        (brackets, "line 3 column 9: '{' where a key in double quotes is expected"),
        ("", "line 1 column 1: the text ends where a value is expected"),
    ] {
        assert_eq!(ResourceList::parse(text, &prefix()).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_misspelt_key_is_named_and_its_selector_takes_nothing() {
    let said = "line 1 column 54: error: resource intel.com/nics: selectors: unknown key \"pfName\": the selector takes \
                nothing, as without that key it would take more than was meant; did you mean pfNames?";
    for selector in [r#"{"pfName":["ens3f0"]}"#, r#"{"pfName":["ens3f0"],"vendors":["8086"]}"#] {
        let list = with_selectors(selector);
        assert_eq!(findings(&list.findings)[0], said);
        assert!(!list.is_sound() && !list.resources[0].is_served());
        assert_eq!(assign(&list, &[vf(3, 0)]).taken, [None]);
    }
    // Its neighbours in the list are not concerned.
    let list = with_selectors(r#"[{"pfName":["ens3f0"]},{"pfNames":["ens4f0"]}]"#);
    assert_eq!(assign(&list, &[vf(3, 0), vf(4, 0)]).taken, [None, Some((0, 0))]);
}

#[test]
fn a_key_of_another_kind_of_device_is_as_unknown_as_any() {
    let list = with_selectors(r#"{"vendors":["8086"],"auxTypes":["sf"]}"#);
    assert!(findings(&list.findings)[0].contains("unknown key \"auxTypes\": the selector takes nothing"));
    assert!(!list.resources[0].is_served());
}

#[test]
fn unknown_keys_outside_of_selectors_are_said_and_ignored() {
    let list = read(
        r#"{"version":1,"resourceList":[{"resourceName":"a","resourcename ":"b","selectors":{"vendors":["8086"]}}]}"#,
    );
    assert_eq!(
        findings(&list.findings),
        [
            "line 1 column 2: warning: the file: unknown key \"version\", ignored",
            "line 1 column 50: warning: a resource: unknown key \"resourcename \", ignored; did you mean resourceName?",
        ]
    );
    assert!(list.is_sound() && list.resources[0].is_served());
}

#[test]
fn accelerators_sub_functions_and_vdpa_are_read_and_said_not_to_be_served() {
    let list = read(
        r#"{"resourceList":[
{"resourceName":"fpga","deviceType":"accelerator","selectors":[{"vendors":["8086"],"devices":["0d90"]}]},
{"resourceName":"sf","deviceType":"auxNetDevice","selectors":{"pfNames":["ens3f0#1-5"],"auxTypes":["sf"],"pKeys":["1"]}},
{"resourceName":"vdpa","selectors":{"vendors":["15b3"],"vdpaType":"vhost"}}]}"#,
    );
    assert_eq!(
        findings(&list.findings),
        [
            "line 2 column 37: warning: resource intel.com/fpga: deviceType \"accelerator\": Culvert has no such devices; the resource is not offered",
            "line 3 column 35: warning: resource intel.com/sf: deviceType \"auxNetDevice\": Culvert has no such devices; the resource is not offered",
            "line 3 column 106: error: resource intel.com/sf: selectors: unknown key \"pKeys\": the selector takes nothing, as without that key it would take more than was meant",
            "line 4 column 67: warning: resource intel.com/vdpa: vdpaType: Culvert has no vDPA devices on offer; the selector takes nothing",
        ]
    );
    let mut vendor = vf(3, 1);
    vendor.vendor = 0x15b3;
    assert_eq!(assign(&list, &[vf(3, 1), vendor]).taken, [None, None]);
}

#[test]
fn a_selector_without_filters_takes_every_device_and_says_so() {
    let list = with_selectors("{}");
    assert!(list.resources[0].selectors[0].takes(&vf(3, 0)));
    assert_eq!(
        findings(&list.findings),
        [
            "line 1 column 53: warning: resource intel.com/nics: the selector filters nothing and takes every device"
        ]
    );
}

#[test]
fn a_resource_that_makes_no_sense_is_left_out_and_the_others_stay() {
    for (resource, message) in [
        (r#"{"resourceName":"x"}"#, "line 2 column 1: error: resource intel.com/x: no selectors; left out"),
        (r#"{"resourceName":"x","selectors":[]}"#, "selectors is an empty list; left out"),
        (
            r#"{"resourceName":"x","selectors":"all"}"#,
            "line 2 column 33: error: resource intel.com/x: selectors: a string where an object or a list of them is expected",
        ),
        (r#"{"selectors":{}}"#, "a resource without resourceName; left out"),
        (
            r#"{"resourceName":"a.b","selectors":{}}"#,
            "line 2 column 17: error: resourceName: pool \"a.b\": must be 1-63 letters",
        ),
        (r#"{"resourceName":7,"selectors":{}}"#, "resourceName: a number where a string is expected"),
        (
            r#"{"resourceName":"x","resourcePrefix":"Intel","selectors":{}}"#,
            "resource x: resourcePrefix: resource prefix \"Intel\"",
        ),
        (
            r#"{"resourceName":"x","deviceType":"gpu","selectors":{}}"#,
            "deviceType \"gpu\": must be netDevice, accelerator or auxNetDevice",
        ),
        (
            r#"{"resourceName":"x","excludeTopology":"yes","selectors":{}}"#,
            "excludeTopology: a string where true or false is expected",
        ),
        (
            r#"{"resourceName":"x","additionalInfo":{"*":{"k":1}},"selectors":{}}"#,
            "additionalInfo: a number where a string is expected",
        ),
        (
            r#"{"resourceName":"x","selectors":{"vendors":"8086"}}"#,
            "resource intel.com/x: vendors: a string where a list of strings is expected",
        ),
        (
            r#"{"resourceName":"x","selectors":{"vendors":[8086]}}"#,
            "vendors: a number where a string is expected",
        ),
        (
            r#"{"resourceName":"x","selectors":{"isRdma":true,"vdpaType":"vhost"}}"#,
            "isRdma and vdpaType exclude each other",
        ),
        (
            r#"{"resourceName":"x","selectors":{"vdpaType":"qemu"}}"#,
            "vdpaType \"qemu\": must be virtio or vhost",
        ),
        (
            r#"{"resourceName":"good","selectors":{"vendors":["15b3"]}}"#,
            "resource intel.com/good: was there before, at line 3 column 1; left out",
        ),
        ("[]", "a resource: a list where an object is expected"),
    ] {
        // The one that is good comes first where the order matters.
        let good = r#"{"resourceName":"good","selectors":{"vendors":["8086"]}}"#;
        let (first, second) = if resource.contains("good") { ("", resource) } else { (resource, "") };
        let comma = |text: &str| if text.is_empty() { "" } else { "," };
        let text =
            format!("{{\"resourceList\":[\n{first}{}\n{good}{}\n{second}]}}", comma(first), comma(second));
        let list = read(&text);
        let errors: Vec<&Finding> = list.findings.iter().filter(|f| f.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{text}: {:?}", list.findings);
        assert!(errors[0].to_string().contains(message), "{}", errors[0]);
        assert_eq!(list.resources.len(), 1, "{text}");
        assert_eq!(list.resources[0].selectors[0].vendors, ["8086"]);
    }
}

#[test]
fn a_file_without_a_list_is_refused_and_an_empty_list_is_not() {
    for (text, message) in [
        ("{}", "line 1 column 1: the file has no resourceList"),
        (r#"{"resourceList":null}"#, "line 1 column 1: the file has no resourceList"),
        ("[]", "line 1 column 1: the file: a list where an object is expected"),
        (r#"{"resourceList":{}}"#, "line 1 column 17: resourceList: an object where a list is expected"),
    ] {
        assert_eq!(ResourceList::parse(text, &prefix()).unwrap_err().to_string(), message);
    }
    assert_eq!(read(r#"{"resourceList":[]}"#), ResourceList { resources: vec![], findings: vec![] });
}

#[test]
fn values_that_can_match_nothing_are_named() {
    let list = with_selectors(
        r#"{"vendors":["0x8086"],"devices":["15"],"pciAddresses":["03:00.0"],"linkTypes":["Ether"],
            "pfNames":["ens3f0#0-x","ens3f0#1"],"rootDevices":["0000:03:00.0#1#2"]}"#,
    );
    let texts = findings(&list.findings);
    for (line, text) in texts.iter().zip([
        "vendors: \"0x8086\" is not four hexadecimal digits",
        "devices: \"15\" is not four hexadecimal digits",
        "pciAddresses: \"03:00.0\" is no PCI address",
        "linkTypes: \"Ether\" is neither ether nor infiniband",
        "error: resource intel.com/nics: pfNames: \"ens3f0#0-x\": \"0-x\" is no VF index",
        "pfNames: \"ens3f0#1\" has no effect: an item before it names this PF",
        "rootDevices: \"0000:03:00.0#1#2\": more than one '#': selects nothing",
    ]) {
        assert!(line.contains(text), "{line}");
    }
    assert_eq!(texts.len(), 7);
    assert!(!list.resources[0].selectors[0].takes(&vf(3, 1)), "what is wrong must not widen the selector");
}

#[test]
fn every_filter_filters() {
    let plain = vf(3, 0);
    let mut special = vf(4, 2);
    special.vendor = 0x15b3;
    special.device = 0x101e;
    special.driver = Some("mlx5_core".to_owned());
    special.link_type = Some(LinkType::Infiniband);
    special.acpi_index = Some("101".to_owned());
    special.ddp_profile = Some("ICE COMMS Package".to_owned());
    special.p_key = Some("0x8001".to_owned());
    special.rdma = true;
    let mut vdpa = vf(5, 2);
    vdpa.vdpa = Some(VdpaType::Vhost);
    let all = [plain, special, vdpa];
    for (selector, expected) in [
        (r#"{"vendors":["15B3"]}"#, vec![1]),
        (r#"{"vendors":["15b3","8086"]}"#, vec![0, 1, 2]),
        (r#"{"devices":["101e"]}"#, vec![1]),
        (r#"{"drivers":["iavf"]}"#, vec![0, 2]),
        (r#"{"pciAddresses":["0000:04:01.2"]}"#, vec![1]),
        (r#"{"acpiIndexes":["101"]}"#, vec![1]),
        (r#"{"pfNames":["ens4f0"]}"#, vec![1]),
        (r#"{"pfNames":["ENS4F0#0-1"]}"#, vec![]),
        (r#"{"rootDevices":["0000:04:00.0#2"]}"#, vec![1]),
        (r#"{"linkTypes":["infiniband"]}"#, vec![1]),
        (r#"{"ddpProfiles":["ICE COMMS Package"]}"#, vec![1]),
        (r#"{"pKeys":["0x8001"]}"#, vec![1]),
        (r#"{"isRdma":true}"#, vec![1]),
        (r#"{"vdpaType":"vhost"}"#, vec![2]),
        (r#"{"vdpaType":"virtio"}"#, vec![]),
        (r#"{"vendors":["8086"],"drivers":["mlx5_core"]}"#, vec![]),
        (r#"[{"vendors":["15b3"]},{"pfNames":["ens5f0"]}]"#, vec![1, 2]),
    ] {
        assert_eq!(taken(selector, &all), expected, "{selector}");
    }
}

#[test]
fn the_first_item_that_names_a_pf_decides() {
    let vfs: Vec<Candidate> = (0..8).map(|i| vf(3, i)).collect();
    assert_eq!(taken(r#"{"pfNames":["ens3f0#0-1","ens3f0#5"]}"#, &vfs), [0, 1]);
    assert_eq!(taken(r#"{"pfNames":["ens4f0","ens3f0#5-9,0"]}"#, &vfs), [0, 5, 6, 7]);
}

#[test]
fn a_device_goes_to_the_first_resource_that_takes_it_and_the_loser_is_told() {
    let list = read(
        r#"{"resourceList":[
{"resourceName":"some","selectors":{"pfNames":["ens3f0#0-1"]}},
{"resourceName":"all","selectors":[{"drivers":["none"]},{"vendors":["8086"]}]},
{"resourceName":"none","selectors":{"vendors":["15b3"]}}]}"#,
    );
    let vfs: Vec<Candidate> = (0..4).map(|i| vf(3, i)).collect();
    let Assignment { taken, findings: said } = assign(&list, &vfs);
    assert_eq!(taken, [Some((0, 0)), Some((0, 0)), Some((1, 1)), Some((1, 1))]);
    assert_eq!(
        findings(&said),
        [
            "line 3 column 1: warning: resource intel.com/all: 2 of its devices, 0000:03:01.0 first, went to intel.com/some, which stands before it",
            "line 4 column 1: warning: resource intel.com/none: no device of this node is left for it; it is not offered",
        ]
    );
}

#[test]
fn a_pool_of_the_nic_policy_wins_over_the_file_and_the_resource_is_told() {
    let list = read(
        r#"{"resourceList":[
{"resourceName":"all","selectors":{"vendors":["8086"]}}]}"#,
    );
    let mut vfs: Vec<Candidate> = (0..3).map(|i| vf(3, i)).collect();
    vfs[1].bound = Some(Bound::Policy("culvert.io/tenant-a".parse().unwrap()));
    let Assignment { taken, findings: said } = assign(&list, &vfs);
    assert_eq!(taken, [Some((0, 0)), None, Some((0, 0))]);
    assert_eq!(
        findings(&said),
        [
            "line 2 column 1: warning: resource intel.com/all: 1 of its devices, 0000:03:01.1 first, went to culvert.io/tenant-a, a pool of the NIC policy"
        ]
    );
}

#[test]
fn a_device_that_a_pod_holds_stays_where_it_was_given_from() {
    let list = read(
        r#"{"resourceList":[
{"resourceName":"first","selectors":{"vendors":["8086"]}},
{"resourceName":"second","selectors":{"vendors":["15b3"]}}]}"#,
    );
    let mut vfs: Vec<Candidate> = (0..3).map(|i| vf(3, i)).collect();
    // Its selector would not take it any more; the resource of the other is gone.
    vfs[0].bound = Some(Bound::Held("intel.com/second".parse().unwrap()));
    vfs[1].bound = Some(Bound::Held("intel.com/gone".parse().unwrap()));
    let Assignment { taken, findings: said } = assign(&list, &vfs);
    assert_eq!(taken, [Some((1, 0)), None, Some((0, 0))]);
    assert_eq!(said, []);
}

#[test]
fn what_is_said_of_one_device_goes_before_what_is_said_of_all() {
    let list = read(
        r#"{"resourceList":[{"resourceName":"a","selectors":{"vendors":["8086"]},
            "additionalInfo":{"*":{"token":"t-1","lane":"9"},"0000:03:01.A":{"lane":"0"},"0000:03:01.1":{"lane":"1"}}}]}"#,
    );
    let info = |device: &str| list.resources[0].info(pci(device));
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(info("0000:03:01.1"), pairs(&[("lane", "1"), ("token", "t-1")]));
    assert_eq!(info("0000:03:01.2"), pairs(&[("lane", "9"), ("token", "t-1")]));
}
