//! A throw-away virtual machine with emulated SR-IOV NICs.
//!
//! QEMU's `igb` (Intel 82576) is a NIC whose virtual functions, port VLANs, spoof check and IOMMU groups work as
//! hardware's do. The guest's root is this machine's own, read-only over 9p under a tmpfs, so whatever has been built
//! here runs there unchanged; its kernel is Debian's, unpacked by `ci/setup`. Emulation (TCG) is enough: no /dev/kvm.

mod cases;
mod follow;
mod qemu;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::frame::{Outcome, Stop, tail};
pub use cases::run_in_guest;
use follow::Follow;
pub use qemu::pf_mac;

/// The guest.
#[derive(Debug)]
pub struct Guest {
    files: PathBuf,
    dir: TempDir,
}

/// Longest time from the start of QEMU to its end.
pub const LIMIT: Duration = Duration::from_secs(1200);

impl Guest {
    /// Finds what `ci/setup` has prepared.
    ///
    /// # Errors
    /// Skips when QEMU or the guest's kernel is missing, and says which.
    pub fn prepare() -> Outcome<Self> {
        let missing = |what: &str| Stop::Skip(format!("{what} is missing: run `make setup`"));
        let found = Command::new(qemu::PROGRAM).arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(missing(qemu::PROGRAM));
        }
        let files = cache().join("guest");
        for file in ["kernel", "initramfs", "lib/modules"] {
            if !files.join(file).exists() {
                return Err(missing(&files.join(file).display().to_string()));
            }
        }
        Ok(Self { files, dir: tempfile::Builder::new().prefix("culvert-guest-").tempdir()? })
    }

    /// Boots, runs a command as root, gives each line that it prints to `line` as it comes, powers off, and returns
    /// the command's exit status.
    ///
    /// # Errors
    /// When the guest does not boot, prints nothing for `silence`, or takes longer than [`LIMIT`]; the end of its serial
    /// console is in the error.
    pub fn run(self, command: &[String], silence: Duration, mut line: impl FnMut(&str)) -> Outcome<i32> {
        let at = |name: &str| self.dir.path().join(name);
        let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
        fs::write(at("command"), words.join(" ") + "\n")?;
        let output = File::create(at("output"))?;
        let log = File::create(at("qemu"))?;
        let mut qemu = Machine(
            Command::new(qemu::PROGRAM)
                .args(qemu::arguments(&self.files, self.dir.path()))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?,
        );
        let mut follow = Follow::new(File::open(at("output"))?);
        drop(output);
        let start = Instant::now();
        let mut heard = start;
        let lost = loop {
            follow.lines(&mut |text| {
                heard = Instant::now();
                line(text);
            })?;
            if qemu.0.try_wait()?.is_some() {
                break None;
            }
            if start.elapsed() > LIMIT {
                break Some(format!("the guest was not done within {} s", LIMIT.as_secs()));
            }
            if heard.elapsed() > silence {
                break Some(format!("the guest was silent for {} s", silence.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        drop(qemu);
        follow.finish(&mut line)?;
        let status = fs::read_to_string(at("status")).ok().and_then(|text| text.trim().parse().ok());
        match (status, lost) {
            (Some(status), None) => Ok(status),
            (_, lost) => Err(self.failure(lost.as_deref())),
        }
    }

    fn failure(&self, lost: Option<&str>) -> Stop {
        let mut text = lost.unwrap_or("the guest went down before its command had ended").to_owned();
        for name in ["qemu", "console"] {
            let log = fs::read(self.dir.path().join(name)).unwrap_or_default();
            text += &format!("\n--- {name}\n{}", tail(&String::from_utf8_lossy(&log), 25));
        }
        Stop::fail(text)
    }
}

/// A running QEMU; dropping it pulls the plug.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `ci/setup` puts what outlives a clone; `ci/lib.sh` has the same rule.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CULVERT_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("culvert")
    })
}

/// A word as the shell reads it back.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_quoted_word_is_one_word_again() {
        let word = "a 'b' $c \"d\"";
        let script = format!("printf %s {}", quote(word));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    }
}
