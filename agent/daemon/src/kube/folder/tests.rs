use std::fs::File as DiskFile;

use proptest::prelude::*;

use super::*;
use crate::kube::Name;

/// A folder on disk and what the agent knows of it.
struct Bench {
    dir: tempfile::TempDir,
    folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        let folder = Folder::new(dir.path().join("m"), dir.path().join("copies"));
        Self { dir, folder }
    }

    /// Another agent on the same node.
    fn restart(&mut self) {
        self.folder = Folder::new(self.path(""), self.dir.path().join("copies"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn read(&mut self) -> Option<Snapshot> {
        self.folder.read(&Look { others: Others::Changed, ..Look::default() })
    }

    fn hear(&mut self, name: &str) -> Option<Snapshot> {
        self.folder.read(&Look { named: [name.to_owned()].into(), others: Others::None })
    }
}

fn service(name: &str, ip: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ clusterIP: {ip} }}\n")
}

fn ip_of(snapshot: &Snapshot, name: &str) -> Option<String> {
    let service = snapshot.objects.services.get(&Name::new("default", name))?;
    service.spec.as_ref()?.cluster_ip.clone()
}

#[test]
fn an_empty_folder_is_synced_a_missing_one_is_not_and_one_that_vanishes_keeps_its_content() {
    let mut bench = Bench::new();
    let missing = Folder::new(bench.path("none"), bench.path("copies")).read(&Look::default()).unwrap();
    assert!(!missing.synced);
    assert!(
        missing.problems[0].contains("none") && missing.problems[0].contains("No such file"),
        "{missing:?}"
    );

    assert!(bench.read().unwrap().synced);
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.read().unwrap();
    fs::remove_dir_all(bench.path("")).unwrap();
    let snapshot = bench.read().unwrap();
    assert_eq!(ip_of(&snapshot, "a").as_deref(), Some("10.0.0.1"));
    assert_eq!(snapshot.problems.len(), 1);
    assert_eq!(bench.read(), None, "the same problem is told once");
}

#[test]
fn only_yaml_and_json_files_that_are_not_hidden_are_read() {
    let mut bench = Bench::new();
    for name in ["a.yaml", "b.yml", "c.json"] {
        bench.write(name, &service(&name[..1], "10.0.0.1"));
    }
    for name in [".hidden.yaml", "d.yaml.bak", "e.txt", "yaml"] {
        bench.write(name, "kind: [");
    }
    let snapshot = bench.read().unwrap();
    assert_eq!((snapshot.objects.len(), snapshot.problems.len(), snapshot.synced), (3, 0, true));
}

#[test]
fn a_file_that_turns_bad_keeps_its_content_until_it_is_good_again_or_removed() {
    let mut bench = Bench::new();
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.write("b.yaml", &service("b", "10.0.0.2"));
    bench.read().unwrap();

    bench.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { ports: 7 }\n");
    bench.write("b.yaml", &service("b", "10.0.0.3"));
    bench.hear("a.yaml");
    let snapshot = bench.hear("b.yaml").unwrap();
    assert_eq!(ip_of(&snapshot, "a").as_deref(), Some("10.0.0.1"));
    assert_eq!(ip_of(&snapshot, "b").as_deref(), Some("10.0.0.3"));
    assert!(snapshot.synced, "what was read well before is known");
    let [problem] = &snapshot.problems[..] else { panic!("{:?}", snapshot.problems) };
    assert!(
        problem.starts_with("a.yaml: ") && problem.contains("line 4") && problem.contains("column"),
        "{problem}"
    );

    bench.write("a.yaml", &service("a", "10.0.0.1"));
    assert!(bench.hear("a.yaml").unwrap().problems.is_empty());
    bench.remove("a.yaml");
    assert_eq!(ip_of(&bench.hear("a.yaml").unwrap(), "a"), None);
}

#[test]
fn a_file_that_is_bad_when_the_agent_starts_again_keeps_what_it_held() {
    let mut bench = Bench::new();
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.write("b.yaml", &service("b", "10.0.0.2"));
    bench.read().unwrap();
    bench.write("a.yaml", "{");
    bench.remove("b.yaml");
    bench.hear("b.yaml").unwrap();
    bench.write("b.yaml", "{");

    bench.restart();
    let snapshot = bench.read().unwrap();
    assert_eq!(ip_of(&snapshot, "a").as_deref(), Some("10.0.0.1"));
    assert_eq!(ip_of(&snapshot, "b"), None, "it was removed since");
    assert_eq!(snapshot.problems.len(), 2);
}

#[test]
fn a_file_that_never_was_good_is_reported_and_the_rest_is_used() {
    let mut bench = Bench::new();
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.write("bad.yaml", "{");
    let snapshot = bench.read().unwrap();
    assert!(snapshot.synced);
    assert_eq!((snapshot.objects.len(), snapshot.problems.len()), (1, 1));
}

#[test]
fn of_an_object_in_two_files_the_one_in_the_first_name_counts_whatever_came_first() {
    for order in [["a.yaml", "b.yaml"], ["b.yaml", "a.yaml"]] {
        let mut bench = Bench::new();
        for name in order {
            bench.write(name, &service("web", if name == "a.yaml" { "10.0.0.1" } else { "10.0.0.2" }));
            bench.read().unwrap();
        }
        bench.write("c.yaml", "# nothing\n");
        bench.write("b.yaml", &(service("web", "10.0.0.2") + &service("other", "10.0.0.3")));
        let snapshot = bench.hear("b.yaml").unwrap();
        assert_eq!(ip_of(&snapshot, "web").as_deref(), Some("10.0.0.1"));
        let problem =
            "service default/web: is in a.yaml and again in b.yaml; the first counts, remove one of them";
        assert_eq!(snapshot.problems, [problem]);
    }
}

#[test]
fn a_file_heard_of_is_read_even_if_it_looks_the_same_and_others_are_not_read_at_all() {
    let mut bench = Bench::new();
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.read().unwrap();
    // Same size, and the clock of the file system may not have moved: looks cannot tell.
    bench.write("a.yaml", &service("a", "10.0.0.9"));
    bench.write("half.yaml", "apiVersion: v1\nkind: Ser");
    let snapshot = bench.hear("a.yaml").unwrap();
    assert_eq!(ip_of(&snapshot, "a").as_deref(), Some("10.0.0.9"));
    assert!(snapshot.problems.is_empty(), "half.yaml is still being written");
}

#[test]
fn a_rescan_leaves_files_alone_that_may_still_be_written_or_were_just_emptied() {
    let mut bench = Bench::new();
    let rescan = Look { others: Others::Settled, ..Look::default() };
    bench.write("a.yaml", &service("a", "10.0.0.1"));
    bench.read().unwrap();
    bench.write("a.yaml", &service("a", "10.0.0.22"));
    assert_eq!(bench.folder.read(&rescan), None, "written a moment ago");
    let file = DiskFile::options().write(true).open(bench.path("a.yaml")).unwrap();
    let past = SystemTime::now() - SETTLED * 2;
    file.set_modified(past).unwrap();
    assert_eq!(ip_of(&bench.folder.read(&rescan).unwrap(), "a").as_deref(), Some("10.0.0.22"));
    file.set_len(0).unwrap();
    file.set_modified(past).unwrap();
    assert_eq!(bench.folder.read(&rescan), None, "emptied, as by a shell before the command runs");
    assert!(bench.hear("a.yaml").unwrap().objects.is_empty(), "empty when its writer has closed it");
}

#[test]
fn a_link_to_nothing_is_no_file() {
    let mut bench = Bench::new();
    std::os::unix::fs::symlink("nowhere.yaml", bench.path("a.yaml")).unwrap();
    let snapshot = bench.read().unwrap();
    assert!(snapshot.synced && snapshot.problems.is_empty());
}

#[test]
fn what_is_not_heard_of_is_not_looked_at_and_a_change_leaves_other_objects_as_they_are() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.write(
            &format!("{name}.yaml"),
            &(service(name, "10.0.0.1") + &service(&format!("{name}2"), "10.0.0.2")),
        );
    }
    let before = bench.read().unwrap();
    bench.write("a.yaml", &(service("a", "10.0.0.9") + &service("a2", "10.0.0.2")));
    bench.remove("b.yaml");
    let after = bench.hear("a.yaml").unwrap();
    let differences = before.objects.services.differences(&after.objects.services);
    assert_eq!(
        differences.iter().map(|d| &*d.key.name).collect::<Vec<_>>(),
        ["a"],
        "b's removal was not heard of"
    );
    let same = |name: &str| {
        let name = Name::new("default", name);
        let [old, new] = [&before, &after].map(|snapshot| snapshot.objects.services.get(&name).unwrap());
        std::sync::Arc::ptr_eq(old, new)
    };
    assert_eq!(["a", "a2", "c"].map(same), [false, true, true]);
    assert_eq!(ip_of(&bench.read().unwrap(), "b"), None);
}

/// What is done to a file: removed, broken, or made to hold these Services with these addresses.
#[derive(Debug, Clone)]
enum Deed {
    Remove,
    Break,
    Hold(Vec<(u8, u8)>),
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let hold = prop::collection::vec((0..4u8, 0..3u8), 0..4).prop_map(Deed::Hold);
    prop_oneof![1 => Just(Deed::Remove), 1 => Just(Deed::Break), 4 => hold]
}

proptest! {
    #[test]
    fn after_any_changes_it_is_known_what_a_look_at_all_files_finds(
        deeds in prop::collection::vec((0..4u8, any_deed()), 1..8),
    ) {
        let mut bench = Bench::new();
        let mut known = bench.read().unwrap();
        for (file, deed) in deeds {
            let name = format!("{file}.yaml");
            match deed {
                Deed::Remove => drop(fs::remove_file(bench.path(&name))),
                Deed::Break => bench.write(&name, "{"),
                Deed::Hold(services) => {
                    let text = |(name, ip)| service(&format!("s{name}"), &format!("10.0.0.{ip}"));
                    bench.write(&name, &services.into_iter().map(text).collect::<String>());
                }
            }
            known = bench.hear(&name).unwrap_or(known);
            let mut another = Folder::new(bench.path(""), bench.dir.path().join("copies"));
            let whole = another.read(&Look { others: Others::Changed, ..Look::default() }).unwrap();
            prop_assert_eq!(&known, &whole);
        }
    }
}
