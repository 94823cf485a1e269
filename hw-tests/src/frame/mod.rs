//! What a case is, how cases are chosen, run and counted.

mod report;
mod runner;
mod stop;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use report::{Report, Verdict};
pub use runner::{run_here, select};
pub use stop::{Outcome, Stop};

use tempfile::TempDir;

/// Where a case must run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Network namespaces of this machine.
    Netns,
    /// The guest with emulated SR-IOV NICs.
    Guest,
}

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Says what holds: `a_pod_reaches_a_pod_on_the_far_node`.
    pub name: &'static str,
    /// Where it runs.
    pub place: Place,
    /// The test.
    pub run: fn(&Context) -> Outcome,
}

impl Case {
    /// `netns::name` or `guest::name`.
    pub fn full_name(&self) -> String {
        let place = match self.place {
            Place::Netns => "netns",
            Place::Guest => "guest",
        };
        format!("{place}::{}", self.name)
    }
}

/// What a running case may use: a folder of its own for sockets, configuration and logs.
#[derive(Debug)]
pub struct Context {
    dir: TempDir,
}

impl Context {
    /// Makes the folder.
    pub fn new() -> Outcome<Self> {
        Ok(Self { dir: tempfile::Builder::new().prefix("culvert-").tempdir()? })
    }

    /// The folder. It is gone when the case is over.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.dir().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The last lines of every log in the folder, for a failure's report.
    pub fn logs(&self) -> String {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.dir())
            .map(|entries| entries.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        paths.retain(|path| path.extension().is_some_and(|e| e == "log"));
        paths.sort();
        let mut text = String::new();
        for path in paths {
            let log = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            if log.trim().is_empty() {
                continue;
            }
            text += &format!(
                "--- {}\n{}\n",
                path.file_name().unwrap_or_default().to_string_lossy(),
                tail(&log, 25)
            );
        }
        text
    }
}

/// What the line of a [`note`] begins with.
pub const NOTE: &str = "note: ";

/// Tells something that is neither success nor failure, as a figure that was measured.
pub fn note(text: &str) {
    println!("{NOTE}{text}");
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Waits until `ready` gives a value, asking it again every few milliseconds.
///
/// # Errors
/// Names `what` and the time waited; errors of `ready` at once.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(Stop::fail(format!("{what}: not within {:.1} s", limit.as_secs_f32())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
