//! An agent that is killed, for real and at every point: processes that carry a plan out on a machine in a folder end by
//! SIGKILL before, within and after each write of the journal and each thing that is done to the machine. Whatever is left,
//! the next agent ends at the machine that one which was not killed makes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use culvert_api::config::nic::{NicPolicy, VfDriver};
use tempfile::TempDir;

use super::super::model::{self, Deaths, Effect, Model};
use super::super::plan::{Input, plan};
use super::super::step::Object;
use super::tests::Nobody;
use super::*;

/// Folder of the machine, number of the policy, and of the point at which to die: the test is one of those processes.
const ROLE: &str = "CULVERT_TEST_KILLED";

/// From one to the next: VFs are made; their drivers are swapped and their MACs changed; they are made anew.
const POLICIES: [&str; 3] = [
    "pfs: [{pf: \"eth*\", vfs: 2, vlan: 7, trust: true, mac: {pool: {from: 02:00:00:00:00:01, to: 02:00:00:00:00:09}},
            overrides: [{vfs: 1, driver: vfio-pci, vlan: 9}]}]",
    "pfs: [{pf: eth24, vfs: 2, mac: {base: 02:00:00:00:01:00}, overrides: [{vfs: 0, driver: vfio-pci}]}]",
    "pfs: [{pf: eth24, vfs: 3, carve: 4, pfMtu: 9000, mtu: 8000}]",
];

fn policy(number: usize) -> NicPolicy {
    NicPolicy::from_yaml(POLICIES[number]).unwrap()
}

/// A machine whose state is what was done to it, in a file.
struct DiskMachine {
    model: Model,
    done: Mutex<File>,
    deaths: Deaths,
}

impl DiskMachine {
    fn load(folder: &Path, deaths: Deaths) -> Self {
        let path = folder.join("machine");
        let model = Model::new(vec![model::pf("0000:03:00.0", 7)]);
        for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
            let effect: Effect = serde_json::from_str(line).unwrap();
            // A failure changes nothing, now as then.
            let _ = model.effect(&effect);
        }
        let done = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Self { model, done: Mutex::new(done), deaths }
    }

    /// Everything about it that can be seen or cannot.
    fn looks(&self) -> (Observed, BTreeMap<Object, VfDriver>) {
        let mut overrides = self.model.overrides();
        overrides.retain(|_, driver| *driver != VfDriver::default());
        (self.model.now(), overrides)
    }
}

impl Machine for DiskMachine {
    async fn observe(&self) -> Result<Observed, ObserveError> {
        self.model.observe().await
    }

    async fn carry_out(&self, step: &Step) -> Result<(), MachineError> {
        for effect in Effect::of(step) {
            self.deaths.point();
            self.model.effect(&effect).map_err(MachineError::Model)?;
            let line = serde_json::to_string(&effect).unwrap() + "\n";
            self.done.lock().unwrap().write_all(line.as_bytes()).unwrap();
        }
        self.deaths.point();
        Ok(())
    }
}

/// One life of an agent: it goes on where the one before it ended. Returns the machine, and what is left to do.
fn live(folder: &Path, policy: &NicPolicy, deaths: Deaths) -> (DiskMachine, Plan) {
    let machine = DiskMachine::load(folder, deaths.clone());
    let mut journal = Journal::open(folder, "boot").unwrap();
    journal.faults.deaths = deaths;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let next = |machine: &DiskMachine, journal: &Journal| {
        let (observed, state) = (machine.model.now(), journal.state());
        let (autoprobe, unsettled, leases) = (&state.autoprobe, &state.unsettled, &state.leases);
        plan(Input { autoprobe, unsettled, leases, ..model::input(policy, &observed) })
    };
    let plan = next(&machine, &journal);
    let reply = runtime.block_on(apply(&machine, &plan, &mut journal, &Nobody, |_, _, _, _| {})).unwrap();
    assert_eq!(reply.failed, Vec::<String>::new());
    assert!(journal.state().autoprobe.is_empty() && journal.state().unsettled.is_empty());
    let left = next(&machine, &journal);
    (machine, left)
}

/// A process that does the same as [`live`] and is killed at `point`; false if it was done before.
fn is_killed(folder: &Path, policy: usize, point: usize) -> bool {
    let name = format!("{}::killed_anywhere_the_next_agent_ends_at_the_same_machine", module_path!());
    let mut child = Command::new(std::env::current_exe().unwrap());
    let name = name.split_once("::").unwrap().1;
    child.args(["--exact", name, "--test-threads=1"]).stdout(Stdio::null());
    let status = child.env(ROLE, format!("{policy} {point} {}", folder.display())).status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "policy {policy}, point {point}: {status}");
    !status.success()
}

/// A folder without a disk below it, where there is such a thing: what is synced is safe from SIGKILL anyway.
pub(in super::super) fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn copy(from: &Path) -> TempDir {
    let to = folder();
    for entry in std::fs::read_dir(from).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn killed_anywhere_the_next_agent_ends_at_the_same_machine() {
    if let Ok(role) = std::env::var(ROLE) {
        let mut role = role.splitn(3, ' ');
        let mut number = || role.next().unwrap().parse::<usize>().unwrap();
        let (number, point) = (number(), number());
        live(Path::new(role.next().unwrap()), &policy(number), Deaths::at(point));
        return;
    }
    let before = folder();
    let mut killed = 0;
    for number in 0..POLICIES.len() {
        let clean = copy(before.path());
        let (whole, left) = live(clean.path(), &policy(number), Deaths::default());
        assert_eq!(left, Plan::default());
        let mut point = 0;
        loop {
            let folder = copy(before.path());
            if !is_killed(folder.path(), number, point) {
                break;
            }
            killed += 1;
            // Every third time the agent after it is killed, too.
            if point % 3 == 0 {
                is_killed(folder.path(), number, point / 2 + 1);
            }
            let (machine, left) = live(folder.path(), &policy(number), Deaths::default());
            assert_eq!(left, Plan::default(), "policy {number}, killed at point {point}");
            assert_eq!(machine.looks(), whole.looks(), "policy {number}, killed at point {point}");
            point += 1;
        }
        std::fs::remove_dir_all(before.path()).unwrap();
        std::fs::rename(clean.path(), before.path()).unwrap();
    }
    assert!(killed > 150, "{killed} points are too few: do the processes die at all?");
}
