//! Whose a VF is, and what happens to those that nobody seems to have.

use std::sync::Arc;

use culvert_api::config::nic::VfDriver;
use culvert_api::value::VlanId;
use futures::FutureExt as _;
use tempfile::TempDir;

use super::super::super::journal::Journal;
use super::super::super::ledger::Ledger;
use super::super::attacher::Attacher;
use super::world::{Temper, World};
use super::*;

const POD: &str = "/run/netns/pod";

fn machine() -> (World, TempDir, Attacher<World>) {
    let world = World::new(Temper::Obedient, VfDriver::Kernel, true);
    let folder = TempDir::new().unwrap();
    let ledger = Ledger::new(Journal::open(folder.path(), "b").unwrap());
    let agent = Attacher::new(Arc::new(world.clone()), ledger);
    (world, folder, agent)
}

fn request_of(container: &str, owner: &str) -> VfAttach {
    let key = Key { container_id: container.to_owned(), ..request().key };
    VfAttach { key, owner: owner.to_owned(), ..request() }
}

fn lost(device: PciAddress) -> Lost {
    Lost { device, netns: Some(POD.into()) }
}

#[tokio::test]
async fn a_former_owners_del_leaves_the_vf_to_the_pod_that_has_it_now() {
    let (world, _folder, agent) = machine();
    let (old, new) = (request_of("old", "default/old"), request_of("new", "default/new"));
    agent.attach(&world, &old).await.unwrap();
    agent.detach(&world, &old.key, None).await.unwrap();
    world.add_pod("/run/netns/new");
    agent.attach(&world, &VfAttach { netns: "/run/netns/new".into(), ..new.clone() }).await.unwrap();
    let now = (world.settings(vf()), world.link("/run/netns/new", vf()));
    for lost in [None, Some(lost(vf())), Some(Lost { device: vf(), netns: Some("/run/netns/new".into()) })] {
        assert_eq!(agent.detach(&world, &old.key, lost.as_ref()).await.unwrap(), None, "{lost:?}");
        assert_eq!((world.settings(vf()), world.link("/run/netns/new", vf())), now, "{lost:?}");
    }
    assert_eq!(agent.ledger.attachments()[0].owner, "default/new");
    agent.check(&world, &new.key).await.unwrap();
}

#[tokio::test]
async fn a_vf_or_mac_that_is_taken_is_refused_with_the_owners_name() {
    let (world, _folder, agent) = machine();
    let first = request_of("c1", "default/first");
    agent.attach(&world, &first).await.unwrap();
    let second = request_of("c2", "default/second");
    let error = agent.attach(&world, &second).await.unwrap_err();
    assert_eq!(error.to_string(), "device 0000:04:00.0: it is used by default/first");
    let other_vf: PciAddress = "0000:04:00.1".parse().unwrap();
    let error = agent.attach(&world, &VfAttach { device: other_vf, ..second.clone() }).await.unwrap_err();
    assert_eq!(error.to_string(), format!("device {other_vf}: mac {POD_MAC} is that of default/first, too"));
    // Its own MAC may have become another's, too.
    agent.detach(&world, &first.key, None).await.unwrap();
    let thief = VfAttach { settings: own(1_u32.try_into().unwrap()).settings, ..first };
    let error = agent.attach(&world, &thief).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "device 0000:04:00.0: mac 02:00:00:00:01:01 is that of vf 1 of 0000:03:00.0, too"
    );
}

#[tokio::test]
async fn the_neighbours_are_told_of_the_pods_addresses_at_its_mac() {
    let (world, _folder, agent) = machine();
    agent.attach(&world, &request()).await.unwrap();
    let mac: Mac = POD_MAC.parse().unwrap();
    let expected: Vec<_> = request().addresses.into_iter().map(|a| (mac, a)).collect();
    assert_eq!(world.announced(), expected);
}

#[tokio::test]
async fn a_del_of_which_nothing_is_recorded_restores_what_the_pod_left_behind() {
    let (world, folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    // As after the state folder was lost.
    drop(agent);
    std::fs::remove_file(folder.path().join("nic.journal")).unwrap();
    let ledger = Ledger::new(Journal::open(folder.path(), "b").unwrap());
    let agent = Attacher::new(Arc::new(world.clone()), ledger);
    let key = request().key;
    // Without a word of where the VF is, it is somebody's in a namespace of whom nothing is known.
    let elsewhere = Lost { device: vf(), netns: None };
    assert_eq!(agent.detach(&world, &key, Some(&elsewhere)).await.unwrap(), None);
    assert!(world.link(POD, vf()).is_some());
    agent.detach(&world, &key, Some(&lost(vf()))).await.unwrap().expect("is taken back");
    let after = world.snapshot();
    assert_eq!((&after.settings(), &after.drivers()), (&before.settings(), &before.drivers()));
    assert!(agent.ledger.attachments().is_empty());
    // At home, but not as it should be: an ADD of another plugin that ended half-way.
    world.set(vf(), |settings| settings.vlan.id = VlanId::try_from(7).unwrap());
    agent.detach(&world, &key, Some(&lost(vf()))).await.unwrap().expect("is restored");
    assert_eq!(world.snapshot().settings(), before.settings());
    assert_eq!(agent.detach(&world, &key, Some(&lost(vf()))).await.unwrap(), None, "it is as it should be");
}

#[tokio::test]
async fn a_vf_that_a_program_has_open_is_nobodys_to_restore() {
    let (world, _folder, agent) = machine();
    world.take_over(vf(), Some("vfio-pci"), Some("process qemu (pid 7)"));
    assert_eq!(agent.detach(&world, &request().key, Some(&lost(vf()))).await.unwrap(), None);
    assert_eq!(world.driver(vf()), Some("vfio-pci"));
}

#[tokio::test]
async fn a_vf_that_its_pod_gave_to_another_driver_gets_its_own_back_once_nobody_has_it_open() {
    let (world, _folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    world.take_over(vf(), Some("vfio-pci"), Some("process testpmd (pid 7)"));
    let error = agent.detach(&world, &request().key, None).await.unwrap_err().to_string();
    assert!(error.contains("is open in process testpmd (pid 7)"), "{error}");
    assert_eq!(agent.stale(), [request().key]);
    for driver in [Some("vfio-pci"), None] {
        world.take_over(vf(), driver, None);
        agent.detach(&world, &request().key, None).await.unwrap();
        assert_eq!(world.snapshot(), before, "{driver:?}");
        agent.attach(&world, &request()).await.unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_that_died_is_noticed_although_the_agent_keeps_its_namespace() {
    let (world, _folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    assert!(agent.stale().is_empty());
    world.end_pod(POD);
    assert_eq!(agent.stale(), [request().key]);
    assert!(agent.tidy(&world, &request().key).await.unwrap().is_some());
    assert_eq!(world.snapshot(), before);
    assert!(agent.tidy(&world, &request().key).await.unwrap().is_none(), "there is nothing left to tidy");
}

#[tokio::test]
async fn what_a_pod_made_of_its_interface_does_not_come_home_with_it_when_the_kernel_brings_it() {
    let (world, folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    world.meddle(vf(), |link| {
        link.alt_names.push("another".to_owned());
        link.promiscuous = true;
        link.mtu = 1280;
    });
    // The agent is away when the sandbox ends, so nothing keeps the namespace.
    drop(agent);
    world.end_pod(POD);
    let ledger = Ledger::new(Journal::open(folder.path(), "b").unwrap());
    let agent = Attacher::new(Arc::new(world.clone()), ledger);
    agent.tidy(&world, &request().key).await.unwrap().expect("is stale");
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn a_namespace_of_the_same_name_is_another_pods() {
    let (world, _folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    world.end_pod(POD);
    world.add_pod(POD);
    world.add_link(POD, "net1");
    agent.tidy(&world, &request().key).await.unwrap().expect("is stale");
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn an_interface_that_the_pod_has_already_is_not_taken_for_the_vfs() {
    let (world, _folder, agent) = machine();
    let before = world.snapshot();
    world.add_link(POD, "net1");
    let error = chain(&agent.attach(&world, &request()).await.unwrap_err());
    assert_eq!(error, "device 0000:04:00.0: cannot set up its interface in the pod: net1 is taken");
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn a_slow_vf_keeps_nobody_waiting_but_its_own_pods_and_plans() {
    let (world, _folder, agent) = machine();
    let agent = Arc::new(agent);
    let until = world.slow_down("change_vf");
    let slow = {
        let (agent, world) = (Arc::clone(&agent), world.clone());
        tokio::spawn(async move { agent.attach(&world, &request()).await })
    };
    tokio::task::yield_now().await;
    let other: PciAddress = "0000:04:00.1".parse().unwrap();
    world.add_pod("/run/netns/quick");
    let quick = VfAttach {
        device: other,
        netns: "/run/netns/quick".into(),
        settings: VfChange::default(),
        ..request_of("c2", "default/quick")
    };
    // Nothing that belongs to the other VF waits for anything.
    agent.attach(&world, &quick).now_or_never().expect("does not wait").unwrap();
    assert!(agent.check(&world, &quick.key).now_or_never().is_some());
    assert!(agent.alone().now_or_never().is_none(), "a plan waits");
    assert!(agent.detach(&world, &request().key, None).now_or_never().is_none(), "its own DEL waits");
    assert!(
        agent.tidy(&world, &request().key).now_or_never().is_none(),
        "what is being made is not tidied up"
    );
    world.hurry(&until);
    slow.await.unwrap().unwrap();
    assert!(agent.tidy(&world, &request().key).await.unwrap().is_none(), "it is complete");
    let alone = agent.alone().await;
    assert!(agent.detach(&world, &quick.key, None).now_or_never().is_none(), "nothing is done during a plan");
    drop(alone);
}

#[tokio::test]
async fn a_vf_that_nobody_is_known_to_have_is_fetched_from_wherever_it_is_and_another_pods_is_not() {
    let (world, folder, agent) = machine();
    let before = world.snapshot();
    agent.attach(&world, &request()).await.unwrap();
    assert_eq!(agent.retrieve(&world, vf()).await.unwrap(), None, "it is recorded");
    drop(agent);
    std::fs::remove_file(folder.path().join("nic.journal")).unwrap();
    let ledger = Ledger::new(Journal::open(folder.path(), "b").unwrap());
    let agent = Attacher::new(Arc::new(world.clone()), ledger);
    agent.retrieve(&world, vf()).await.unwrap().expect("nobody has it");
    let after = world.snapshot();
    assert_eq!((after.settings(), after.drivers()), (before.settings(), before.drivers()));
    assert_eq!(world.home(vf()).expect("is at home").name, "eth%d", "the kernel makes a free name of it");
    assert!(agent.ledger.attachments().is_empty());
    assert_eq!(agent.retrieve(&world, "0000:ff:00.0".parse().unwrap()).await.unwrap(), None, "no such VF");
}
