//! What was begun, on disk before it is done.
//!
//! A file of lines, each a checksum and a JSON entry, only ever added to, and on the disk before what it says is done.
//! From its start follows the [`State`]: what pods have, what was set aside for a while, which step was under way. A line
//! that was being written when the power went is dropped: what it announced was not begun. Any other damage is refused,
//! as nobody could tell any more which VF is whose; [`Journal::salvage`] is the way out. A line that cannot be written, as
//! the disk is full, is taken back, and nothing is done that it says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use culvert_api::agent::PlanStep;
use culvert_api::value::PciAddress;
use tracing::warn;

use super::attachment::Attachment;
use super::identity::Leases;
use super::step::{Action, Object, Step};
use crate::errors::chain;
use crate::pods::Key;

mod entry;
#[cfg(test)]
pub(super) mod faults;
mod salvage;
mod state;
#[cfg(test)]
mod tests;

use entry::{Entry, line, parse};
pub use salvage::Salvaged;
pub(super) use state::State;

/// The journal, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    state: State,
    lines: usize,
    /// Bytes that are good.
    len: u64,
    /// Lines after which the file is written anew, with only what still counts.
    compact_at: usize,
    /// A write failed: nobody knows what is on the disk. The file is written anew before anything else.
    soiled: bool,
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file or its folder.
    #[error("journal {}: cannot {action}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not what was written.
    #[error(
        "journal {}: line {line} is damaged: {reason}; `culvert-agent --discard-journal` with the same configuration sets \
         the file aside and goes on with the lines that are whole",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first bad line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Lines that are added before the file is written anew.
const COMPACT_AFTER: usize = 2000;

impl Journal {
    /// Opens the journal in `folder`, makes folder and file if there are none, and reads what it amounts to. Entries of
    /// another boot than `boot` do not count, but for MACs: VFs and namespaces went with it.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged other than at its very end.
    pub(super) fn open(folder: &Path, boot: &str) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        make_folder(folder).map_err(|e| JournalError::new(&path, "make its folder", e))?;
        let text = read(&path)?;
        let mut state = State::default();
        for (line, entry) in parse(&text).into_iter().enumerate() {
            let damaged = |reason| JournalError::Damaged { path: path.clone(), line: line + 1, reason };
            state.apply(entry.map_err(damaged)?);
        }
        if state.boot != boot {
            state.apply(Entry::Boot { id: boot.to_owned() });
        }
        Self::create(path, state)
    }

    /// Puts a journal in place that amounts to `state`.
    fn create(path: PathBuf, state: State) -> Result<Self, JournalError> {
        let (file, lines, len) = fresh(&path, &state).map_err(|e| JournalError::new(&path, "write it", e))?;
        install(&path).map_err(|e| JournalError::new(&path, "write it", e))?;
        sync_folder(&path).map_err(|e| JournalError::new(&path, "write it", e))?;
        Ok(Self {
            path,
            file,
            state,
            lines,
            len,
            compact_at: COMPACT_AFTER,
            soiled: false,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    /// What it amounts to.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Announces a step.
    pub(super) fn begin(&mut self, step: &Step) -> Result<(), JournalError> {
        if let Action::Autoprobe(on) = step.action
            && !self.state.autoprobe.contains_key(&step.object.pf)
        {
            self.add(Entry::Autoprobe { pf: step.object.pf, before: !on })?;
        }
        let PlanStep { object, action, write, .. } = PlanStep::from(step);
        let binds = matches!(step.action, Action::Bind(_)).then_some(step.object);
        self.add(Entry::Begin { object, action, write, binds })
    }

    /// The announced step is done, or failed.
    pub(super) fn end(&mut self, step: &Step, ok: bool) -> Result<(), JournalError> {
        self.add(Entry::End { ok })?;
        let pf = step.object.pf;
        if ok && matches!(step.action, Action::NumVfs(_)) {
            // The VFs are others now.
            let gone: Vec<Object> = self.state.unsettled.iter().copied().filter(|vf| vf.pf == pf).collect();
            gone.into_iter().try_for_each(|vf| self.add(Entry::Settled { vf }))?;
        }
        match step.action {
            Action::Autoprobe(on) if ok && self.state.autoprobe.get(&pf) == Some(&on) => {
                self.add(Entry::AutoprobeRestored { pf })
            }
            _ => Ok(()),
        }
    }

    /// Records a pod's VF, before what it says is done.
    pub(super) fn attachment(&mut self, attachment: Attachment) -> Result<(), JournalError> {
        self.add(Entry::Attachment(Box::new(attachment)))
    }

    /// The VF is nobody's again.
    pub(super) fn released(&mut self, key: &Key) -> Result<(), JournalError> {
        self.add(Entry::Released { key: key.clone() })
    }

    /// Records MACs that VFs get out of pools, before they get them.
    pub(super) fn lease(&mut self, leases: &Leases) -> Result<(), JournalError> {
        for ((pf, vf), mac) in leases {
            self.add(Entry::Mac { pf: pf.clone(), vf: *vf, mac: *mac })?;
        }
        Ok(())
    }

    /// Records PFs whose autoprobe turned out to be as it was.
    pub(super) fn restored(&mut self, pfs: &[PciAddress]) -> Result<(), JournalError> {
        pfs.iter().try_for_each(|pf| self.add(Entry::AutoprobeRestored { pf: *pf }))
    }

    /// Writes an entry and waits until it is on the disk.
    fn add(&mut self, entry: Entry) -> Result<(), JournalError> {
        if self.soiled {
            self.compact()?;
        }
        let line = line(&entry);
        if let Err(source) = self.write(line.as_bytes()) {
            self.soiled = true;
            self.take_back();
            return Err(JournalError::new(&self.path, "write to it", source));
        }
        self.len += line.len() as u64;
        self.lines += 1;
        self.state.apply(entry);
        if self.lines > self.compact_at {
            self.compact_at = match self.compact() {
                Ok(()) => COMPACT_AFTER,
                Err(e) => {
                    warn!("the journal stays as long as it is for now: {}", chain(&e));
                    self.lines + COMPACT_AFTER
                }
            };
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.faults.before(&mut self.file, line)?;
        self.file.write_all(line)?;
        self.file.sync_data()?;
        #[cfg(test)]
        self.faults.after();
        Ok(())
    }

    /// Cuts off what was written of a line that could not be written whole. Should that fail, too, the line is torn, or it
    /// announces what is not done: either does no harm.
    fn take_back(&mut self) {
        #[cfg(test)]
        if self.faults.dead {
            return;
        }
        if let Err(e) = self.file.set_len(self.len).and_then(|()| self.file.sync_data()) {
            warn!("{}: a line that could not be written stays: {e}", self.path.display());
        }
    }

    /// Writes the file anew with only what still counts, beside the old one until it is complete.
    fn compact(&mut self) -> Result<(), JournalError> {
        let failed = |e| JournalError::new(&self.path, "write it anew", e);
        let fresh = fresh(&self.path, &self.state).map_err(failed)?;
        install(&self.path).map_err(failed)?;
        (self.file, self.lines, self.len) = fresh;
        // Which of the two a crash would leave is not known before this.
        let synced = sync_folder(&self.path).map_err(failed);
        self.soiled = synced.is_err();
        synced
    }
}

impl JournalError {
    fn new(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), action, source }
    }
}

/// Name of the file.
const FILE: &str = "nic.journal";

/// The bytes of a journal; none if there is none.
fn read(path: &Path) -> Result<Vec<u8>, JournalError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(JournalError::new(path, "read it", e)),
    }
}

/// Makes a folder that is still there after a crash.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    sync_folder(folder)
}

/// Writes a file beside `path` that amounts to `state`; returns it, its lines and its bytes. A step that was under way is
/// not carried over: the next plan starts from what there is.
fn fresh(path: &Path, state: &State) -> io::Result<(File, usize, u64)> {
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let entries = state.entries();
    let text: String = entries.iter().map(line).collect();
    let mut file = OpenOptions::new().append(true).create_new(true).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok((file, entries.len(), text.len() as u64))
}

/// Puts what [`fresh`] has written in the place of the journal.
fn install(path: &Path) -> io::Result<()> {
    fs::rename(beside(path), path)
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("journal.new")
}

/// Makes sure that the folder of `path` names it after a crash.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
