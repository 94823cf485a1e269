//! A folder of Kubernetes YAML files and what was last read well from each.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{debug, error, info, warn};

use super::Snapshot;
use super::manifest::Manifest;
use super::object::{Object, ObjectId, Objects};

/// The folder. Files whose name begins with a dot, or does not end in `.yaml`, `.yml` or `.json`, are none of ours.
///
/// A copy of each file as it was last read well outlives the agent: a file that is malformed when the agent starts
/// again keeps in force what it held, as it would have without the restart.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    copies: PathBuf,
    /// By name: the order decides which of two files with the same object counts.
    files: BTreeMap<String, File>,
    unreadable: Option<String>,
    synced: bool,
}

/// Which files to read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// These, whatever they look like: something was heard of them.
    pub named: BTreeSet<String>,
    /// And which of the others.
    pub others: Others,
}

/// Which files to read again of those that nothing was heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Others {
    /// None but new ones.
    #[default]
    None,
    /// Those that look different and have been left alone for [`SETTLED`]: a file that is just being written must
    /// not be read.
    Settled,
    /// All that look different.
    Changed,
}

/// How long a file has been left alone when its writer is taken to be done.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// What was last read well; `None` if the file never was.
    objects: Option<Vec<Object>>,
    error: Option<String>,
}

/// What changes when the content of a file does, short of two writes within one tick of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Folder {
    /// The folder at `path`, of which nothing has been read. `copies` is the folder for the copies.
    pub fn new(path: impl Into<PathBuf>, copies: impl Into<PathBuf>) -> Self {
        let (path, copies) = (path.into(), copies.into());
        Self { path, copies, files: BTreeMap::new(), unreadable: None, synced: false }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file of this name is read.
    pub fn is_ours(name: &str) -> bool {
        let suffix = name.rsplit_once('.').map(|(_, suffix)| suffix);
        !name.starts_with('.') && matches!(suffix, Some("yaml" | "yml" | "json"))
    }

    /// Reads what `look` says. Returns the new state if it differs from the one before.
    ///
    /// A folder that cannot be listed, or a file that cannot be read or is malformed, is a problem to report: what
    /// was last read well stays in force.
    pub fn read(&mut self, look: &Look) -> Option<Snapshot> {
        let was_synced = self.synced;
        let mut changed = match self.list() {
            Ok(names) => {
                let healed = self.unreadable.take().is_some();
                self.forget_all_but(&names) | self.read_files(&names, look) | healed
            }
            Err(e) => self.cannot_list(&e),
        };
        // A file that never was read well has nothing in force that could be missed.
        self.synced |= self.unreadable.is_none();
        changed |= self.synced != was_synced;
        changed.then(|| self.snapshot())
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            match entry?.file_name().into_string() {
                Ok(name) if Self::is_ours(&name) => drop(names.insert(name)),
                Ok(_) => {}
                Err(name) => debug!(?name, "name is no UTF-8, file ignored"),
            }
        }
        Ok(names)
    }

    fn cannot_list(&mut self, source: &io::Error) -> bool {
        let problem = format!("{}: cannot list the folder: {source}", self.path.display());
        let new = self.unreadable.as_ref() != Some(&problem);
        if new {
            error!("{problem}; what was read from it before stays in force");
        }
        self.unreadable = Some(problem);
        new
    }

    fn forget_all_but(&mut self, names: &BTreeSet<String>) -> bool {
        let before = self.files.len();
        self.files.retain(|name, _| {
            let keep = names.contains(name);
            if !keep {
                info!(file = name, "removed");
                forget_copy(&self.copies.join(name));
            }
            keep
        });
        self.files.len() != before
    }

    fn read_files(&mut self, names: &BTreeSet<String>, look: &Look) -> bool {
        let mut changed = false;
        for name in names {
            let path = self.path.join(name);
            let mut file = self.files.remove(name);
            let known = file.is_some();
            changed |= match fs::metadata(&path) {
                Ok(meta) if File::wanted(file.as_ref(), &meta, name, look) => {
                    let file = file.get_or_insert_default();
                    file.stamp = Some(Stamp::of(&meta));
                    file.read(&path, name, &self.copies)
                }
                Ok(_) => false,
                // Gone since the folder was listed, or a link to nothing.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    forget_copy(&self.copies.join(name));
                    file.take().is_some()
                }
                Err(e) => file.get_or_insert_default().fail(name, &e.to_string(), &self.copies),
            };
            changed |= file.is_some() != known;
            if let Some(file) = file {
                self.files.insert(name.clone(), file);
            }
        }
        changed
    }

    fn snapshot(&self) -> Snapshot {
        let mut objects = Objects::default();
        let mut problems: Vec<String> = self.unreadable.iter().cloned().collect();
        let mut origin: BTreeMap<ObjectId, &str> = BTreeMap::new();
        for (name, file) in &self.files {
            problems.extend(file.error.clone());
            for object in file.objects.iter().flatten() {
                match origin.entry(object.id()) {
                    Entry::Vacant(entry) => {
                        entry.insert(name);
                        objects.insert(object.clone());
                    }
                    Entry::Occupied(first) => problems.push(format!(
                        "{}: is in {} and again in {name}; the first counts, remove one of them",
                        first.key(),
                        first.get()
                    )),
                }
            }
        }
        Snapshot { objects, synced: self.synced, problems }
    }
}

impl File {
    /// Whether `file` (`None`: not known yet) is to be read.
    fn wanted(file: Option<&Self>, meta: &Metadata, name: &str, look: &Look) -> bool {
        let differs = file.is_none_or(|f| f.stamp != Some(Stamp::of(meta)));
        match look.others {
            _ if look.named.contains(name) => true,
            Others::None => false,
            Others::Changed => differs,
            Others::Settled => {
                let age = meta.modified().ok().and_then(|m| SystemTime::now().duration_since(m).ok());
                let settled = age.is_none_or(|age| age >= SETTLED);
                // `kubectl get ... > FILE` empties the file seconds before it writes.
                let held = file.and_then(|f| f.objects.as_ref()).is_some_and(|o| !o.is_empty());
                differs && settled && !(held && meta.size() == 0)
            }
        }
    }

    /// Reads the file; whether anything about it is different from before.
    fn read(&mut self, path: &Path, name: &str, copies: &Path) -> bool {
        let read = fs::read_to_string(path).map_err(|e| e.to_string());
        match read.and_then(|text| Manifest::parse(&text).map(|m| (m, text)).map_err(|e| e.to_string())) {
            Ok((manifest, text)) => {
                for ignored in &manifest.ignored {
                    debug!(file = name, "{ignored}: not a kind the agent uses, ignored");
                }
                let recovered = self.error.take().is_some();
                let changed = self.objects.as_ref() != Some(&manifest.objects);
                if changed {
                    info!(file = name, objects = manifest.objects.len(), "read");
                    copy(copies, name, &text);
                }
                self.objects = Some(manifest.objects);
                changed || recovered
            }
            Err(reason) => self.fail(name, &reason, copies),
        }
    }

    fn fail(&mut self, name: &str, reason: &str, copies: &Path) -> bool {
        let problem = format!("{name}: {reason}");
        let new = self.error.as_ref() != Some(&problem);
        if self.objects.is_none() {
            let copy = fs::read_to_string(copies.join(name)).ok();
            self.objects = copy.and_then(|text| Manifest::parse(&text).ok()).map(|manifest| manifest.objects);
        }
        if new && self.objects.is_some() {
            warn!("{problem}; its content from before stays in force");
        } else if new {
            warn!("{problem}; nothing of it is used");
        }
        self.error = Some(problem);
        new
    }
}

/// Keeps `text` for an agent to come. Without a copy that agent only does without what it holds, should the file be
/// malformed then: no reason to fail here.
fn copy(copies: &Path, name: &str, text: &str) {
    // The suffix is none of ours: such a file is never read as a copy.
    let new = copies.join(format!("{name}.new"));
    let made = fs::create_dir_all(copies)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, copies.join(name)));
    if let Err(e) = made {
        warn!(file = name, "no copy can be kept in {}: {e}", copies.display());
    }
}

fn forget_copy(copy: &Path) {
    match fs::remove_file(copy) {
        Err(e) if e.kind() != ErrorKind::NotFound => warn!("{}: cannot remove it: {e}", copy.display()),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
