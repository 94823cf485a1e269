//! Every operation fails in turn, or is the last thing that the program does.

use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::nic::VfDriver;
use culvert_host::netlink::Link;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::timeout;

use super::super::super::attachment::Attachment;
use super::super::super::journal::Journal;
use super::super::super::ledger::Ledger;
use super::super::attacher::Attacher;
use super::world::{FAULTS, Fault, Snapshot, Temper, World};
use super::*;

/// An agent on a machine, that can be killed and started again.
struct Bench {
    world: World,
    folder: TempDir,
    agent: Attacher<World>,
    before: Snapshot,
}

impl Bench {
    fn new(temper: Temper, driver: VfDriver, policy: bool) -> Self {
        let world = World::new(temper, driver, policy);
        // In memory, where there is such a folder: thousands of records are synced.
        let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let (agent, before) = (agent(&world, &folder), world.snapshot());
        Self { world, folder, agent, before }
    }

    /// `work`, or `None` if the program ended meanwhile; it was started again then, and has tidied up.
    async fn survives<T>(&mut self, work: impl AsyncFnOnce(&Attacher<World>, &World) -> T) -> Option<T> {
        // Time only passes when nothing else can be done.
        let done = timeout(Duration::from_secs(3600), work(&self.agent, &self.world)).await.ok();
        let done = done.filter(|_| !self.world.is_killed());
        if done.is_none() {
            self.world.mend();
            self.agent = agent(&self.world, &self.folder);
            self.agent.keep_namespaces().await;
            for key in self.agent.stale() {
                self.agent.tidy(&self.world, &key).await.expect("nothing is wrong any more");
            }
        }
        done
    }

    async fn attach(&mut self) -> Option<Result<VfAttached, AttachError>> {
        self.survives(async |agent, world| agent.attach(world, &request()).await).await
    }

    async fn detach(&mut self) -> Option<Result<Option<Attachment>, ReleaseError>> {
        self.survives(async |agent, world| agent.detach(world, &request().key, None).await).await
    }

    /// Everything is as it was before there was a pod, on disk as well.
    fn assert_clean(&self, context: &str) {
        assert_eq!(self.world.snapshot(), self.before, "{context}");
        let journal = Journal::open(self.folder.path(), "b").unwrap();
        assert!(journal.state().attachments.is_empty(), "{context}");
        assert!(self.agent.ledger.attachments().is_empty(), "{context}");
    }
}

fn agent(world: &World, folder: &TempDir) -> Attacher<World> {
    Attacher::new(Arc::new(world.clone()), Ledger::new(Journal::open(folder.path(), "b").unwrap()))
}

/// What a program in the pod may do to its interface.
fn meddle(world: &World) {
    if world.link("/run/netns/pod", vf()).is_none() {
        return;
    }
    world.meddle(vf(), |link: &mut Link| {
        link.promiscuous = true;
        link.all_multicast = true;
        link.mtu = 1280;
        link.name = "renamed".to_owned();
        link.alt_names.push("another".to_owned());
        link.mac = "02:00:00:00:00:66".parse().ok();
    });
}

const MACHINES: [(Temper, VfDriver, bool); 8] = [
    (Temper::Eager, VfDriver::Kernel, true),
    (Temper::Obedient, VfDriver::Kernel, true),
    (Temper::Stubborn, VfDriver::Kernel, true),
    (Temper::Eager, VfDriver::Kernel, false),
    (Temper::Obedient, VfDriver::Kernel, false),
    (Temper::Stubborn, VfDriver::Kernel, false),
    (Temper::Eager, VfDriver::VfioPci, true),
    (Temper::Eager, VfDriver::VfioPci, false),
];

#[tokio::test(start_paused = true)]
async fn whichever_operation_of_attach_fails_or_is_the_last_nothing_is_left_of_it() {
    for machine @ (temper, driver, policy) in MACHINES {
        let mut clean = Bench::new(temper, driver, policy);
        let start = clean.world.done();
        clean.attach().await.unwrap().unwrap();
        let operations = clean.world.done() - start;
        assert!(operations >= if driver == VfDriver::Kernel { 16 } else { 3 }, "{machine:?}: {operations}");
        for (number, fault) in (0..operations).flat_map(|n| FAULTS.map(|fault| (n, fault))) {
            let context = format!("{machine:?}, operation {number} of {operations}: {fault:?}");
            let mut bench = Bench::new(temper, driver, policy);
            bench.world.break_at(number, fault);
            let attached = bench.attach().await;
            assert!(bench.world.struck(), "{context}");
            match attached {
                // A MAC that the driver does not take when told so is taken when it probes.
                Some(Ok(_)) => {
                    bench.agent.check(&bench.world, &request().key).await.expect(&context);
                    bench.detach().await.unwrap().expect(&context);
                }
                Some(Err(e)) => assert!(!e.to_string().contains("left undone"), "{context}: {e}"),
                None => {}
            }
            bench.assert_clean(&context);
            bench.attach().await.unwrap().expect(&context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_operation_of_detach_fails_or_is_the_last_the_next_del_ends_it() {
    for machine @ (temper, driver, policy) in MACHINES {
        let mut clean = Bench::new(temper, driver, policy);
        clean.attach().await.unwrap().unwrap();
        meddle(&clean.world);
        let start = clean.world.done();
        clean.detach().await.unwrap().unwrap();
        clean.assert_clean("without any fault");
        let operations = clean.world.done() - start;
        for (number, fault) in (0..operations).flat_map(|n| FAULTS.map(|fault| (n, fault))) {
            let context = format!("{machine:?}, operation {number} of {operations}: {fault:?}");
            let mut bench = Bench::new(temper, driver, policy);
            bench.attach().await.unwrap().unwrap();
            meddle(&bench.world);
            bench.world.break_at(number, fault);
            match bench.detach().await {
                Some(Err(_)) => assert_eq!(bench.agent.stale(), [request().key], "{context}"),
                Some(Ok(_)) => bench.assert_clean(&context),
                None => {}
            }
            assert!(bench.world.struck(), "{context}");
            bench.detach().await.unwrap().expect(&context);
            bench.assert_clean(&context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_operation_fails_while_late_addresses_are_given_the_vf_goes_back() {
    let machine = (Temper::Stubborn, VfDriver::Kernel, true);
    for (number, fault) in (0..20).flat_map(|n| FAULTS.map(|fault| (n, fault))) {
        let context = format!("operation {number}: {fault:?}");
        let mut bench = Bench::new(machine.0, machine.1, machine.2);
        let late = request();
        bench
            .agent
            .attach(&bench.world, &VfAttach { addresses: vec![], routes: vec![], ..request() })
            .await
            .unwrap();
        bench.world.break_at(number, fault);
        let work = async |agent: &Attacher<World>, world: &World| {
            agent.address(world, &late.key, &late.addresses, &late.routes).await
        };
        match bench.survives(work).await {
            Some(Err(_)) => bench.assert_clean(&context),
            // Killed, the pod still has what the record says; or there were fewer operations.
            Some(Ok(_)) | None => {
                bench.world.mend();
                bench.detach().await.unwrap().expect(&context);
                bench.assert_clean(&context);
            }
        }
    }
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(FAULTS.to_vec())
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Attach,
    Detach,
    Meddle,
    EndPod,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Attach),
        3 => Just(Event::Detach),
        1 => Just(Event::Meddle),
        1 => Just(Event::EndPod)
    ]
}

proptest! {
    /// Whatever happens in whichever order, with whatever going wrong: in the end the VF is as it was.
    #[test]
    fn any_history_ends_with_the_vf_as_it_was(
        machine in prop::sample::select(MACHINES.to_vec()),
        history in prop::collection::vec((any_event(), prop::option::of((0..40_usize, any_fault()))), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new(machine.0, machine.1, machine.2);
            for (event, fault) in history {
                if let Some((number, fault)) = fault {
                    bench.world.break_at(number, fault);
                }
                match event {
                    Event::Attach => drop(bench.attach().await),
                    Event::Detach => drop(bench.detach().await),
                    Event::Meddle => meddle(&bench.world),
                    Event::EndPod => {
                        if bench.world.has_pod("/run/netns/pod") {
                            bench.world.end_pod("/run/netns/pod");
                        } else {
                            bench.world.add_pod("/run/netns/pod");
                        }
                    }
                }
            }
            bench.world.mend();
            for key in bench.agent.stale() {
                bench.agent.tidy(&bench.world, &key).await.unwrap();
            }
            bench.detach().await.unwrap().unwrap();
            bench.assert_clean("in the end");
        });
    }
}
