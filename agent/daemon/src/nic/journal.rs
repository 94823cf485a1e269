//! What was begun, on disk before it is done.
//!
//! A file of lines, each a checksum and a JSON entry, only ever added to, and on the disk before what it says is done. From the start of it
//! follows the [`State`]: what pods have, what was set aside for a while, which step was under way. A line that was being
//! written when the power went is dropped: what it announced was not begun. Any other damage is refused, as nobody
//! could tell any more which VF is whose; [`Journal::salvage`] is the way out. A line that cannot be written, as the disk
//! is full, is taken back, and nothing is done that it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use culvert_api::agent::PlanStep;
use culvert_api::hash::fnv1a;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::attachment::Attachment;
use super::identity::{Leases, renew};
use super::step::{Action, Object, Step};
use crate::errors::chain;
use crate::pods::Key;

#[cfg(test)]
pub(super) mod faults;
mod salvage;
#[cfg(test)]
mod tests;

pub use salvage::Salvaged;

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

/// What the journal amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The boot of the machine that all of this happened in.
    pub boot: String,
    /// PFs that leave new VFs without drivers for a while, and what they did before.
    pub autoprobe: BTreeMap<PciAddress, bool>,
    /// VFs that pods have, or are getting or giving back.
    pub attachments: BTreeMap<Key, Attachment>,
    /// The step that was begun and not ended.
    pub under_way: Option<UnderWay>,
    /// VFs whose driver was being changed when the agent ended, or when that failed: what is left of it nobody can see
    /// (reading `driver_override` may hang), and their driver has to probe anew.
    pub unsettled: BTreeSet<Object>,
    /// MACs that VFs have out of pools, boot after boot.
    pub leases: Leases,
}

/// A step that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnderWay {
    /// The step, for people.
    pub text: String,
    /// The VF whose driver it changes.
    binds: Option<Object>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Entry {
    /// The machine was booted; of what was before only MACs count.
    Boot { id: String },
    /// A step is about to be done.
    Begin {
        object: String,
        action: String,
        write: String,
        /// The VF whose driver it changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        binds: Option<Object>,
    },
    /// It is done, or failed.
    End { ok: bool },
    /// A PF's autoprobe is about to be changed; it was `before`.
    Autoprobe { pf: PciAddress, before: bool },
    /// It is as it was.
    AutoprobeRestored { pf: PciAddress },
    /// A pod's VF, as it is now or is about to be.
    Attachment(Box<Attachment>),
    /// The VF is nobody's again.
    Released { key: Key },
    /// A VF's driver was being changed when the agent ended.
    Unsettled { vf: Object },
    /// That VF is gone.
    Settled { vf: Object },
    /// A VF has this MAC out of a pool from now on.
    Mac { pf: String, vf: VfIndex, mac: Mac },
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

impl State {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Boot { id } => {
                *self = Self { boot: id, leases: std::mem::take(&mut self.leases), ..Self::default() };
            }
            Entry::Begin { object, action, binds, .. } => {
                self.unsettled.extend(binds);
                self.under_way = Some(UnderWay { text: format!("{object}: {action}"), binds });
            }
            Entry::End { ok } => {
                if let (Some(vf), true) = (self.under_way.take().and_then(|step| step.binds), ok) {
                    self.unsettled.remove(&vf);
                }
            }
            Entry::Unsettled { vf } => drop(self.unsettled.insert(vf)),
            Entry::Settled { vf } => drop(self.unsettled.remove(&vf)),
            Entry::Autoprobe { pf, before } => drop(self.autoprobe.insert(pf, before)),
            Entry::AutoprobeRestored { pf } => drop(self.autoprobe.remove(&pf)),
            Entry::Attachment(attachment) => {
                self.attachments.insert(attachment.key.clone(), *attachment);
            }
            Entry::Released { key } => drop(self.attachments.remove(&key)),
            Entry::Mac { pf, vf, mac } => renew(&mut self.leases, pf, vf, mac),
        }
    }

    /// The fewest entries that amount to this.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Boot { id: self.boot.clone() }];
        entries
            .extend(self.autoprobe.iter().map(|(pf, before)| Entry::Autoprobe { pf: *pf, before: *before }));
        let lease =
            |((pf, vf), mac): (&(String, VfIndex), &Mac)| Entry::Mac { pf: pf.clone(), vf: *vf, mac: *mac };
        entries.extend(self.leases.iter().map(lease));
        entries.extend(self.unsettled.iter().map(|vf| Entry::Unsettled { vf: *vf }));
        entries.extend(self.attachments.values().cloned().map(|a| Entry::Attachment(Box::new(a))));
        entries
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

/// `CHECKSUM JSON\n`: sixteen hexadecimal digits of FNV-1a over the JSON.
fn line(entry: &Entry) -> String {
    let json = serde_json::to_string(entry).expect("has only texts and numbers");
    line_of(&json) + "\n"
}

fn line_of(json: &str) -> String {
    format!("{:016x} {json}", fnv1a(&[json.as_bytes()]))
}

/// The entries of a journal's bytes, without one at the very end that was not written to its end.
fn parse(bytes: &[u8]) -> Vec<Result<Entry, String>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after, ended) = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..], true),
            None => (rest, &[][..], false),
        };
        match parse_line(line) {
            // A file system may have made room for a line before its bytes arrived: the end is torn then, too.
            Err(_) if after.is_empty() || after.iter().all(|b| *b == 0) => break,
            entry if ended => entries.push(entry),
            _ => break,
        }
        rest = after;
    }
    entries
}

fn parse_line(line: &[u8]) -> Result<Entry, String> {
    let text = std::str::from_utf8(line).map_err(|e| e.to_string())?;
    let (checksum, json) = text.split_once(' ').ok_or("it has no checksum")?;
    if checksum.len() != 16 || u64::from_str_radix(checksum, 16) != Ok(fnv1a(&[json.as_bytes()])) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}
