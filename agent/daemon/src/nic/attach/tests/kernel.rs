//! With veth interfaces in the place of VFs' and real namespaces. Needs root; skipped with a reason otherwise.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::VfIndex;
use culvert_host::inventory::Interface;
use culvert_host::netlink::{LinkChange, Netlink, VfSettings, VfVlanTag};
use culvert_host::netns::{Netns, NetnsId, visible};
use tempfile::TempDir;

use super::super::super::journal::Journal;
use super::super::super::ledger::Ledger;
use super::super::super::model;
use super::super::super::observe::{ObserveError, Observed};
use super::super::machine::Namespace;
use super::super::ops::{Net, VfOps};
use super::super::*;
use super::{OWN_MAC, PF, POD_MAC, own, request};
use crate::pods::Phase;

/// A named namespace that goes away with the value.
struct Named(String);

impl Named {
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

impl Drop for Named {
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
    host: Named,
    namespace: Namespace,
    settings: Mutex<VfSettings>,
    changes: Mutex<Vec<String>>,
    /// MACs of other devices of the machine.
    other_macs: Mutex<BTreeMap<Mac, String>>,
    /// Text of a change to refuse.
    refuse: Mutex<Option<&'static str>>,
}

impl Fake {
    fn new() -> Self {
        let host = Named::new();
        host.ip(&format!("link add vf0 address {OWN_MAC} type veth peer name wire"));
        host.ip("link set wire up");
        let namespace = Namespace::enter(&Arc::new(Netns::open(host.path()).unwrap())).unwrap();
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 1);
        let mut settings = pf.settings.remove(&VfIndex::MIN).unwrap();
        settings.mac = Some(OWN_MAC.parse().unwrap());
        Self {
            host,
            namespace,
            settings: Mutex::new(settings),
            changes: Mutex::default(),
            other_macs: Mutex::default(),
            refuse: Mutex::default(),
        }
    }

    async fn observed(&self) -> Observed {
        let mut pf = model::pf(PF, 7);
        model::create_vfs(&mut pf, 1);
        pf.settings.insert(VfIndex::MIN, self.settings.lock().unwrap().clone());
        pf.pf.vfs[0].interface = self.interface(super::vf()).await.unwrap();
        Observed { pfs: vec![pf], other_macs: self.other_macs.lock().unwrap().clone() }
    }

    fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

impl VfOps for Fake {
    type Netns = Netns;
    type Net = Namespace;

    fn host(&self) -> &Namespace {
        &self.namespace
    }

    fn open(&self, path: &Path) -> Result<Option<Arc<Netns>>, MachineError> {
        match Netns::open(path) {
            Ok(netns) => Ok(Some(Arc::new(netns))),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn id(&self, netns: &Netns) -> Result<NetnsId, MachineError> {
        Ok(netns.id()?)
    }

    async fn find(&self, id: NetnsId) -> Option<Arc<Netns>> {
        visible().into_iter().find(|v| v.id == id).map(|v| Arc::new(v.netns))
    }

    fn enter(&self, netns: &Arc<Netns>) -> Result<Namespace, MachineError> {
        Namespace::enter(netns)
    }

    async fn locate(&self, _: PciAddress) -> Option<Arc<Netns>> {
        // The kernel does not tell whose a veth interface is.
        None
    }

    async fn interface(&self, _: PciAddress) -> Result<Option<Interface>, MachineError> {
        let found = self.namespace.links().await?.into_iter().find(|l| l.name != "wire" && l.name != "lo");
        Ok(found.map(|l| Interface {
            name: l.name,
            index: l.index,
            mac: l.mac,
            mtu: l.mtu,
            up: l.up,
            operstate: "unknown".to_owned(),
        }))
    }

    async fn await_interface(&self, vf: PciAddress, _: Duration) -> Result<Option<Interface>, MachineError> {
        self.interface(vf).await
    }

    async fn driver(&self, _: PciAddress) -> Result<Option<String>, MachineError> {
        Ok(Some("igbvf".to_owned()))
    }

    async fn vfio_user(&self, _: PciAddress) -> Result<Option<String>, MachineError> {
        Ok(None)
    }

    async fn bind(&self, vf: PciAddress, driver: VfDriver) -> Result<(), MachineError> {
        assert_eq!(driver, VfDriver::Kernel);
        self.changes.lock().unwrap().push("bind".to_owned());
        if self.interface(vf).await?.is_none() {
            self.host.ip("link del wire");
            self.host.ip("link add vf0 type veth peer name wire");
        }
        let index = self.interface(vf).await?.unwrap().index;
        let mac = self.settings.lock().unwrap().mac;
        self.namespace.change_link(index, &LinkChange { mac, ..LinkChange::default() }).await
    }

    async fn vf_settings(&self, _: u32, _: VfIndex) -> Result<Option<VfSettings>, MachineError> {
        Ok(Some(self.settings.lock().unwrap().clone()))
    }

    async fn change_vf(&self, _: u32, _: VfIndex, change: &VfChange) -> Result<(), MachineError> {
        if *self.refuse.lock().unwrap() == Some(change.to_string().as_str()) {
            return Err(MachineError::Model("refused".to_owned()));
        }
        self.changes.lock().unwrap().push(change.to_string());
        let mut settings = self.settings.lock().unwrap();
        settings.mac = change.mac.or(settings.mac);
        settings.vlan = change.vlan.unwrap_or(settings.vlan);
        Ok(())
    }
}

/// What the policy says, and what there is.
struct Eyes<'a>(&'a Fake);

impl Sight for Eyes<'_> {
    async fn look(&self, _: PciAddress) -> Result<View, ObserveError> {
        Ok(View { observed: self.0.observed().await, base: Some(own(VfIndex::MIN)) })
    }
}

/// Host, pod and journal, if this can run at all.
struct Bench {
    fake: Arc<Fake>,
    pod: Named,
    folder: TempDir,
    attacher: Attacher<Fake>,
}

impl Bench {
    fn new() -> Option<Self> {
        if !nix_is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let ledger = Ledger::new(Journal::open(folder.path(), "b").unwrap());
        let fake = Arc::new(Fake::new());
        Some(Self { attacher: Attacher::new(Arc::clone(&fake), ledger), fake, pod: Named::new(), folder })
    }

    fn request(&self) -> VfAttach {
        VfAttach { netns: self.pod.path(), ..request() }
    }

    async fn attach(&self, request: &VfAttach) -> Result<VfAttached, AttachError> {
        self.attacher.attach(&Eyes(&self.fake), request).await
    }

    async fn address(&self, late: &VfAttach) -> Result<VfAttached, AttachError> {
        self.attacher.address(&Eyes(&self.fake), &late.key, &late.addresses, &late.routes).await
    }

    async fn detach(&self) -> Result<(), ReleaseError> {
        self.attacher.detach(&Eyes(&self.fake), &self.request().key, None).await.map(drop)
    }

    async fn check(&self) -> String {
        match self.attacher.check(&Eyes(&self.fake), &self.request().key).await {
            Ok(()) => String::new(),
            Err(e) => e.to_string(),
        }
    }

    /// The VF is the host's again, as it was.
    async fn assert_home(&self) {
        let home = self.fake.interface(super::vf()).await.unwrap().expect("is at home");
        assert_eq!((home.name.as_str(), home.mtu, home.up), ("vf0", 1500, false));
        assert_eq!(home.mac, Some(OWN_MAC.parse().unwrap()));
        let settings = self.fake.settings.lock().unwrap().clone();
        assert_eq!((settings.mac, settings.vlan), (home.mac, VfVlanTag::default()));
        assert!(self.attacher.ledger.attachments().is_empty());
        assert!(Journal::open(self.folder.path(), "b").unwrap().state().attachments.is_empty());
    }
}

fn nix_is_root() -> bool {
    // Only root may read this.
    std::fs::File::open("/proc/1/environ").is_ok()
}

#[tokio::test]
async fn a_pod_gets_its_vf_with_everything_it_asked_for_and_gives_it_back_as_it_was() {
    let Some(bench) = Bench::new() else { return };
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
    assert_eq!(bench.check().await, "");
    let after_restart = Journal::open(bench.folder.path(), "b").unwrap();
    assert_eq!(after_restart.state().attachments[&request.key].phase, Phase::Attached);

    bench.detach().await.unwrap();
    bench.assert_home().await;
    bench.detach().await.expect("a second DEL is no error");
}

#[tokio::test]
async fn what_a_pod_did_to_its_interface_does_not_stay() {
    let Some(bench) = Bench::new() else { return };
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
    let home = bench.fake.namespace.links().await.unwrap().into_iter().find(|l| l.name == "vf0").unwrap();
    assert!(!home.promiscuous && !home.all_multicast);
}

#[tokio::test]
async fn check_names_everything_that_is_not_as_it_should_be() {
    let Some(bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    bench.pod.ip("link set net1 down");
    bench.pod.ip("link set net1 mtu 1399 address 02:00:00:00:00:66");
    bench.pod.ip("addr del 10.9.0.5/24 dev net1");
    bench.fake.settings.lock().unwrap().vlan = VfVlanTag::default();
    let problems = bench.check().await;
    for text in [
        "to do: set vlan 100",
        "has mac 02:00:00:00:00:66, not 02:00:00:00:99:01",
        "has mtu 1399, not 1400",
        "interface net1 is down",
        "does not have address 10.9.0.5/24",
        "does not have route 0.0.0.0/0 via 10.9.0.1",
    ] {
        assert!(problems.contains(text), "{text}: {problems}");
    }
    bench.pod.ip("link set net1 name gone");
    assert!(bench.check().await.contains("interface net1 is gone"));
}

#[tokio::test]
async fn whatever_fails_everything_is_undone_and_the_error_says_what_failed() {
    let Some(bench) = Bench::new() else { return };

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

    *bench.fake.refuse.lock().unwrap() = Some("set mac 02:00:00:00:99:01, vlan 100");
    let error = chain(&bench.attach(&bench.request()).await.unwrap_err());
    assert_eq!(error, "device 0000:04:00.0: cannot set it up at its PF: refused");
    bench.assert_home().await;

    *bench.fake.refuse.lock().unwrap() = None;
    bench.attach(&bench.request()).await.expect("after all that it works");
}

#[tokio::test]
async fn what_cannot_be_undone_is_said_stays_recorded_and_is_done_later() {
    let Some(bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    *bench.fake.refuse.lock().unwrap() = Some("set mac 02:00:00:00:01:00, vlan 0");
    let error = bench.detach().await.unwrap_err().to_string();
    assert_eq!(error, "device 0000:04:00.0: cannot be taken back yet: refused");
    let again = Journal::open(bench.folder.path(), "b").unwrap();
    assert_eq!(again.state().attachments[&bench.request().key].phase, Phase::Detaching);
    *bench.fake.refuse.lock().unwrap() = None;
    bench.detach().await.unwrap();
    bench.assert_home().await;
}

#[tokio::test]
async fn a_vf_that_is_taken_a_mac_that_is_taken_and_bad_namespaces_are_refused_before_anything_is_done() {
    let Some(bench) = Bench::new() else { return };
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
    assert!(error.contains("network namespace /run/netns/cvnic-no-such: does not exist"), "{error}");
    let mut own_netns = bench.request();
    own_netns.netns = bench.fake.host.path();
    assert!(refuse(bench.attach(&own_netns).await.unwrap_err()).contains("is the host's own"));
    let mut no_vf = bench.request();
    no_vf.device = PF.parse().unwrap();
    assert!(refuse(bench.attach(&no_vf).await.unwrap_err()).contains("no VF of this machine"));

    bench.fake.other_macs.lock().unwrap().insert(POD_MAC.parse().unwrap(), "eno1".to_owned());
    let taken = bench.attach(&bench.request()).await;
    assert_eq!(
        refuse(taken.unwrap_err()),
        format!("device 0000:04:00.0: mac {POD_MAC} is that of eno1, too")
    );

    assert_eq!(bench.fake.changes(), Vec::<String>::new());
    bench.assert_home().await;
}

#[tokio::test]
async fn a_pod_that_is_gone_is_an_orphan_and_its_vf_comes_back() {
    let Some(bench) = Bench::new() else { return };
    let request = bench.request();
    bench.attach(&request).await.unwrap();
    let attachment = bench.attacher.ledger.attachment(&request.key).unwrap();
    assert!(!bench.attacher.is_orphan(&attachment));
    // Another namespace under the same path is not the pod's.
    ip(&["netns", "del", &bench.pod.0]);
    assert!(bench.attacher.is_orphan(&attachment));
    ip(&["netns", "add", &bench.pod.0]);
    assert!(bench.attacher.is_orphan(&attachment));
    // The agent keeps the namespace: the interface is fetched from it, not made anew.
    bench.detach().await.unwrap();
    assert!(!bench.fake.changes().contains(&"bind".to_owned()));
    bench.assert_home().await;
}

#[tokio::test]
async fn addresses_that_are_known_late_are_given_to_the_interface_that_is_up_already() {
    let Some(bench) = Bench::new() else { return };
    let late = bench.request();
    bench.attach(&VfAttach { addresses: Vec::new(), routes: Vec::new(), ..late.clone() }).await.unwrap();
    let addressed = bench.address(&late).await.unwrap();
    assert_eq!(addressed.mac, Some(POD_MAC.parse().unwrap()));
    assert_eq!(addressed.interface.unwrap().mtu, 1400);
    let inside = Netlink::open_in(&Netns::open(bench.pod.path()).unwrap()).unwrap();
    let routes = inside.routes().await.unwrap();
    assert!(routes.iter().any(|r| r.is_default() && r.gateway == late.routes[0].1), "{routes:?}");
    let recorded = bench.attacher.ledger.attachment(&late.key).unwrap().interface.unwrap().addresses;
    assert_eq!(recorded, late.addresses);
    assert_eq!(bench.check().await, "", "the interface has what the record says");
}

#[tokio::test]
async fn addresses_that_cannot_be_given_undo_the_attachment_and_there_must_be_one() {
    let Some(bench) = Bench::new() else { return };
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

#[tokio::test]
async fn a_namespace_that_only_an_open_file_keeps_gives_its_vf_back_even_to_an_agent_that_was_restarted() {
    let Some(bench) = Bench::new() else { return };
    bench.attach(&bench.request()).await.unwrap();
    let _held = Netns::open(bench.pod.path()).unwrap();
    ip(&["netns", "del", &bench.pod.0]);
    let journal = Journal::open(bench.folder.path(), "b").unwrap();
    let restarted = Attacher::new(Arc::clone(&bench.fake), Ledger::new(journal));
    let key = bench.request().key;
    assert_eq!(restarted.stale(), std::slice::from_ref(&key));
    restarted.tidy(&Eyes(&bench.fake), &key).await.unwrap().expect("was stale");
    assert!(!bench.fake.changes().contains(&"bind".to_owned()), "it was found, not made anew");
    let home = bench.fake.interface(super::vf()).await.unwrap().expect("is at home");
    assert_eq!((home.name.as_str(), home.mac), ("vf0", Some(OWN_MAC.parse().unwrap())));
}
