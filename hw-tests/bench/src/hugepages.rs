//! Hugepages, reserved for the measurement and given back.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
const SYSFS: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Bytes of a hugepage, in MB.
const PAGE: u64 = 2;

/// Why there are too few.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HugepageError {
    #[error("{path}")]
    File { path: String, source: io::Error },
    #[error("{path}: {text:?} is not a number")]
    Number { path: String, text: String },
    #[error(
        "{wanted} MB of hugepages are needed, but the kernel found only {free} MB: free memory, or measure fewer flows"
    )]
    TooFew { wanted: u64, free: u64 },
    #[error("signals cannot be waited for")]
    Signals(#[from] nix::Error),
}

/// More hugepages than before; dropping it sets the old number again.
#[derive(Debug)]
pub(crate) struct Reservation {
    before: u64,
    grown: bool,
}

impl Reservation {
    /// Makes sure that `megabytes` are free.
    pub(crate) fn of(megabytes: u64) -> Result<Self, HugepageError> {
        let (before, available) = (number(RESERVED)?, free()?);
        let wanted = megabytes.div_ceil(PAGE);
        if available >= wanted {
            return Ok(Self { before, grown: false });
        }
        restore_on_signals(before)?;
        write(before + wanted - available)?;
        // From here on the old number comes back whatever happens.
        let reservation = Self { before, grown: true };
        match free()? {
            free if free >= wanted => Ok(reservation),
            free => Err(HugepageError::TooFew { wanted: megabytes, free: free * PAGE }),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.grown
            && let Err(error) = write(self.before)
        {
            eprintln!("culvert-bench: hugepages are still reserved: {error}");
        }
    }
}

/// Ends the program at a signal, but not before the old number is set. To be called while there is one thread only, as
/// others inherit from it which signals they leave alone.
fn restore_on_signals(before: u64) -> Result<(), HugepageError> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            // The pages in use are given back by the kernel as the process ends.
            let _ = write(before);
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}

fn free() -> Result<u64, HugepageError> {
    number(&format!("{SYSFS}/free_hugepages"))
}

fn number(path: &str) -> Result<u64, HugepageError> {
    let text =
        fs::read_to_string(path).map_err(|source| HugepageError::File { path: path.to_owned(), source })?;
    text.trim()
        .parse()
        .map_err(|_| HugepageError::Number { path: path.to_owned(), text: text.trim().to_owned() })
}

fn write(pages: u64) -> Result<(), HugepageError> {
    fs::write(Path::new(RESERVED), pages.to_string())
        .map_err(|source| HugepageError::File { path: RESERVED.to_owned(), source })
}
