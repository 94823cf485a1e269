//! The way out of a damaged journal.
//!
//! Every line bears its own checksum, so those that are whole can be trusted. What the others said is lost: at worst that a
//! pod has a VF. Such a VF is in use as the machine and kubelet show it, so no plan touches it, and once the pod is gone a
//! plan makes it what the policy says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{FILE, Journal, JournalError, State, parse, read, sync_folder};

/// What became of a damaged journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Where the damaged file is now.
    pub aside: PathBuf,
    /// Lines that were lost: their numbers, and what is wrong with them.
    pub lost: Vec<(usize, String)>,
    /// Lines that were whole.
    pub kept: usize,
    /// Pods that have VFs according to those, and which.
    pub pods: Vec<String>,
}

impl Journal {
    /// Sets a damaged journal in `folder` aside and puts one in its place that amounts to the lines that are whole. `None` if
    /// nothing is damaged; then nothing is done. `boot` is the machine's, for when that line is damaged itself.
    ///
    /// # Errors
    /// When it cannot be read or written. The damaged file is there then, under one name or both.
    pub(in super::super) fn salvage(folder: &Path, boot: &str) -> Result<Option<Salvaged>, JournalError> {
        let path = folder.join(FILE);
        let bytes = read(&path)?;
        let mut state = State { boot: boot.to_owned(), ..State::default() };
        let (mut lost, mut kept) = (Vec::new(), 0);
        for (line, entry) in (1..).zip(parse(&bytes)) {
            match entry {
                Ok(entry) => {
                    state.apply(entry);
                    kept += 1;
                }
                Err(reason) => lost.push((line, reason)),
            }
        }
        if lost.is_empty() {
            return Ok(None);
        }
        let aside = set_aside(&path).map_err(|e| JournalError::new(&path, "set it aside", e))?;
        let pods = state
            .attachments
            .values()
            .map(|a| format!("{} has {} as {}", a.owner, a.vf, a.key.ifname))
            .collect();
        Self::create(path, state)?;
        Ok(Some(Salvaged { aside, lost, kept, pods }))
    }
}

/// Gives the file a second name that nothing has.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let aside = path.with_extension(format!("journal.damaged-{number}"));
        match fs::hard_link(path, &aside) {
            Ok(()) => return sync_folder(path).map(|()| aside),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}
