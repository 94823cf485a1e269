use std::sync::{Arc, Mutex};
use std::time::Instant;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::health::Health;

/// A number in a file, followed; 13 is refused by its owner.
struct Bench {
    dir: TempDir,
    health: Health,
    seen: watch::Receiver<u32>,
    reads: Arc<Mutex<usize>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("number"), "1").unwrap();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let reads = Arc::new(Mutex::new(0));
        let (send, seen) = watch::channel(1);
        let counter = Arc::clone(&reads);
        let read = move |text: &str| {
            *counter.lock().unwrap() += 1;
            text.parse::<u32>()
        };
        let accept = move |number| {
            std::future::ready(match number {
                13 => Err("brings bad luck".to_owned()),
                _ => {
                    send.send_replace(number);
                    Ok(format!("was told {number}"))
                }
            })
        };
        let (file, reporter) = (dir.path().join("number"), health.part("config"));
        let task = tokio::spawn(follow(file, "1".to_owned(), read, accept, reporter, stop.clone()));
        Self { dir, health, seen, reads, stop, task }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("number")
    }

    async fn until(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ready(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.health.subsystems());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_number(&self, number: u32) {
        self.until(&number.to_string(), |b| *b.seen.borrow() == number).await;
    }

    async fn until_health(&self, state: &str, text: &str) {
        let well =
            |b: &Self| b.health.subsystems().iter().all(|s| s.state == state && s.detail.contains(text));
        self.until(text, well).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_file_written_renamed_or_swapped_by_a_link_is_read_again() {
    let bench = Bench::start();
    fs::write(bench.file(), "2").unwrap();
    bench.until_number(2).await;

    fs::write(bench.dir.path().join("new"), "3").unwrap();
    fs::rename(bench.dir.path().join("new"), bench.file()).unwrap();
    bench.until_number(3).await;

    // As kubelet updates a mounted ConfigMap.
    let path = |name: &str| bench.dir.path().join(name);
    for (version, number) in [("..a", "3"), ("..b", "4")] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("number"), number).unwrap();
        std::os::unix::fs::symlink(version, path("..tmp")).unwrap();
        fs::rename(path("..tmp"), path("..data")).unwrap();
        if version == "..a" {
            fs::remove_file(bench.file()).unwrap();
            std::os::unix::fs::symlink("..data/number", bench.file()).unwrap();
        }
    }
    bench.until_number(4).await;
    bench.end().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_and_told_and_what_was_there_stays() {
    let bench = Bench::start();
    for (text, reason) in [("x", "invalid digit"), ("13", "brings bad luck")] {
        fs::write(bench.file(), text).unwrap();
        bench.until_health("degraded", reason).await;
        bench.until_health("degraded", "number: ").await;
        bench.until_health("degraded", "stays in force").await;
        assert_eq!(*bench.seen.borrow(), 1);
    }
    fs::remove_file(bench.file()).unwrap();
    bench.until_health("degraded", "cannot be read").await;
    fs::write(bench.file(), "5").unwrap();
    bench.until_number(5).await;
    bench.until_health("ok", "number; was told 5").await;
    bench.end().await;
}

#[tokio::test]
async fn sighup_reads_the_file_whether_or_not_it_has_changed() {
    let bench = Bench::start();
    // The first look has been made when a change is seen: the signal's handler is there.
    fs::write(bench.file(), "2").unwrap();
    bench.until_number(2).await;
    let before = *bench.reads.lock().unwrap();
    fs::write(bench.file(), "2").unwrap();
    sleep(QUIET * 4).await;
    assert_eq!(*bench.reads.lock().unwrap(), before, "the same text is no news");
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
    bench.until("read again", |b| *b.reads.lock().unwrap() > before).await;
    bench.end().await;
}
