//! Records on disk: one file each, replaced atomically and synced before it counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{error, info};

use super::record::{Key, Record};

/// All attachments of this node.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    records: Mutex<BTreeMap<Key, Record>>,
    damaged: Vec<String>,
}

/// A record that could not be written, or a folder that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Store {
    /// Opens the folder `attachments` below `state_dir` and makes it if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or read. A file in it that is damaged is left alone and reported by
    /// [`Store::damaged`].
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let folder = state_dir.join("attachments");
        let failed = |action| {
            let path = folder.clone();
            move |source| StoreError { action, path, source }
        };
        fs::create_dir_all(&folder).map_err(failed("make the folder"))?;
        let mut store = Self { folder: folder.clone(), records: Mutex::default(), damaged: Vec::new() };
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            match path.extension().and_then(|e| e.to_str()) {
                // Never finished: it does not count.
                Some("new") => fs::remove_file(&path).map_err(failed("tidy up"))?,
                Some("json") => match read(&path) {
                    Ok(record) => drop(records.insert(record.key.clone(), record)),
                    Err(e) => {
                        let problem = format!("{}: {e}", path.display());
                        error!("damaged record, its addresses may be given out again: {problem}");
                        store.damaged.push(problem);
                    }
                },
                _ => {}
            }
        }
        store.records = Mutex::new(records);
        Ok(store)
    }

    /// Files that hold no record, and why.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// The record of `key`.
    pub fn get(&self, key: &Key) -> Option<Record> {
        self.lock().get(key).cloned()
    }

    /// All records.
    pub fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// Makes a record in the light of all others, and writes it. Two calls never see the same state: what one has
    /// chosen the other finds taken.
    ///
    /// # Errors
    /// Those of `make`, and of writing; nothing is kept then.
    pub fn reserve<E: From<StoreError>>(
        &self,
        make: impl FnOnce(&BTreeMap<Key, Record>) -> Result<Record, E>,
    ) -> Result<Record, E> {
        let record = {
            let mut records = self.lock();
            let record = make(&records)?;
            records.insert(record.key.clone(), record.clone());
            record
        };
        if let Err(e) = self.write(&record) {
            self.lock().remove(&record.key);
            return Err(e.into());
        }
        Ok(record)
    }

    /// Writes `record` in place of the one of the same key.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        self.write(record)?;
        self.lock().insert(record.key.clone(), record.clone());
        Ok(())
    }

    /// Removes the record of `key`; that there is none is no error.
    pub fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => self.sync_folder()?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError { action: "remove", path, source }),
        }
        self.lock().remove(key);
        Ok(())
    }

    /// Removes the records of other boots than `boot`: no pod of theirs is left.
    pub fn forget_other_boots(&self, boot: &str) -> Result<(), StoreError> {
        for record in self.all().into_iter().filter(|r| r.boot != boot) {
            info!(pod = record.owner(), "of an earlier boot, forgotten");
            self.remove(&record.key)?;
        }
        Ok(())
    }

    fn write(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.path(&record.key);
        let new = path.with_extension("new");
        let written = (|| {
            let mut text = serde_json::to_vec_pretty(record)?;
            text.push(b'\n');
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        match written {
            Ok(()) => self.sync_folder(),
            Err(source) => {
                // A leftover would be removed at the next start anyway.
                let _ = fs::remove_file(&new);
                Err(StoreError { action: "write", path, source })
            }
        }
    }

    /// A rename or removal is on disk only when its folder is.
    fn sync_folder(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StoreError { action: "sync", path: self.folder.clone(), source })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{}.json", key.port_name()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests;
