use std::collections::{BTreeMap, BTreeSet};

use culvert_api::config::nic::VfDriver;
use culvert_api::value::VfIndex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::apply::killed;
use super::super::model;
use super::super::step::Object;
use super::entry::line_of;
use super::*;
use crate::pods::Phase;

const PF: &str = "0000:03:00.0";

fn step(action: Action) -> Step {
    Step { object: Object::pf(PF.parse().unwrap()), action }
}

fn attachment(container: &str, phase: Phase) -> Attachment {
    model::attachment(container, "0000:04:00.1", phase)
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("nic.journal")
}

fn open(folder: &TempDir) -> Journal {
    Journal::open(folder.path(), "boot-1").unwrap()
}

#[test]
fn what_is_recorded_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    journal.begin(&step(Action::Autoprobe(false))).unwrap();
    journal.end(&step(Action::Autoprobe(false)), true).unwrap();
    journal.attachment(attachment("a", Phase::Attaching)).unwrap();
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    journal.attachment(attachment("b", Phase::Attached)).unwrap();
    journal.released(&attachment("b", Phase::Attached).key).unwrap();
    journal.begin(&step(Action::NumVfs(4))).unwrap();
    let before = journal.state().clone();
    drop(journal);

    let mut again = open(&folder);
    assert_eq!(*again.state(), before);
    assert_eq!(before.under_way.map(|step| step.text), Some("0000:03:00.0: create 4 VFs".to_owned()));
    assert_eq!(before.autoprobe, BTreeMap::from([(PF.parse().unwrap(), true)]));
    assert_eq!(before.attachments.values().collect::<Vec<_>>(), [&attachment("a", Phase::Attached)]);

    again.begin(&step(Action::Autoprobe(true))).unwrap();
    again.end(&step(Action::Autoprobe(true)), true).unwrap();
    assert!(again.state().autoprobe.is_empty() && again.state().under_way.is_none());
}

#[test]
fn a_restore_that_failed_stays_to_be_done() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    for (on, ok) in [(false, true), (true, false)] {
        journal.begin(&step(Action::Autoprobe(on))).unwrap();
        journal.end(&step(Action::Autoprobe(on)), ok).unwrap();
    }
    assert_eq!(open(&folder).state().autoprobe.len(), 1);
}

#[test]
fn of_an_earlier_boot_only_macs_count() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    journal.lease(&leases()).unwrap();
    let bind = Step {
        object: Object::vf(PF.parse().unwrap(), VfIndex::MIN),
        action: Action::Bind(VfDriver::Kernel),
    };
    journal.begin(&bind).unwrap();
    drop(journal);
    let after = Journal::open(folder.path(), "boot-2").unwrap();
    assert_eq!(*after.state(), State { boot: "boot-2".to_owned(), leases: leases(), ..State::default() });
}

fn leases() -> Leases {
    Leases::from([(("52:54:00:00:00:01".to_owned(), VfIndex::MIN), "02:00:00:00:00:07".parse().unwrap())])
}

/// What a journal with these bytes amounts to.
fn amounts_to(bytes: &[u8]) -> Result<State, String> {
    let mut state = State::default();
    for entry in parse(bytes) {
        state.apply(entry?);
    }
    Ok(state)
}

#[test]
fn a_line_torn_at_any_byte_is_as_if_it_had_not_been_begun() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    let whole = fs::read(path(&folder)).unwrap();
    let state = journal.state().clone();
    journal.attachment(attachment("b", Phase::Attaching)).unwrap();
    drop(journal);
    let longer = fs::read(path(&folder)).unwrap();
    for end in whole.len()..longer.len() {
        let mut torn = longer[..end].to_vec();
        assert_eq!(amounts_to(&torn).as_ref(), Ok(&state), "cut at byte {end}");
        torn.extend([0; 100]);
        assert_eq!(amounts_to(&torn).as_ref(), Ok(&state), "cut at byte {end}, the rest zeros");
    }
}

#[test]
fn what_is_written_after_a_torn_line_is_not_lost_behind_it() {
    let folder = TempDir::new().unwrap();
    open(&folder).attachment(attachment("a", Phase::Attached)).unwrap();
    let bytes = fs::read(path(&folder)).unwrap();
    fs::write(path(&folder), &bytes[..bytes.len() - 5]).unwrap();
    let mut journal = open(&folder);
    assert!(journal.state().attachments.is_empty());
    journal.attachment(attachment("b", Phase::Attached)).unwrap();
    assert_eq!(open(&folder).state().attachments.len(), 1);
}

#[test]
fn other_damage_is_refused_by_line_and_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    for container in ["a", "b", "c"] {
        journal.attachment(attachment(container, Phase::Attached)).unwrap();
    }
    drop(journal);
    let good = fs::read_to_string(path(&folder)).unwrap();
    let second = good.lines().nth(1).unwrap();
    for (what, line, text) in [
        ("a flipped digit", second.replace("\"a\"", "\"x\""), "its checksum is wrong"),
        ("no checksum", "{}".to_owned(), "it has no checksum"),
        ("an unknown entry", line_of("{\"later\":{}}"), "unknown variant"),
    ] {
        fs::write(path(&folder), good.replace(second, &line)).unwrap();
        let error = Journal::open(folder.path(), "boot-1").unwrap_err().to_string();
        assert!(error.contains("line 2 is damaged") && error.contains(text), "{what}: {error}");
        assert!(error.contains("culvert-agent --discard-journal"), "{error}");
    }
    let untouched = fs::read_to_string(path(&folder)).unwrap();
    assert!(untouched.contains("later"), "a damaged journal is left for people to look at");
}

#[test]
fn a_long_journal_is_written_anew_and_amounts_to_the_same() {
    let folder = killed::folder();
    let mut journal = open(&folder);
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    for _ in 0..COMPACT_AFTER {
        journal.begin(&step(Action::NumVfs(1))).unwrap();
        journal.end(&step(Action::NumVfs(1)), true).unwrap();
    }
    let lines = fs::read_to_string(path(&folder)).unwrap().lines().count();
    assert!(lines < COMPACT_AFTER, "{lines}");
    assert_eq!(open(&folder).state(), journal.state());
}

#[test]
fn a_driver_that_was_being_changed_is_remembered_until_it_was_changed() {
    let folder = TempDir::new().unwrap();
    let vf = Object::vf(PF.parse().unwrap(), VfIndex::MIN);
    let bind = Step { object: vf, action: Action::Bind(VfDriver::VfioPci) };
    let mut journal = open(&folder);
    journal.begin(&bind).unwrap();
    drop(journal);
    // Of several restarts, too.
    drop(open(&folder));
    let mut journal = open(&folder);
    assert_eq!(journal.state().unsettled, BTreeSet::from([vf]));
    journal.begin(&bind).unwrap();
    journal.end(&bind, false).unwrap();
    assert_eq!(journal.state().unsettled.len(), 1, "it failed");
    journal.begin(&bind).unwrap();
    journal.end(&bind, true).unwrap();
    assert!(journal.state().unsettled.is_empty());
    assert!(open(&folder).state().unsettled.is_empty());
}

#[test]
fn a_disk_that_is_full_at_any_byte_takes_nothing_and_what_comes_later_is_whole() {
    let folder = killed::folder();
    let mut journal = open(&folder);
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    let (before, state) = (fs::read(path(&folder)).unwrap(), journal.state().clone());
    let line = line(&Entry::Attachment(Box::new(attachment("b", Phase::Attaching))));
    for room in 0..line.len() {
        journal.faults.room = Some(room);
        let error = journal.attachment(attachment("b", Phase::Attaching)).unwrap_err();
        assert!(
            chain(&error).contains("nic.journal: cannot write to it: no storage space"),
            "{}",
            chain(&error)
        );
        assert_eq!(journal.state(), &state);
        assert_eq!(fs::read(path(&folder)).unwrap(), before, "room for {room} bytes");
        // The next one begins with a file of its own.
        journal.faults.room = None;
        journal.released(&attachment("none", Phase::Attached).key).unwrap();
        assert_eq!(open(&folder).state(), &state);
        journal = open(&folder);
    }
    journal.attachment(attachment("b", Phase::Attaching)).unwrap();
    assert_eq!(open(&folder).state().attachments.len(), 2);
}

#[test]
fn an_agent_that_dies_at_any_byte_of_a_line_has_not_begun_what_it_announces() {
    let folder = killed::folder();
    let mut journal = open(&folder);
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    let state = journal.state().clone();
    let len = line(&Entry::Attachment(Box::new(attachment("b", Phase::Attaching)))).len();
    for room in 0..len {
        journal.faults.room = Some(room);
        journal.faults.dead = true;
        journal.attachment(attachment("b", Phase::Attaching)).unwrap_err();
        journal = open(&folder);
        assert_eq!(journal.state(), &state, "died after {room} bytes");
    }
}

#[test]
fn a_journal_that_cannot_be_written_anew_goes_on_as_it_is() {
    let folder = killed::folder();
    let mut journal = open(&folder);
    let beside = beside(&path(&folder));
    fs::create_dir(&beside).unwrap();
    for _ in 0..COMPACT_AFTER {
        journal.begin(&step(Action::NumVfs(1))).unwrap();
        journal.end(&step(Action::NumVfs(1)), true).unwrap();
    }
    journal.attachment(attachment("a", Phase::Attached)).unwrap();
    let lines = fs::read_to_string(path(&folder)).unwrap().lines().count();
    assert!(lines > 2 * COMPACT_AFTER, "{lines}");
    fs::remove_dir(&beside).unwrap();
    assert_eq!(open(&folder).state(), journal.state());
}

#[test]
fn what_a_crash_left_of_a_journal_that_was_written_anew_does_not_matter() {
    let folder = TempDir::new().unwrap();
    open(&folder).attachment(attachment("a", Phase::Attached)).unwrap();
    fs::write(beside(&path(&folder)), "half a li").unwrap();
    assert_eq!(open(&folder).state().attachments.len(), 1);
}

#[test]
fn a_damaged_journal_is_set_aside_on_request_and_lines_that_are_whole_count() {
    let folder = TempDir::new().unwrap();
    let mut journal = open(&folder);
    for container in ["a", "b", "c"] {
        journal.attachment(attachment(container, Phase::Attached)).unwrap();
    }
    drop(journal);
    assert_eq!(Journal::salvage(folder.path(), "boot-1").unwrap(), None, "nothing is damaged");
    let good = fs::read_to_string(path(&folder)).unwrap();
    let bad = good.replace("\"containerId\":\"b\"", "\"containerId\":\"x\"");
    assert_ne!(good, bad);
    for round in 1..3 {
        fs::write(path(&folder), &bad).unwrap();
        let salvaged = Journal::salvage(folder.path(), "boot-1").unwrap().unwrap();
        assert_eq!(salvaged.lost, [(3, "its checksum is wrong".to_owned())]);
        assert_eq!(salvaged.kept, 3);
        assert_eq!(
            salvaged.pods,
            ["default/a has 0000:04:00.1 as net1", "default/c has 0000:04:00.1 as net1"]
        );
        assert!(salvaged.aside.ends_with(format!("nic.journal.damaged-{round}")), "{:?}", salvaged.aside);
        assert_eq!(fs::read_to_string(salvaged.aside).unwrap(), bad);
        let containers: Vec<String> =
            open(&folder).state().attachments.keys().map(|k| k.container_id.clone()).collect();
        assert_eq!(containers, ["a", "c"]);
    }
    // The line of the boot itself: attachments of it stay.
    fs::write(path(&folder), good.replacen("boot-1", "boot-7", 1)).unwrap();
    Journal::salvage(folder.path(), "boot-1").unwrap().unwrap();
    assert_eq!(open(&folder).state().attachments.len(), 3);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = Journal::open(&folder.path().join("file/state"), "b").unwrap_err().to_string();
    assert!(error.contains("file/state/nic.journal: cannot make its folder"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = amounts_to(&bytes);
    }
}
