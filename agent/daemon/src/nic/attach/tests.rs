//! With veth interfaces in the place of VFs' and real namespaces. Needs root; skipped with a reason otherwise.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_api::config::nic::VfDriver;
use culvert_api::value::VfIndex;
use culvert_host::inventory::Interface;
use culvert_host::netlink::{LinkChange, Netlink, VfSettings, VfVlanTag};
use culvert_host::netns::Netns;
use tempfile::TempDir;

use super::super::journal::Journal;
use super::super::model;
use super::super::observe::Observed;
use super::super::wanted::WantedVf;
use super::*;
use crate::pods::Phase;

const PF: &str = "0000:03:00.0";
const OWN_MAC: &str = "02:00:00:00:01:00";
const POD_MAC: &str = "02:00:00:00:99:01";

/// A named namespace that goes away with the value.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cvnic-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        Self(name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    fn ip(&self, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').collect();
        ip(&[&["-n", self.0.as_str()], &words[..]].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ =
            Command::new("ip").args(["netns", "del", &self.0]).stderr(std::process::Stdio::null()).status();
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// A host whose VF 0 is the veth interface `vf0` of a namespace.
struct Fake {
    host: Namespace,
    netns: Netns,
    netlink: Netlink,
    settings: Mutex<VfSettings>,
    changes: Mutex<Vec<String>>,
    /// Text of a change to refuse.
    refuse: Option<&'static str>,
}

impl Fake {
    fn new() -> Self {
        let host = Namespace::new();
        host.ip(&format!("link add vf0 address {OWN_MAC} type veth peer name wire"));
        host.ip("link set wire up");
        let netns = Netns::open(host.path()).unwrap();
        let netlink = Netlink::open_in(&netns).unwrap();
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 1);
        let mut settings = pf.settings.remove(&VfIndex::MIN).unwrap();
        settings.mac = Some(OWN_MAC.parse().unwrap());
        Self { host, netns, netlink, settings: Mutex::new(settings), changes: Mutex::default(), refuse: None }
    }

    async fn observed(&self) -> Observed {
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 1);
        pf.settings.insert(VfIndex::MIN, self.settings.lock().unwrap().clone());
        pf.pf.vfs[0].interface = self.interface(self.vf()).await.unwrap();
        Observed { pfs: vec![pf], ..Observed::default() }
    }

    fn vf(&self) -> PciAddress {
        "0000:04:00.0".parse().unwrap()
    }

    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

impl VfOps for Fake {
    fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    fn netns(&self) -> &Netns {
        &self.netns
    }

    async fn interface(&self, _: PciAddress) -> Result<Option<Interface>, MachineError> {
        let found = self.netlink.links().await?.into_iter().find(|l| l.name != "wire" && l.name != "lo");
        Ok(found.map(|l| Interface {
            name: l.name,
            index: l.index,
            mac: l.mac,
            mtu: l.mtu,
            up: l.up,
            operstate: "unknown".to_owned(),
        }))
    }

    async fn await_interface(&self, vf: PciAddress) -> Result<Interface, MachineError> {
        self.interface(vf).await?.ok_or(MachineError::NoInterface(vf))
    }

    async fn change_vf(&self, _: u32, _: VfIndex, change: &VfChange) -> Result<(), MachineError> {
        if self.refuse == Some(change.to_string().as_str()) {
            return Err(MachineError::Model("refused".to_owned()));
        }
        self.changes.lock().unwrap().push(change.to_string());
        let mut settings = self.settings.lock().unwrap();
        settings.mac = change.mac.or(settings.mac);
        settings.vlan = change.vlan.unwrap_or(settings.vlan);
        Ok(())
    }

    async fn bind(&self, vf: PciAddress, driver: VfDriver) -> Result<(), MachineError> {
        assert_eq!(driver, VfDriver::Kernel);
        self.changes.lock().unwrap().push("bind".to_owned());
        if self.interface(vf).await?.is_none() {
            self.host.ip("link del wire");
            self.host.ip("link add vf0 type veth peer name wire");
        }
        let index = self.await_interface(vf).await?.index;
        let mac = self.settings.lock().unwrap().mac;
        Ok(self.netlink.change_link(index, &LinkChange { mac, ..LinkChange::default() }).await?)
    }
}

/// Host, pod and journal, if this can run at all.
struct Bench {
    fake: Fake,
    pod: Namespace,
    folder: TempDir,
    journal: Journal,
}

impl Bench {
    fn new() -> Option<Self> {
        if !nix_is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let journal = Journal::open(folder.path(), "b").unwrap();
        Some(Self { fake: Fake::new(), pod: Namespace::new(), folder, journal })
    }

    fn request(&self) -> VfAttach {
        let vlan = VfVlanTag { id: 100.try_into().unwrap(), ..VfVlanTag::default() };
        VfAttach {
            key: Key { container_id: "c1".to_owned(), ifname: "net1".parse().unwrap() },
            network: "vlan100".to_owned(),
            owner: "default/web".to_owned(),
            device: self.fake.vf(),
            netns: self.pod.path(),
            settings: VfChange {
                mac: Some(POD_MAC.parse().unwrap()),
                vlan: Some(vlan),
                ..VfChange::default()
            },
            mtu: Some(1400.try_into().unwrap()),
            addresses: vec!["10.9.0.5/24".parse().unwrap(), "fd09::5/64".parse().unwrap()],
            routes: vec![("0.0.0.0/0".parse().unwrap(), Some("10.9.0.1".parse().unwrap()))],
        }
    }

    async fn attach(&mut self, request: &VfAttach) -> Result<VfAttached, AttachError> {
        let observed = self.fake.observed().await;
        make(&self.fake, &mut self.journal, &observed, Some(&own()), request).await
    }

    async fn address(&mut self, request: &VfAttach) -> Result<VfAttached, AttachError> {
        let (observed, VfAttach { key, addresses, routes, .. }) = (self.fake.observed().await, request);
        address(&self.fake, &mut self.journal, &observed, Some(&own()), key, addresses, routes).await
    }

    async fn detach(&mut self) -> Result<(), ReleaseError> {
        let observed = self.fake.observed().await;
        let key = self.request().key;
        release(&self.fake, &mut self.journal, &observed, Some(&own()), &key).await
    }

    async fn check(&self) -> Vec<String> {
        let attachment = &self.journal.state().attachments[&self.request().key];
        check(&self.fake.observed().await, Some(&own()), attachment).await
    }

    /// The VF is the host's again, as it was.
    async fn assert_home(&self) {
        let home = self.fake.interface(self.fake.vf()).await.unwrap().expect("is at home");
        assert_eq!((home.name.as_str(), home.mtu, home.up), ("vf0", 1500, false));
        assert_eq!(home.mac, Some(OWN_MAC.parse().unwrap()));
        let settings = self.fake.settings.lock().unwrap().clone();
        assert_eq!((settings.mac, settings.vlan), (home.mac, VfVlanTag::default()));
        assert!(self.journal.state().attachments.is_empty());
        assert!(Journal::open(self.folder.path(), "b").unwrap().state().attachments.is_empty());
    }
}

fn nix_is_root() -> bool {
    // Only root may read this.
    std::fs::File::open("/proc/1/environ").is_ok()
}

/// What the VF is of its own.
fn own() -> WantedVf {
    WantedVf {
        index: VfIndex::MIN,
        settings: VfChange {
            mac: Some(OWN_MAC.parse().unwrap()),
            vlan: Some(VfVlanTag::default()),
            ..VfChange::default()
        },
        mtu: None,
        driver: VfDriver::Kernel,
        pool: None,
    }
}

#[tokio::test]
async fn a_pod_gets_its_vf_with_everything_it_asked_for_and_gives_it_back_as_it_was() {
    let Some(mut bench) = Bench::new() else { return };
    let request = bench.request();
    let attached = bench.attach(&request).await.unwrap();
    assert_eq!(attached.mac, Some(POD_MAC.parse().unwrap()));
    assert_eq!(attached.interface.unwrap().mtu, 1400);
    assert_eq!(bench.fake.changes(), [format!("set mac {POD_MAC}, vlan 100")], "one message");

    let inside = Netlink::open_in(&Netns::open(bench.pod.path()).unwrap()).unwrap();
    let link = inside.link_by_name("net1").await.unwrap().expect("is in the pod");
    assert_eq!((link.mtu, link.up, link.mac), (1400, true, Some(POD_MAC.parse().unwrap())));
    let addresses = inside.addresses().await.unwrap();
    assert!(request.addresses.iter().all(|a| addresses.contains(&(link.index, *a))), "{addresses:?}");
    let routes = inside.routes().await.unwrap();
    assert!(routes.iter().any(|r| r.is_default() && r.gateway == request.routes[0].1), "{routes:?}");
    let arp_notify = Netns::open(bench.pod.path())
        .unwrap()
        .run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/net1/arp_notify").unwrap());
    assert_eq!(arp_notify.unwrap().trim(), "1");
    assert_eq!(bench.check().await, Vec::<String>::new());
    let after_restart = Journal::open(bench.folder.path(), "b").unwrap();
    assert_eq!(after_restart.state().attachments[&request.key].phase, Phase::Attached);

    bench.detach().await.unwrap();
    bench.assert_home().await;
    bench.detach().await.expect("a second DEL is no error");
}

#[tokio::test]
async fn what_a_pod_did_to_its_interface_does_not_stay() {
    let Some(mut bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    for command in [
        "set net1 promisc on",
        "set net1 allmulticast on",
        "set net1 down",
        "set net1 name other",
        "set other up",
    ] {
        bench.pod.ip(&format!("link {command}"));
    }
    // Without IFLA_PARENT_DEV_NAME, which veth does not have, the interface is only known by its name.
    bench.pod.ip("link set other down");
    bench.pod.ip("link set other name net1");
    bench.detach().await.unwrap();
    bench.assert_home().await;
    let home = bench.fake.netlink.link_by_name("vf0").await.unwrap().unwrap();
    assert!(!home.promiscuous && !home.all_multicast);
}

#[tokio::test]
async fn check_names_everything_that_is_not_as_it_should_be() {
    let Some(mut bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    bench.pod.ip("link set net1 down");
    bench.pod.ip("link set net1 mtu 1399 address 02:00:00:00:00:66");
    bench.pod.ip("addr del 10.9.0.5/24 dev net1");
    bench.fake.settings.lock().unwrap().vlan = VfVlanTag::default();
    let problems = bench.check().await.join("\n");
    for text in [
        "to do: set vlan 100",
        "has mac 02:00:00:00:00:66, not 02:00:00:00:99:01",
        "has mtu 1399, not 1400",
        "interface net1 is down",
        "does not have address 10.9.0.5/24",
    ] {
        assert!(problems.contains(text), "{text}: {problems}");
    }
    bench.pod.ip("link set net1 name gone");
    assert!(bench.check().await.iter().any(|p| p == "interface net1 is gone"));
}

#[tokio::test]
async fn whatever_fails_everything_is_undone_and_the_error_says_what_failed() {
    let Some(mut bench) = Bench::new() else { return };

    bench.pod.ip("link add net1 type veth peer name x");
    let error = chain(&bench.attach(&bench.request()).await.unwrap_err());
    assert!(error.contains("device 0000:04:00.0: cannot set up its interface in the pod"), "{error}");
    assert!(error.contains("cannot set name net1") && error.contains("File exists"), "{error}");
    bench.assert_home().await;
    bench.pod.ip("link del net1");

    let mut request = bench.request();
    request.routes.push(("10.77.0.0/16".parse().unwrap(), Some("192.168.7.1".parse().unwrap())));
    let error = chain(&bench.attach(&request).await.unwrap_err());
    assert!(error.contains("cannot add route 10.77.0.0/16 via 192.168.7.1"), "{error}");
    bench.assert_home().await;

    bench.fake.refuse = Some("set mac 02:00:00:00:99:01, vlan 100");
    let error = chain(&bench.attach(&bench.request()).await.unwrap_err());
    assert_eq!(error, "device 0000:04:00.0: cannot set it up at its PF: refused");
    bench.assert_home().await;

    bench.fake.refuse = None;
    bench.attach(&bench.request()).await.expect("after all that it works");
}

#[tokio::test]
async fn what_cannot_be_undone_is_said_stays_recorded_and_is_done_later() {
    let Some(mut bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    bench.fake.refuse = Some("set mac 02:00:00:00:01:00, vlan 0");
    let error = bench.detach().await.unwrap_err().to_string();
    assert_eq!(error, "device 0000:04:00.0: cannot be taken back yet: refused");
    let again = Journal::open(bench.folder.path(), "b").unwrap();
    assert_eq!(again.state().attachments[&bench.request().key].phase, Phase::Detaching);
    bench.fake.refuse = None;
    bench.detach().await.unwrap();
    bench.assert_home().await;
}

#[tokio::test]
async fn a_vf_that_is_taken_a_mac_that_is_taken_and_bad_namespaces_are_refused_before_anything_is_done() {
    let Some(mut bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    bench.fake.changes();
    let refuse = |error: AttachError| error.to_string();

    let mut other = bench.request();
    other.key.container_id = "c2".to_owned();
    assert_eq!(
        refuse(bench.attach(&other).await.unwrap_err()),
        "device 0000:04:00.0: it is used by default/web"
    );
    let twice = bench.request();
    assert_eq!(
        refuse(bench.attach(&twice).await.unwrap_err()),
        "interface net1 of container c1: is attached already, to device 0000:04:00.0"
    );
    bench.detach().await.unwrap();
    bench.fake.changes();

    let mut missing = bench.request();
    missing.netns = "/run/netns/cvnic-no-such".into();
    let error = chain(&bench.attach(&missing).await.unwrap_err());
    assert!(error.contains("cannot open network namespace /run/netns/cvnic-no-such"), "{error}");
    let mut own_netns = bench.request();
    own_netns.netns = bench.fake.host.path();
    assert!(refuse(bench.attach(&own_netns).await.unwrap_err()).contains("is the host's own"));
    let mut no_vf = bench.request();
    no_vf.device = PF.parse().unwrap();
    assert!(refuse(bench.attach(&no_vf).await.unwrap_err()).contains("no VF of this machine"));

    let mut observed = bench.fake.observed().await;
    observed.other_macs.insert(POD_MAC.parse().unwrap(), "eno1".to_owned());
    let request = bench.request();
    let taken = make(&bench.fake, &mut bench.journal, &observed, Some(&own()), &request).await;
    assert_eq!(
        refuse(taken.unwrap_err()),
        format!("device 0000:04:00.0: mac {POD_MAC} is that of eno1, too")
    );

    assert_eq!(bench.fake.changes(), Vec::<String>::new());
    bench.assert_home().await;
}

#[tokio::test]
async fn a_pod_that_is_gone_is_an_orphan_and_its_vf_comes_back() {
    let Some(mut bench) = Bench::new() else { return };
    let request = bench.request();
    bench.attach(&request).await.unwrap();
    let attachment = bench.journal.state().attachments[&request.key].clone();
    assert!(!is_orphan(&attachment));
    // Another namespace under the same path is not the pod's.
    ip(&["netns", "del", &bench.pod.0]);
    assert!(is_orphan(&attachment));
    ip(&["netns", "add", &bench.pod.0]);
    assert!(is_orphan(&attachment));
    // A veth interface ends with its namespace; the driver makes a new one, as for a VF that is nowhere to be found.
    bench.detach().await.unwrap();
    bench.assert_home().await;
}

#[tokio::test]
async fn a_vf_of_no_policy_gets_back_what_it_had_before() {
    let Some(mut bench) = Bench::new() else { return };
    let (observed, request) = (bench.fake.observed().await, bench.request());
    make(&bench.fake, &mut bench.journal, &observed, None, &request).await.unwrap();
    let observed = bench.fake.observed().await;
    release(&bench.fake, &mut bench.journal, &observed, None, &request.key).await.unwrap();
    bench.assert_home().await;
}

#[tokio::test]
async fn a_vf_under_vfio_is_only_set_up_at_its_pf() {
    let Some(mut bench) = Bench::new() else { return };
    let request = bench.request();
    let mut observed = bench.fake.observed().await;
    observed.pfs[0].pf.vfs[0].pci.driver = Some("vfio-pci".to_owned());
    observed.pfs[0].pf.vfs[0].interface = None;
    let attached = make(&bench.fake, &mut bench.journal, &observed, Some(&own()), &request).await.unwrap();
    assert_eq!((attached.mac, attached.interface), (request.settings.mac, None));
    observed.pfs[0].settings.insert(VfIndex::MIN, bench.fake.settings.lock().unwrap().clone());
    release(&bench.fake, &mut bench.journal, &observed, Some(&own()), &request.key).await.unwrap();
    let sets = [format!("set mac {POD_MAC}, vlan 100"), format!("set mac {OWN_MAC}, vlan 0")];
    assert_eq!(bench.fake.changes(), sets);
    bench.assert_home().await;
}

#[tokio::test]
async fn addresses_that_are_known_late_are_given_to_the_interface_that_is_up_already() {
    let Some(mut bench) = Bench::new() else { return };
    let late = bench.request();
    bench.attach(&VfAttach { addresses: Vec::new(), routes: Vec::new(), ..late.clone() }).await.unwrap();
    let addressed = bench.address(&late).await.unwrap();
    assert_eq!(addressed.mac, Some(POD_MAC.parse().unwrap()));
    assert_eq!(addressed.interface.unwrap().mtu, 1400);
    let inside = Netlink::open_in(&Netns::open(bench.pod.path()).unwrap()).unwrap();
    let routes = inside.routes().await.unwrap();
    assert!(routes.iter().any(|r| r.is_default() && r.gateway == late.routes[0].1), "{routes:?}");
    let recorded = bench.journal.state().attachments[&late.key].interface.clone().unwrap().addresses;
    assert_eq!(recorded, late.addresses);
    assert_eq!(bench.check().await, Vec::<String>::new(), "the interface has what the record says");
}

#[tokio::test]
async fn addresses_that_cannot_be_given_undo_the_attachment_and_there_must_be_one() {
    let Some(mut bench) = Bench::new() else { return };
    let unreachable = ("10.8.0.0/16".parse().unwrap(), Some("192.0.2.1".parse().unwrap()));
    let request = VfAttach { routes: vec![unreachable], ..bench.request() };
    bench.attach(&VfAttach { addresses: Vec::new(), routes: Vec::new(), ..request.clone() }).await.unwrap();
    for expected in
        ["cannot give its interface the addresses", "interface net1 of container c1: is not attached"]
    {
        let error = bench.address(&request).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        bench.assert_home().await;
    }
}
