use std::collections::BTreeMap;
use std::fs;

use culvert_api::value::ResourceName;
use culvert_device_plugin::{Health, Rdma};
use culvert_host::driver;
use culvert_host::fake::{FakeHost, I40E, ICE, IGB, MLX5, Make, vf_address};
use culvert_host::inventory::Inventory;
use tempfile::TempDir;

use super::super::observe::{Observed, ObservedPf};
use super::*;

const ICE_PF: &str = "0000:03:00.0";
const I40E_PF: &str = "0000:05:00.0";
const MLX5_PF: &str = "0000:81:00.0";
const IGB_PF: &str = "0000:07:00.0";

/// A made-up machine, a file, and what happens around them.
struct Node {
    host: FakeHost,
    list: Option<ResourceList>,
    /// DDP packages, by PF.
    ddp: BTreeMap<PciAddress, String>,
    /// Pools of the policy, by device.
    policy: BTreeMap<PciAddress, &'static str>,
    held: Given,
    claimed: BTreeSet<PciAddress>,
    memory: Memory,
    said: Vec<String>,
    dir: TempDir,
}

fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn vf(make: Make, pf: &str, index: u16) -> PciAddress {
    vf_address(make, pci(pf), index)
}

impl Node {
    /// An E810 with eight VFs, an X710 with four, a ConnectX-6 with four, an 82576 without any.
    fn new(resources: &str) -> Self {
        let mut host = FakeHost::new();
        for (make, pf, name, vfs) in [
            (ICE, ICE_PF, "ens3f0", 8),
            (I40E, I40E_PF, "ens5f0", 4),
            (MLX5, MLX5_PF, "ens8np0", 4),
            (IGB, IGB_PF, "eno1", 0),
        ] {
            host.add_pf(make, pci(pf), name, 0);
            host.add_vfs(make, pci(pf), vfs, true);
            host.file(format!("sys/bus/pci/devices/{pf}/net/{name}/type"), "1\n");
        }
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::load(dir.path()).unwrap();
        let (policy, held, claimed) = (BTreeMap::new(), Given::new(), BTreeSet::new());
        let ddp = BTreeMap::new();
        let mut node = Self { host, list: None, ddp, policy, held, claimed, memory, said: Vec::new(), dir };
        node.load(resources);
        node
    }

    /// Another file, of which `resources` is the list.
    fn load(&mut self, resources: &str) {
        let text = format!("{{\"resourceList\":[{resources}]}}");
        self.list = Some(ResourceList::parse(&text, &"intel.com".parse().unwrap()).unwrap());
    }

    fn observed(&self) -> Observed {
        let pf = |pf: culvert_host::inventory::Pf| {
            let elsewhere = pf.vfs.iter().filter(|vf| {
                vf.interface.is_none() && vf.pci.driver.as_deref().is_some_and(|d| !driver::is_userspace(d))
            });
            ObservedPf {
                permanent_mac: None,
                carrier: true,
                eswitch: None,
                error: None,
                claims: Vec::new(),
                settings: BTreeMap::new(),
                users: elsewhere.map(|vf| (vf.index, "somebody".to_owned())).collect(),
                pf,
            }
        };
        let pfs = Inventory::scan(&self.host.root()).unwrap().pfs.into_iter().map(pf).collect();
        Observed { pfs, ..Observed::default() }
    }

    /// Looks at the machine: what is on offer now, by device.
    fn offer(&mut self) -> BTreeMap<PciAddress, Device> {
        let observed = self.observed();
        let facts = Facts::read(&self.host.root(), &observed).unwrap();
        let facts = Facts { ddp: self.ddp.clone(), ..facts };
        let used = |pf: &ObservedPf| {
            let used = pf.pf.vfs.iter().filter(|vf| pf.users.contains_key(&vf.index));
            used.map(|vf| (vf.pci.address, None)).collect::<Given>()
        };
        let mut held: Given = observed.pfs.iter().flat_map(used).collect();
        held.extend(self.held.clone());
        let policy = self
            .policy
            .iter()
            .map(|(pci, pool)| Device { pool: Some(pool.parse().unwrap()), ..Device::new(*pci) });
        let scene = Scene {
            prefix: &"culvert.io".parse().unwrap(),
            observed: &observed,
            facts: &facts,
            policy: policy.collect(),
            carved: &BTreeSet::new(),
            held: &held,
            known: &self.held,
            claimed: &self.claimed,
            list: self.list.as_ref(),
            memory: &self.memory,
        };
        let Offered { devices, remembered, findings } = scene.offer();
        self.memory.replace(remembered).unwrap();
        self.said = findings.iter().map(ToString::to_string).collect();
        devices.into_iter().map(|device| (device.pci, device)).collect()
    }

    /// The devices of a resource.
    fn of(&mut self, resource: &str) -> Vec<PciAddress> {
        let wanted: ResourceName = resource.parse().unwrap();
        let prefix = "culvert.io".parse().unwrap();
        let all = self.offer();
        all.values()
            .filter(|device| device.resource(&prefix).as_ref() == Some(&wanted))
            .map(|d| d.pci)
            .collect()
    }

    /// A pod takes the VF into its network namespace.
    fn give_to_pod(&mut self, vf: PciAddress) {
        self.host.remove_interfaces(vf);
        self.held.insert(vf, None);
    }

    /// The pod ends.
    fn take_back(&mut self, vf: PciAddress) {
        self.held.remove(&vf);
        self.host.add_interface(vf, "back", "02:00:00:00:00:05".parse().unwrap());
    }
}

fn vfs(make: Make, pf: &str, indices: &[u16]) -> Vec<PciAddress> {
    indices.iter().map(|index| vf(make, pf, *index)).collect()
}

#[test]
fn each_selector_takes_what_this_machine_has_of_it() {
    for (selector, expected) in [
        (r#"{"vendors":["15b3"]}"#, vfs(MLX5, MLX5_PF, &[0, 1, 2, 3])),
        (r#"{"devices":["154c"]}"#, vfs(I40E, I40E_PF, &[0, 1, 2, 3])),
        (r#"{"drivers":["mlx5_core"]}"#, vfs(MLX5, MLX5_PF, &[0, 1, 2, 3])),
        (r#"{"pciAddresses":["0000:05:02.1","0000:99:00.0"]}"#, vfs(I40E, I40E_PF, &[1])),
        (r#"{"pfNames":["ens3f0#0-3,5"]}"#, vfs(ICE, ICE_PF, &[0, 1, 2, 3, 5])),
        (
            r#"{"rootDevices":["0000:03:00.0#6-7","0000:81:00.0#1"]}"#,
            [vfs(ICE, ICE_PF, &[6, 7]), vfs(MLX5, MLX5_PF, &[1])].concat(),
        ),
        (r#"{"isRdma":true}"#, vfs(MLX5, MLX5_PF, &[0, 1, 2, 3])),
        (r#"{"linkTypes":["infiniband"]}"#, vec![]),
        (r#"{"linkTypes":["ether"],"vendors":["15b3"],"pfNames":["ens8np0#2"]}"#, vfs(MLX5, MLX5_PF, &[2])),
        (r#"{"vdpaType":"vhost"}"#, vec![]),
        (
            r#"[{"pfNames":["ens3f0#0"]},{"pfNames":["ens5f0#0"]}]"#,
            [vfs(ICE, ICE_PF, &[0]), vfs(I40E, I40E_PF, &[0])].concat(),
        ),
    ] {
        let mut node = Node::new(&format!(r#"{{"resourceName":"x","selectors":{selector}}}"#));
        assert_eq!(node.of("intel.com/x"), expected, "{selector}");
    }
}

#[test]
fn what_firmware_and_fabric_say_is_selected_by() {
    let mut node = Node::new(
        r#"{"resourceName":"onboard","selectors":{"acpiIndexes":["7"]}},
           {"resourceName":"default","selectors":{"ddpProfiles":["ICE OS Default Package"]}},
           {"resourceName":"comms","selectors":{"vendors":["8086"],"ddpProfiles":["ICE COMMS Package"]}},
           {"resourceName":"fabric","selectors":{"linkTypes":["infiniband"],"pKeys":["0x8001"]}}"#,
    );
    node.host.file(format!("sys/bus/pci/devices/{}/acpi_index", vf(I40E, I40E_PF, 2)), "7\n");
    node.host.file(format!("sys/bus/pci/devices/{MLX5_PF}/net/ens8np0/type"), "32\n");
    let member = vf(MLX5, MLX5_PF, 1);
    node.host
        .file(format!("sys/bus/pci/devices/{member}/infiniband/mlx5_1032_1/ports/1/pkeys/0"), "0x8001\n");
    node.ddp.insert(pci(ICE_PF), "ICE COMMS Package".to_owned());
    assert_eq!(node.of("intel.com/comms").len(), 8, "VFs have the package of their PF");
    assert_eq!(node.of("intel.com/default"), []);
    assert_eq!(node.of("intel.com/onboard"), vfs(I40E, I40E_PF, &[2]));
    assert_eq!(node.of("intel.com/fabric"), [member]);
}

#[test]
fn a_pf_is_a_resource_while_it_has_no_vfs_and_the_node_does_not_need_it() {
    let mut node = Node::new(r#"{"resourceName":"pf","selectors":{"drivers":["igb","ice"]}}"#);
    let offered = node.offer();
    let igb = &offered[&pci(IGB_PF)];
    assert_eq!((igb.pf, igb.vf, &igb.health), (None, None, &Health::Healthy));
    assert_eq!(igb.netdev.as_deref(), Some("eno1"));
    assert_eq!(node.of("intel.com/pf"), [pci(IGB_PF)], "a PF with VFs is none");
    node.host.add_vfs(IGB, pci(IGB_PF), 2, true);
    assert_eq!(node.of("intel.com/pf"), []);

    let node = Node::new(r#"{"resourceName":"pf","selectors":{"drivers":["igb"]}}"#);
    let facts = Facts::read(&node.host.root(), &node.observed()).unwrap();
    let count = |claims: &[&str], carved: &[&str]| {
        let mut observed = node.observed();
        observed.pfs.iter_mut().for_each(|pf| pf.claims = claims.iter().map(|c| (*c).to_owned()).collect());
        let scene = Scene {
            prefix: &"culvert.io".parse().unwrap(),
            observed: &observed,
            facts: &facts,
            policy: Vec::new(),
            carved: &carved.iter().map(|pf| pci(pf)).collect(),
            held: &node.held,
            known: &node.held,
            claimed: &node.claimed,
            list: node.list.as_ref(),
            memory: &node.memory,
        };
        scene.offer().devices.len()
    };
    assert_eq!(count(&[], &[]), 1);
    assert_eq!(count(&["the IPv4 default route"], &[]), 0, "the node lives on it");
    assert_eq!(count(&[], &[IGB_PF]), 0, "the policy will give it VFs");
}

#[test]
fn a_vf_handed_to_a_virtual_machine_is_offered_unless_the_machine_lives_on_it() {
    let mut node =
        Node::new(r#"{"resourceName":"vm","selectors":{"pciAddresses":["0000:00:09.0","0000:00:0a.0"]}}"#);
    for (address, name) in [("0000:00:09.0", "eth0"), ("0000:00:0a.0", "eth1")] {
        for (file, text) in [("vendor", "0x8086"), ("device", "0x1889"), ("class", "0x020000")] {
            node.host.file(format!("sys/bus/pci/devices/{address}/{file}"), text);
        }
        node.host.set_driver(pci(address), Some("iavf"));
        node.host.add_interface(pci(address), name, "02:00:00:00:00:09".parse().unwrap());
    }
    node.claimed.insert(pci("0000:00:09.0"));
    assert_eq!(node.of("intel.com/vm"), [pci("0000:00:0a.0")]);
    node.host.remove_interfaces(pci("0000:00:0a.0"));
    let health = &node.offer()[&pci("0000:00:0a.0")].health;
    assert!(
        matches!(health, Health::Unhealthy(why) if why.contains("another network namespace")),
        "{health}"
    );
}

#[test]
fn a_device_brings_what_its_selector_asks_for_and_no_more() {
    let mut node = Node::new(
        r#"{"resourceName":"dpdk","excludeTopology":true,"additionalInfo":{"*":{"token":"t-1"}},
            "selectors":{"pfNames":["ens3f0#0"],"needVhostNet":true}},
           {"resourceName":"rdma","resourcePrefix":"mellanox.com","selectors":{"pfNames":["ens8np0#0"],"isRdma":true}},
           {"resourceName":"plain","resourcePrefix":"mellanox.com","selectors":{"pfNames":["ens8np0#1"]}}"#,
    );
    let dpdk = vf(ICE, ICE_PF, 0);
    node.host.set_driver(dpdk, Some("uio_pci_generic"));
    node.host.file(format!("sys/bus/pci/devices/{dpdk}/uio/uio5/name"), "x\n");
    let device = node.offer().remove(&dpdk).unwrap();
    assert_eq!((device.uio, device.hide_numa, device.extra["token"].as_str()), (Some(5), true, "t-1"));
    assert!(!device.vhost_net, "the machine has no such nodes: a container with them would not start");
    assert!(
        node.said.iter().any(|said| said.contains("intel.com/dpdk: needVhostNet, but this machine has no"))
    );
    node.host.file("dev/vhost-net", "");
    node.host.file("dev/net/tun", "");
    let [rdma, plain] = [0, 1].map(|index| vf(MLX5, MLX5_PF, index));
    node.host.file(format!("sys/bus/pci/devices/{rdma}/infiniband_verbs/uverbs0/dev"), "231:192\n");
    let offered = node.offer();
    assert!(offered[&dpdk].vhost_net && !offered[&rdma].vhost_net);
    let expected = Rdma { devices: vec!["mlx5_1032_0".to_owned()], nodes: vec!["uverbs0".to_owned()] };
    assert_eq!(offered[&rdma].rdma, Some(expected));
    assert_eq!(offered[&plain].rdma, None);
    assert_eq!(
        offered[&rdma].resource(&"culvert.io".parse().unwrap()).unwrap().to_string(),
        "mellanox.com/rdma"
    );
}

#[test]
fn a_vf_in_a_pod_keeps_its_pool_though_its_interface_and_rdma_devices_are_out_of_sight() {
    let mut node = Node::new(r#"{"resourceName":"rdma","selectors":{"linkTypes":["ether"],"isRdma":true}}"#);
    assert_eq!(node.of("intel.com/rdma").len(), 4);
    let given = vf(MLX5, MLX5_PF, 1);
    node.give_to_pod(given);
    fs::remove_dir_all(node.host.root().pci_device(given).join("infiniband")).unwrap();
    // Another agent starts meanwhile.
    node.memory = Memory::load(node.dir.path()).unwrap();
    let offered = node.offer();
    assert_eq!(offered.values().filter(|device| device.pool.is_some()).count(), 4, "no dip");
    assert_eq!((&offered[&given].health, offered[&given].held), (&Health::Healthy, true));
    assert_eq!(offered[&given].rdma.as_ref().unwrap().devices, ["mlx5_1032_1"]);
    // Given back, it is what can be seen of it.
    node.take_back(given);
    assert_eq!(node.of("intel.com/rdma").len(), 3);
}

#[test]
fn a_vf_that_kubelet_gave_away_before_this_agent_knew_it_stays_in_that_resource() {
    let mut node = Node::new(
        r#"{"resourceName":"first","selectors":{"pfNames":["ens3f0#0-3"]}},
           {"resourceName":"second","selectors":{"pfNames":["ens3f0"]}}"#,
    );
    let given = vf(ICE, ICE_PF, 1);
    node.host.remove_interfaces(given);
    node.held.insert(given, Some("intel.com/second".parse().unwrap()));
    assert_eq!(node.of("intel.com/first"), vfs(ICE, ICE_PF, &[0, 2, 3]));
    assert_eq!(node.of("intel.com/second"), vfs(ICE, ICE_PF, &[1, 4, 5, 6, 7]));
}

#[test]
fn a_vf_that_somebody_uses_whom_kubelet_does_not_know_is_unhealthy() {
    let mut node = Node::new(r#"{"resourceName":"x","selectors":{"pfNames":["ens3f0#0-1"]}}"#);
    node.host.remove_interfaces(vf(ICE, ICE_PF, 0));
    node.host.set_driver(vf(ICE, ICE_PF, 1), None);
    let offered = node.offer();
    for (index, reason) in [(0, "it is used by somebody"), (1, "it has no driver")] {
        assert_eq!(offered[&vf(ICE, ICE_PF, index)].health, Health::Unhealthy(reason.to_owned()));
    }
}

#[test]
fn a_pool_of_the_policy_goes_before_the_file_and_that_is_said() {
    let mut node = Node::new(r#"{"resourceName":"x","selectors":{"pfNames":["ens3f0"]}}"#);
    node.policy.insert(vf(ICE, ICE_PF, 2), "tenant-a");
    assert_eq!(node.of("intel.com/x").len(), 7);
    assert_eq!(node.of("culvert.io/tenant-a"), vfs(ICE, ICE_PF, &[2]));
    let expected = "resource intel.com/x: 1 of its devices, 0000:03:01.2 first, went to culvert.io/tenant-a, a pool of the NIC policy";
    assert!(node.said[0].ends_with(expected), "{:?}", node.said);
}

#[test]
fn after_a_reload_devices_leave_one_pool_for_the_other_but_not_out_of_a_pods_hands() {
    let mut node = Node::new(r#"{"resourceName":"a","selectors":{"pfNames":["ens3f0"]}}"#);
    assert_eq!(node.of("intel.com/a").len(), 8);
    node.give_to_pod(vf(ICE, ICE_PF, 5));
    node.load(
        r#"{"resourceName":"a","selectors":{"pfNames":["ens3f0#0-3"]}},
           {"resourceName":"b","selectors":{"pfNames":["ens3f0#4-7"]}}"#,
    );
    assert_eq!(node.of("intel.com/a"), vfs(ICE, ICE_PF, &[0, 1, 2, 3, 5]));
    assert_eq!(node.of("intel.com/b"), vfs(ICE, ICE_PF, &[4, 6, 7]));
    node.take_back(vf(ICE, ICE_PF, 5));
    assert_eq!(node.of("intel.com/b"), vfs(ICE, ICE_PF, &[4, 5, 6, 7]));
}

#[test]
fn a_resource_that_is_gone_leaves_its_devices_to_nobody_while_a_pod_has_them() {
    let mut node = Node::new(r#"{"resourceName":"a","selectors":{"pfNames":["ens3f0#0-1"]}}"#);
    assert_eq!(node.of("intel.com/a").len(), 2);
    node.give_to_pod(vf(ICE, ICE_PF, 0));
    node.load(r#"{"resourceName":"b","selectors":{"pfNames":["ens3f0"]}}"#);
    assert_eq!(node.of("intel.com/b"), vfs(ICE, ICE_PF, &[1, 2, 3, 4, 5, 6, 7]));
    let offered = node.offer();
    assert_eq!(offered[&vf(ICE, ICE_PF, 0)].pool, None, "withdrawn, not lost");
    // Nobody reads the file any more.
    node.list = None;
    assert!(node.offer().values().all(|device| device.pool.is_none()));
}

#[test]
fn a_vf_whose_policy_pool_changes_while_a_pod_has_it_stays_where_it_was_given_from() {
    let mut node = Node::new("");
    let given = vf(ICE, ICE_PF, 0);
    node.policy = BTreeMap::from([(given, "a"), (vf(ICE, ICE_PF, 1), "a")]);
    assert_eq!(node.of("culvert.io/a").len(), 2);
    node.give_to_pod(given);
    node.policy = BTreeMap::from([(given, "b"), (vf(ICE, ICE_PF, 1), "a")]);
    assert_eq!(node.of("culvert.io/a").len(), 2);
    node.take_back(given);
    assert_eq!(node.of("culvert.io/b"), [given]);
}

#[test]
fn a_vf_that_left_the_machine_is_not_withdrawn_but_missing() {
    let mut node = Node::new(r#"{"resourceName":"a","selectors":{"pfNames":["ens5f0"]}}"#);
    assert_eq!(node.of("intel.com/a").len(), 4);
    let root = node.host.root();
    for index in 2..4 {
        fs::remove_file(root.pci_device(pci(I40E_PF)).join(format!("virtfn{index}"))).unwrap();
    }
    let offered = node.offer();
    assert!(!offered.contains_key(&vf(I40E, I40E_PF, 3)), "kubelet is to hear of a loss");
    assert_eq!(offered.values().filter(|device| device.pool.is_some()).count(), 2);
}

#[test]
fn resources_without_devices_and_overlapping_ones_are_named() {
    let mut node = Node::new(
        r#"{"resourceName":"some","selectors":{"pfNames":["ens3f0#0-1"]}},
           {"resourceName":"all","selectors":{"vendors":["8086"],"devices":["1889"]}},
           {"resourceName":"none","selectors":{"vendors":["14e4"]}}"#,
    );
    assert_eq!(node.of("intel.com/all").len(), 6);
    assert_eq!(node.said.len(), 2, "{:?}", node.said);
    assert!(
        node.said[0].contains("intel.com/all: 2 of its devices, 0000:03:01.0 first, went to intel.com/some")
    );
    assert!(node.said[1].contains("intel.com/none: no device of this node is left for it"));
}
