//! IPAM plugins (CNI specification 1.1.0, section 4, "Plugin Delegation").
//!
//! They run here and not in the agent: this process has the runtime's environment and sees the host's files.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::call::env;
use crate::output::{CONFIG, Failure, IPAM_FAILED};

/// How much of what a plugin printed is repeated in an error, in characters.
const REPEATED: usize = 200;

/// How long a plugin may be open for writing.
const INSTALLED_WITHIN: Duration = Duration::from_secs(5);

/// A plugin, and what it reads.
pub(crate) struct Plugin<'a> {
    pub(crate) name: &'a str,
    pub(crate) config: &'a [u8],
    /// The version of CNI that the caller speaks.
    pub(crate) version: Option<&'a str>,
}

/// What tells an error object from other output.
#[derive(Deserialize)]
struct ErrorObject {
    #[serde(rename = "code")]
    _code: u32,
}

impl Plugin<'_> {
    /// Runs the plugin with `command`, and otherwise with the environment and the input that this process was given; what
    /// it prints. It may take as long as it likes: a runtime that has enough of it kills us both.
    ///
    /// # Errors
    /// The plugin's own error object as it is, if it printed one.
    pub(crate) fn run(&self, command: &str) -> Result<Vec<u8>, Failure> {
        let path = self.find()?;
        let output =
            self.execute(&path, command).map_err(|e| self.failed(format!("{}: {e}", path.display())))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        if serde_json::from_slice::<ErrorObject>(&output.stdout).is_ok() {
            return Err(Failure::of_plugin(output.stdout));
        }
        let printed: String = String::from_utf8_lossy(&output.stdout).chars().take(REPEATED).collect();
        let path = path.display();
        Err(self.failed(format!("{path} {command}: {}; no error object, but {printed:?}", output.status)))
    }

    fn execute(&self, path: &PathBuf, command: &str) -> io::Result<Output> {
        let mut child = start(path, command)?;
        let stdin = child.stdin.take();
        thread::scope(|scope| {
            // Beside reading: a plugin may print before it has read everything. One that does not read is none of ours.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(self.config)));
            child.wait_with_output()
        })
    }

    /// The first file of that name in the folders of CNI_PATH that can be run.
    fn find(&self) -> Result<PathBuf, Failure> {
        let folders = env("CNI_PATH");
        let runs = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let paths =
            folders.split(':').filter(|f| !f.is_empty()).map(|folder| PathBuf::from(folder).join(self.name));
        paths.into_iter().find(runs).ok_or_else(|| {
            let details = format!("ipam.type {:?}: no such plugin in CNI_PATH {folders:?}", self.name);
            Failure::new(CONFIG, "network configuration", details).in_version(self.version)
        })
    }

    fn failed(&self, details: String) -> Failure {
        Failure::new(IPAM_FAILED, format!("ipam plugin {}", self.name), details).in_version(self.version)
    }
}

/// Starts a plugin. One that is being installed is open for writing, and the kernel starts no such file (ETXTBSY, execve(2)):
/// it is waited for, as libcni does.
fn start(path: &PathBuf, command: &str) -> io::Result<Child> {
    let begin = Instant::now();
    loop {
        // Standard error is the runtime's, as ours is.
        let started = Command::new(path)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        match started {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && begin.elapsed() < INSTALLED_WITHIN => {
                thread::sleep(INSTALLED_WITHIN / 250);
            }
            started => return started,
        }
    }
}
