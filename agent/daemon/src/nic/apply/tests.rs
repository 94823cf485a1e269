use std::collections::BTreeMap;

use culvert_api::config::nic::NicPolicy;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::model::{self, Model};
use super::super::plan::{Input, plan};
use super::*;

const PF: &str = "0000:03:00.0";

fn policy() -> NicPolicy {
    NicPolicy::from_yaml(
        "pfs: [{pf: eth24, vfs: 3, vlan: 7, overrides: [{vfs: 1, driver: vfio-pci, vlan: 9}]}, {pf: eth32, vfs: 2, mtu: 1400}]",
    )
    .unwrap()
}

fn machine() -> Model {
    Model::new(vec![model::pf(PF, 7), model::pf("0000:04:00.0", 7)])
}

fn plan_of(model: &Model, autoprobe: &BTreeMap<PciAddress, bool>) -> Plan {
    let (policy, observed) = (policy(), model.now());
    plan(Input { autoprobe, ..model::input(&policy, &observed) })
}

/// Has nothing.
pub(super) struct Nobody;

impl Users for Nobody {
    async fn of(&self, _: PciAddress) -> Result<Option<String>, ObserveError> {
        Ok(None)
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

#[test]
fn every_step_is_told_recorded_and_reported_and_the_machine_is_as_wanted() {
    let (folder, model) = (TempDir::new().unwrap(), machine());
    let mut journal = Journal::open(folder.path(), "b").unwrap();
    let plan = plan_of(&model, &BTreeMap::new());
    let mut told = Vec::new();
    let tell = |step: &Step, number: usize, total: usize, outcome: Outcome<'_>| {
        if outcome == Outcome::Done {
            told.push((step.action.to_string(), number, total));
        }
    };
    let reply = run(apply(&model, &plan, &mut journal, &Nobody, tell)).unwrap();
    assert_eq!(reply.done.len(), plan.steps.len());
    assert_eq!(told.len(), plan.steps.len());
    assert_eq!(told[2], ("create 3 VFs".to_owned(), 3, plan.steps.len()));
    assert!(reply.failed.is_empty() && reply.blocked.is_empty());
    assert!(journal.state().autoprobe.is_empty());
    assert_eq!(plan_of(&model, &BTreeMap::new()), Plan::default());
}

#[test]
fn a_vf_that_fails_is_reported_and_stops_no_other() {
    let (folder, mut model) = (TempDir::new().unwrap(), machine());
    model.refuse = vec!["bind it to vfio-pci".to_owned()];
    let mut journal = Journal::open(folder.path(), "b").unwrap();
    let plan = plan_of(&model, &BTreeMap::new());
    let reply = run(apply(&model, &plan, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
    assert_eq!(reply.failed, ["vf 1 of 0000:03:00.0: cannot bind it to vfio-pci: refused by the model"]);
    assert_eq!(reply.done.len(), plan.steps.len() - 1);
    let left = plan_of(&model, &BTreeMap::new());
    assert_eq!(left.steps.len(), 1, "only that is left: {left:?}");
}

#[test]
fn a_pf_that_fails_gets_its_autoprobe_back_and_the_other_pf_is_carved() {
    let (folder, mut model) = (TempDir::new().unwrap(), machine());
    model.refuse = vec!["create 3 VFs".to_owned()];
    let mut journal = Journal::open(folder.path(), "b").unwrap();
    let plan = plan_of(&model, &BTreeMap::new());
    let reply = run(apply(&model, &plan, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
    assert_eq!(reply.failed, ["0000:03:00.0: cannot create 3 VFs: refused by the model"]);
    let now = model.now();
    assert_eq!((now.pfs[0].pf.vfs.len(), now.pfs[0].pf.autoprobe), (0, Some(true)));
    assert_eq!(now.pfs[1].pf.vfs.len(), 2);
}

#[test]
fn killed_at_every_step_the_next_run_ends_at_the_same_machine() {
    let whole = machine();
    let folder = TempDir::new().unwrap();
    let steps = plan_of(&whole, &BTreeMap::new());
    run(apply(&whole, &steps, &mut Journal::open(folder.path(), "b").unwrap(), &Nobody, |_, _, _, _| {}))
        .unwrap();

    for lives in 0..steps.steps.len() {
        let (folder, model) = (TempDir::new().unwrap(), machine());
        *model.lives.lock().unwrap() = Some(lives);
        let mut journal = Journal::open(folder.path(), "b").unwrap();
        let first = plan_of(&model, &BTreeMap::new());
        // The future is dropped where the process would have died.
        let killed = run(async {
            let limit = Duration::from_millis(5);
            tokio::time::timeout(limit, apply(&model, &first, &mut journal, &Nobody, |_, _, _, _| {})).await
        });
        assert!(killed.is_err(), "step {lives} is begun and never ended");
        drop(journal);
        *model.lives.lock().unwrap() = None;

        let mut journal = Journal::open(folder.path(), "b").unwrap();
        let under_way = journal.state().under_way.as_ref().map(|step| step.text.clone());
        assert_eq!(under_way, Some(format!("{}: {}", first.steps[lives].object, first.steps[lives].action)));
        let second = plan_of(&model, &journal.state().autoprobe);
        let reply = run(apply(&model, &second, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
        assert!(reply.failed.is_empty(), "killed at step {lives}: {:?}", reply.failed);
        assert_eq!(model.now(), whole.now(), "killed at step {lives}");
        assert!(journal.state().autoprobe.is_empty());
    }
}

proptest! {
    /// Whatever is refused, nothing that does not depend on it is left undone.
    #[test]
    fn steps_refused_at_random_are_all_that_is_left(refused in proptest::collection::btree_set(0_usize..20, 0..3)) {
        let (folder, mut model) = (killed::folder(), machine());
        let plan = plan_of(&model, &BTreeMap::new());
        // Only what concerns one VF: without VFs there is nothing to go on with.
        let refused = refused.into_iter().filter_map(|i| plan.steps.get(i)).filter(|s| s.object.vf.is_some());
        model.refuse = refused.map(|s| s.action.to_string()).collect();
        let mut journal = Journal::open(folder.path(), "b").unwrap();
        run(apply(&model, &plan, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
        model.refuse.clear();
        let rest = plan_of(&model, &journal.state().autoprobe);
        run(apply(&model, &rest, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
        prop_assert_eq!(plan_of(&model, &BTreeMap::new()), Plan::default());
    }
}

/// Has got a VF since the plan was made.
struct Somebody;

impl Users for Somebody {
    async fn of(&self, pf: PciAddress) -> Result<Option<String>, ObserveError> {
        Ok((pf.to_string() == PF).then(|| "vf 0: kubelet gave it to default/web".to_owned()))
    }
}

#[test]
fn a_pf_of_which_a_vf_was_given_away_since_the_plan_was_made_is_not_carved() {
    let (folder, model) = (TempDir::new().unwrap(), machine());
    let mut journal = Journal::open(folder.path(), "b").unwrap();
    let plan = plan_of(&model, &BTreeMap::new());
    let reply = run(apply(&model, &plan, &mut journal, &Somebody, |_, _, _, _| {})).unwrap();
    assert_eq!(
        reply.failed,
        ["0000:03:00.0: cannot create 3 VFs: in the meantime vf 0: kubelet gave it to default/web"]
    );
    let now = model.now();
    assert_eq!((now.pfs[0].pf.vfs.len(), now.pfs[0].pf.autoprobe), (0, Some(true)));
    assert_eq!(now.pfs[1].pf.vfs.len(), 2);
}
