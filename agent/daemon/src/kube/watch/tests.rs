use std::fs;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: web }\n";

/// A watched folder; the task ends with the value.
struct Bench {
    dir: tempfile::TempDir,
    known: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    /// Watches the folder `m` of a temporary folder.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (send, known) = watch::channel(Arc::new(Snapshot::default()));
        let stop = CancellationToken::new();
        tokio::spawn(watch(Folder::new(dir.path().join("m"), dir.path().join("copies")), send, stop.clone()));
        Self { dir, known, stop }
    }

    async fn started() -> Self {
        let mut bench = Self::start();
        fs::create_dir(bench.path("")).unwrap();
        bench.until("synced", |s| s.synced).await;
        bench
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("m").join(name)
    }

    async fn until(&mut self, what: &str, check: impl FnMut(&Arc<Snapshot>) -> bool) {
        let waited = timeout(Duration::from_secs(10), self.known.wait_for(check)).await;
        waited.unwrap_or_else(|_| panic!("not within 10 s: {what}")).unwrap();
    }

    async fn services(&mut self, count: usize) {
        self.until(&format!("{count} services"), |s| s.objects.services.len() == count).await;
    }
}

#[tokio::test]
async fn a_folder_that_appears_later_is_read_and_watched() {
    let mut bench = Bench::start();
    bench.until("a problem", |s| !s.problems.is_empty()).await;
    fs::create_dir(bench.path("")).unwrap();
    fs::write(bench.path("a.yaml"), SERVICE).unwrap();
    bench.services(1).await;
    fs::remove_file(bench.path("a.yaml")).unwrap();
    bench.services(0).await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_read_and_watched_in_the_place_of_the_old_one() {
    let mut bench = Bench::started().await;
    let next = bench.dir.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("a.yaml"), SERVICE).unwrap();
    fs::rename(bench.path(""), bench.dir.path().join("old")).unwrap();
    fs::rename(&next, bench.path("")).unwrap();
    bench.services(1).await;
    fs::remove_file(bench.path("a.yaml")).unwrap();
    bench.services(0).await;
}

#[tokio::test]
async fn writes_renames_links_and_removals_are_all_noticed() {
    let mut bench = Bench::started().await;
    fs::write(bench.path("a.yaml"), SERVICE).unwrap();
    bench.services(1).await;
    fs::rename(bench.path("a.yaml"), bench.path("a.off")).unwrap();
    bench.services(0).await;
    fs::rename(bench.path("a.off"), bench.path("b.yaml")).unwrap();
    bench.services(1).await;
    fs::hard_link(bench.path("b.yaml"), bench.path("c.yaml")).unwrap();
    bench.until("the duplicate", |s| !s.problems.is_empty()).await;
    fs::remove_file(bench.path("b.yaml")).unwrap();
    bench.until("no duplicate", |s| s.problems.is_empty() && s.objects.len() == 1).await;
}

#[tokio::test]
async fn a_file_is_read_when_its_writer_is_done_not_before() {
    use std::io::Write as _;
    let mut bench = Bench::started().await;
    let mut file = fs::File::create(bench.path("a.yaml")).unwrap();
    file.write_all(&SERVICE.as_bytes()[..30]).unwrap();
    fs::write(bench.path("other.yaml"), SERVICE.replace("web", "other")).unwrap();
    bench.services(1).await;
    assert!(bench.known.borrow().problems.is_empty(), "{:?}", bench.known.borrow().problems);
    file.write_all(&SERVICE.as_bytes()[30..]).unwrap();
    drop(file);
    bench.services(2).await;
}

#[tokio::test]
async fn a_mounted_configmap_is_noticed_when_its_data_is_replaced() {
    let mut bench = Bench::started().await;
    for (version, text) in [("..1", SERVICE.to_owned()), ("..2", SERVICE.replace("web", "other"))] {
        fs::create_dir(bench.path(version)).unwrap();
        fs::write(bench.path(version).join("a.yaml"), text).unwrap();
    }
    symlink("..1", bench.path("..data")).unwrap();
    symlink("..data/a.yaml", bench.path("a.yaml")).unwrap();
    bench.services(1).await;
    symlink("..2", bench.path("..data_tmp")).unwrap();
    fs::rename(bench.path("..data_tmp"), bench.path("..data")).unwrap();
    bench.until("the other", |s| s.objects.services.keys().any(|name| &*name.name == "other")).await;
}
