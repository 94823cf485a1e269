use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::*;
use crate::health::Health;

const PATIENCE: Duration = Duration::from_secs(20);

struct Followed {
    list: watch::Receiver<Option<Arc<ResourceList>>>,
    health: Health,
    stop: CancellationToken,
}

impl Followed {
    fn start(path: &Path) -> Self {
        let file = ResourceListFile { path: path.to_owned(), prefix: "intel.com".parse().unwrap() };
        let (follower, list) = Follower::open(file);
        let (health, stop) = (Health::default(), CancellationToken::new());
        tokio::spawn(follower.run(health.part("resource-list"), stop.clone()));
        Self { list, health, stop }
    }

    fn names(&self) -> Option<Vec<String>> {
        let list = self.list.borrow();
        list.as_ref().map(|list| list.resources.iter().map(|r| r.name.pool.to_string()).collect())
    }

    async fn next(&mut self) -> Vec<String> {
        timeout(PATIENCE, self.list.changed()).await.expect("no other list came").unwrap();
        self.names().unwrap()
    }

    /// State and detail of the part, once the detail contains `text`.
    async fn line(&self, text: &str) -> (String, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.health.subsystems().remove(0);
            if line.detail.contains(text) {
                return (line.state, line.detail);
            }
            assert!(Instant::now() < deadline, "{line:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn list_of(name: &str) -> String {
    format!(r#"{{"resourceList":[{{"resourceName":"{name}","selectors":{{"vendors":["8086"]}}}}]}}"#)
}

#[tokio::test]
async fn a_file_that_does_not_parse_fails_the_part_with_line_and_column_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, "{\"resourceList\": [\n  {\"resourceName\": \"a\",}]}").unwrap();
    let mut followed = Followed::start(&path);
    let (state, detail) = followed.line("line 2 column 24").await;
    assert_eq!(state, "failed");
    assert!(detail.ends_with("'}' after a comma: remove the comma; nothing of it is on offer"), "{detail}");
    assert_eq!(followed.names(), None);
    fs::write(&path, list_of("a")).unwrap();
    assert_eq!(followed.next().await, ["a"]);
    assert_eq!(followed.line("1 resources").await.0, "ok");
}

#[tokio::test]
async fn a_bad_file_at_reload_leaves_the_old_list_in_force_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, list_of("a")).unwrap();
    let mut followed = Followed::start(&path);
    followed.line("1 resources").await;
    for bad in ["{\"resourceList\": [", "{}", "[]"] {
        fs::write(&path, bad).unwrap();
        let (state, _) = followed.line("what was loaded before stays in force").await;
        assert_eq!((state.as_str(), followed.names().unwrap()), ("degraded", vec!["a".to_owned()]), "{bad}");
    }
    fs::remove_file(&path).unwrap();
    followed.line("cannot be read: No such file").await;
    assert_eq!(followed.names().unwrap(), ["a"]);
    fs::write(&path, list_of("b")).unwrap();
    assert_eq!(followed.next().await, ["b"]);
    assert_eq!(followed.line("1 resources").await.0, "ok");
}

#[tokio::test]
async fn a_mounted_config_map_is_loaded_again_when_kubernetes_swaps_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (folder, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("node-1"), list_of(name)).unwrap();
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/node-1", at("node-1")).unwrap();
    let mut followed = Followed::start(&at("node-1"));
    assert_eq!(followed.names().unwrap(), ["a"]);
    followed.line("1 resources").await;
    std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_eq!(followed.next().await, ["b"]);
}

#[tokio::test]
async fn a_bad_resource_is_left_out_and_named_and_the_others_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let text = r#"{"resourceList":[{"resourceName":"bad"},{"resourceName":"good","selectors":{"vendors":["8086"]}}]}"#;
    fs::write(&path, text).unwrap();
    let followed = Followed::start(&path);
    let (state, detail) = followed.line("resource intel.com/bad: no selectors").await;
    assert!(state == "degraded" && detail.contains("line 1 column 18"), "{state} {detail}");
    assert_eq!(followed.names().unwrap(), ["good"]);
}

#[tokio::test]
async fn a_file_that_comes_later_is_loaded_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let mut followed = Followed::start(&path);
    assert_eq!(followed.line("cannot be read").await.0, "failed");
    fs::write(&path, list_of("a")).unwrap();
    assert_eq!(followed.next().await, ["a"]);
}
