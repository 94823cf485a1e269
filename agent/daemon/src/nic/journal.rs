//! What was begun, on disk before it is done.
//!
//! A file of lines, each a checksum and a JSON entry, only ever added to and synced after each. From the start of it
//! follows the [`State`]: what pods have, what was set aside for a while, which step was under way. A line that was being
//! written when the power went is dropped: what it announced was not begun. Any other damage is refused, as nobody
//! could tell any more which VF is whose.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use culvert_api::agent::PlanStep;
use culvert_api::hash::fnv1a;
use culvert_api::value::PciAddress;
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::step::{Action, Step};
use crate::pods::Key;

#[cfg(test)]
mod tests;

/// The journal, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    state: State,
    lines: usize,
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
    pub under_way: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Entry {
    /// The machine was booted; nothing from before counts.
    Boot { id: String },
    /// A step is about to be done.
    Begin { object: String, action: String, write: String },
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
        "journal {}: line {line} is damaged: {reason}; pods' VFs are recorded there. When no pod on this node has a VF, \
         move the file away and start again",
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

/// Lines after which the file is written anew, with only what still counts.
const COMPACT_AFTER: usize = 2000;

impl Journal {
    /// Opens the journal in `folder`, makes folder and file if there are none, and reads what it amounts to. Entries of
    /// another boot than `boot` do not count: VFs and namespaces went with it.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged other than at its very end.
    pub(super) fn open(folder: &Path, boot: &str) -> Result<Self, JournalError> {
        let path = folder.join("nic.journal");
        let failed = |action| {
            let path = path.clone();
            move |source| JournalError::File { path, action, source }
        };
        fs::create_dir_all(folder).map_err(failed("make its folder"))?;
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed("read it")(e)),
        };
        let mut state = State::default();
        for (line, entry) in parse(&text).into_iter().enumerate() {
            let damaged = |reason| JournalError::Damaged { path: path.clone(), line: line + 1, reason };
            state.apply(entry.map_err(damaged)?);
        }
        if state.boot != boot {
            state = State { boot: boot.to_owned(), ..State::default() };
        }
        let (file, lines) = rewrite(&path, &state)?;
        Ok(Self { path, file, state, lines })
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
        let PlanStep { object, action, write } = PlanStep::from(step);
        self.add(Entry::Begin { object, action, write })
    }

    /// The announced step is done, or failed.
    pub(super) fn end(&mut self, step: &Step, ok: bool) -> Result<(), JournalError> {
        self.add(Entry::End { ok })?;
        let pf = step.object.pf;
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

    /// Writes an entry and waits until it is on the disk.
    fn add(&mut self, entry: Entry) -> Result<(), JournalError> {
        let line = line(&entry);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| JournalError::File {
            path: self.path.clone(),
            action: "write to it",
            source,
        })?;
        self.state.apply(entry);
        self.lines += 1;
        if self.lines > COMPACT_AFTER {
            (self.file, self.lines) = rewrite(&self.path, &self.state)?;
        }
        Ok(())
    }
}

impl State {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Boot { id } => *self = Self { boot: id, ..Self::default() },
            Entry::Begin { object, action, .. } => self.under_way = Some(format!("{object}: {action}")),
            Entry::End { .. } => self.under_way = None,
            Entry::Autoprobe { pf, before } => drop(self.autoprobe.insert(pf, before)),
            Entry::AutoprobeRestored { pf } => drop(self.autoprobe.remove(&pf)),
            Entry::Attachment(attachment) => {
                self.attachments.insert(attachment.key.clone(), *attachment);
            }
            Entry::Released { key } => drop(self.attachments.remove(&key)),
        }
    }

    /// The fewest entries that amount to this.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Boot { id: self.boot.clone() }];
        entries
            .extend(self.autoprobe.iter().map(|(pf, before)| Entry::Autoprobe { pf: *pf, before: *before }));
        entries.extend(self.attachments.values().cloned().map(|a| Entry::Attachment(Box::new(a))));
        entries
    }
}

/// Writes the file anew, beside the old one until it is complete. A step that was under way is not carried over: the next
/// plan starts from what there is.
fn rewrite(path: &Path, state: &State) -> Result<(File, usize), JournalError> {
    let entries = state.entries();
    let text: String = entries.iter().map(line).collect();
    let fresh = path.with_extension("journal.new");
    let write = || {
        fs::write(&fresh, text)?;
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        OpenOptions::new().append(true).open(path)
    };
    let file = write().map_err(|source| JournalError::File {
        path: path.to_owned(),
        action: "write it anew",
        source,
    })?;
    Ok((file, entries.len()))
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
