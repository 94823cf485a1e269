//! A folder of Kubernetes YAML files and what was last read well from each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{debug, error, info, warn};

use super::Snapshot;
use super::manifest::Manifest;
use super::object::Object;

mod union;

use union::Union;

/// The folder. Files whose name begins with a dot, or does not end in `.yaml`, `.yml` or `.json`, are none of ours.
///
/// A copy of each file as it was last read well outlives the agent: a file that is malformed when the agent starts
/// again keeps in force what it held, as it would have without the restart.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    copies: PathBuf,
    files: BTreeMap<String, File>,
    /// What they hold.
    union: Union,
    /// What is wrong with files, by name.
    faults: BTreeMap<String, String>,
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
    /// None.
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
        Self {
            path,
            copies,
            files: BTreeMap::new(),
            union: Union::default(),
            faults: BTreeMap::new(),
            unreadable: None,
            synced: false,
        }
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
        let known = self.synced && self.unreadable.is_none();
        let changed = match look.others {
            // Of the others nothing is to be known: the folder is not even listed.
            Others::None if known && fs::metadata(&self.path).is_ok_and(|m| m.is_dir()) => {
                look.named.iter().fold(false, |changed, name| self.look_at(name, look) | changed)
            }
            _ => self.read_all(look),
        };
        changed.then(|| self.snapshot())
    }

    fn read_all(&mut self, look: &Look) -> bool {
        let was_synced = self.synced;
        let changed = match self.list() {
            Ok(names) => {
                let healed = self.unreadable.take().is_some();
                let gone = self.forget_all_but(&names);
                names.iter().fold(healed | gone, |changed, name| self.look_at(name, look) | changed)
            }
            Err(e) => self.cannot_list(&e),
        };
        // A file that never was read well has nothing in force that could be missed.
        self.synced |= self.unreadable.is_none();
        changed | (self.synced != was_synced)
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
        let gone: Vec<String> = self.files.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().fold(false, |changed, name| self.forget(name) | changed)
    }

    fn forget(&mut self, name: &str) -> bool {
        forget_copy(&self.copies.join(name));
        self.faults.remove(name);
        let Some(file) = self.files.remove(name) else { return false };
        info!(file = name, "removed");
        self.union.replace(name, file.objects.as_deref().unwrap_or_default(), &[], &self.files);
        true
    }

    /// Reads a file if `look` wants it; whether anything about it is different from before.
    fn look_at(&mut self, name: &str, look: &Look) -> bool {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(meta) if File::wanted(self.files.get(name), &meta, name, look) => {
                self.files.entry(name.to_owned()).or_default().stamp = Some(Stamp::of(&meta));
                self.read_file(name, &path)
            }
            Ok(_) => false,
            // Gone since the folder was listed, or a link to nothing. The folder itself may have been away for a moment.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::metadata(&self.path).is_ok()
                    && fs::metadata(&path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
                    && self.forget(name)
            }
            Err(e) => self.fail(name, &e.to_string()),
        }
    }

    /// Reads a file; whether anything about it is different from before.
    fn read_file(&mut self, name: &str, path: &Path) -> bool {
        let read = fs::read_to_string(path).map_err(|e| e.to_string());
        match read.and_then(|text| Manifest::parse(&text).map(|m| (m, text)).map_err(|e| e.to_string())) {
            Ok((manifest, text)) => {
                for ignored in &manifest.ignored {
                    debug!(file = name, "{ignored}: not a kind the agent uses, ignored");
                }
                let recovered = self.faults.remove(name).is_some();
                let before = self.files.get(name).and_then(|file| file.objects.as_ref());
                let changed = before != Some(&manifest.objects);
                if changed {
                    info!(file = name, objects = manifest.objects.len(), "read");
                    copy(&self.copies, name, &text);
                    self.hold(name, manifest.objects);
                }
                changed || recovered
            }
            Err(reason) => self.fail(name, &reason),
        }
    }

    /// Puts `objects` in the place of what a file held.
    fn hold(&mut self, name: &str, objects: Vec<Object>) {
        let mut file = self.files.remove(name).unwrap_or_default();
        let before = file.objects.take().unwrap_or_default();
        let objects = union::shared(&before, objects);
        self.union.replace(name, &before, &objects, &self.files);
        self.files.insert(name.to_owned(), File { objects: Some(objects), ..file });
    }

    fn fail(&mut self, name: &str, reason: &str) -> bool {
        let problem = format!("{name}: {reason}");
        let new = self.faults.get(name) != Some(&problem);
        if self.files.entry(name.to_owned()).or_default().objects.is_none() {
            let copy = fs::read_to_string(self.copies.join(name)).ok();
            if let Some(manifest) = copy.and_then(|text| Manifest::parse(&text).ok()) {
                self.hold(name, manifest.objects);
            }
        }
        if new && self.files.get(name).is_some_and(|file| file.objects.is_some()) {
            warn!("{problem}; its content from before stays in force");
        } else if new {
            warn!("{problem}; nothing of it is used");
        }
        self.faults.insert(name.to_owned(), problem);
        new
    }

    fn snapshot(&self) -> Snapshot {
        let problems = self.unreadable.iter().chain(self.faults.values()).cloned();
        Snapshot {
            objects: self.union.objects().clone(),
            synced: self.synced,
            problems: problems.chain(self.union.problems()).collect(),
        }
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
