use super::super::model::{self, Model};
use super::*;

mod blocked;
mod entries;
mod macs;
mod number;
mod random;
mod steps;

const PF: &str = "0000:03:00.0";

fn policy(yaml: &str) -> NicPolicy {
    NicPolicy::from_yaml(yaml).unwrap()
}

/// The plan for `pfs` without pods.
fn plan_for(policy: &NicPolicy, observed: &Observed) -> Plan {
    plan(model::input(policy, observed))
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|s| format!("{}: {}", s.object, s.action)).collect()
}

fn do_all(model: &Model, plan: &Plan) {
    for step in &plan.steps {
        model.step(step).unwrap_or_else(|e| panic!("{step:?}: {e}"));
    }
}

fn two_pfs() -> Model {
    Model::new(vec![model::pf(PF, 7), model::pf("0000:04:00.0", 7)])
}

fn counts(model: &Model) -> Vec<usize> {
    model.lock().pfs.iter().map(|pf| pf.pf.vfs.len()).collect()
}
