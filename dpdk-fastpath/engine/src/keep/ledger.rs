//! Memory in which something is written down entry by entry, so that another process can read it.
//!
//! A file in memory (memfd_create(2)) with a head of [`HEAD`] bytes and entries behind it. The head says which bytes of the
//! file count; it is written last, in one small write, so that whoever is killed meanwhile leaves what was there
//! before. To begin anew, the new entries are written behind the old, and the old ones' memory is given back.
//!
//! | bytes | head, little-endian |
//! | --- | --- |
//! | 0-7 | [`MAGIC`] |
//! | 8-15 | [`VERSION`] |
//! | 16-23, 24-31 | where the entries begin and end, from the start of the file |
//!
//! An entry is its length (4 bytes), its CRC32c (4 bytes), and so many bytes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use culvert_packet::crc32c::crc32c;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

const HEAD: u64 = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"cvledger");
const VERSION: u64 = 1;

/// Of an entry.
const ENTRY_HEAD: usize = 8;

/// Why a ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refused.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// It is none.
    #[error("is no ledger")]
    Foreign,
    /// Another version wrote it.
    #[error("is of version {0}, this program reads {VERSION}")]
    Version(u64),
    /// Its head makes no sense.
    #[error("bytes {start} to {end} of {len} are said to count")]
    Bounds {
        /// Where entries begin.
        start: u64,
        /// Where they end.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// An entry does not have the length or checksum that it says.
    #[error("entry {0} is damaged")]
    Damaged(usize),
}

/// A ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    start: u64,
    end: u64,
}

impl Ledger {
    /// An empty one; `name` is for people, who see it in `/proc/PID/fd`.
    ///
    /// # Errors
    /// When there is no memory or no descriptor.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.set_len(HEAD)?;
        file.write_all_at(&MAGIC.to_le_bytes(), 0)?;
        file.write_all_at(&VERSION.to_le_bytes(), 8)?;
        let mut ledger = Self { file, start: HEAD, end: HEAD };
        ledger.set(HEAD, HEAD)?;
        Ok(ledger)
    }

    /// One that another process wrote, and its entries.
    ///
    /// # Errors
    /// When it makes no sense as a whole.
    pub fn open(file: OwnedFd) -> Result<(Self, Vec<Vec<u8>>), LedgerError> {
        let file = File::from(file);
        let len = file.metadata()?.len();
        let mut head = [0; 32];
        if len < HEAD {
            return Err(LedgerError::Foreign);
        }
        file.read_exact_at(&mut head, 0)?;
        let [magic, version, start, end] = [0, 8, 16, 24].map(|at| {
            let bytes = head[at..].first_chunk().expect("four words");
            u64::from_le_bytes(*bytes)
        });
        match (magic, version) {
            (MAGIC, VERSION) => {}
            (MAGIC, other) => return Err(LedgerError::Version(other)),
            _ => return Err(LedgerError::Foreign),
        }
        if !(HEAD <= start && start <= end && end <= len) {
            return Err(LedgerError::Bounds { start, end, len });
        }
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        let entries = entries(&bytes)?;
        Ok((Self { file, start, end }, entries))
    }

    /// Bytes of all entries.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let end = self.write(self.end, entry)?;
        self.set(self.start, end)
    }

    /// Lets this be the only entry.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn replace(&mut self, entry: &[u8]) -> io::Result<()> {
        let (before, start) = (self.start, self.end);
        let end = self.write(start, entry)?;
        self.set(start, end)?;
        // Whole pages only; where the kernel refuses, the memory is kept.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.file, flags, before, start - before);
        Ok(())
    }

    /// Returns where the entry ends.
    fn write(&self, at: u64, entry: &[u8]) -> io::Result<u64> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let len = u32::try_from(entry.len()).map_err(too_long)?;
        let head = u64::from(crc32c(&[entry])) << 32 | u64::from(len);
        self.file.write_all_at(&head.to_le_bytes(), at)?;
        self.file.write_all_at(entry, at + ENTRY_HEAD as u64)?;
        Ok(at + (ENTRY_HEAD + entry.len()) as u64)
    }

    fn set(&mut self, start: u64, end: u64) -> io::Result<()> {
        let bounds = u128::from(end) << 64 | u128::from(start);
        self.file.write_all_at(&bounds.to_le_bytes(), 16)?;
        (self.start, self.end) = (start, end);
        Ok(())
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn entries(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, LedgerError> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let damaged = || LedgerError::Damaged(entries.len());
        let (head, rest) = bytes.split_first_chunk::<ENTRY_HEAD>().ok_or_else(damaged)?;
        let head = u64::from_le_bytes(*head);
        let (entry, rest) = rest.split_at_checked(head as u32 as usize).ok_or_else(damaged)?;
        if crc32c(&[entry]) != (head >> 32) as u32 {
            return Err(damaged());
        }
        entries.push(entry.to_vec());
        bytes = rest;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reopened(ledger: &Ledger) -> Result<Vec<Vec<u8>>, LedgerError> {
        Ledger::open(ledger.file.try_clone().unwrap().into()).map(|(_, entries)| entries)
    }

    #[test]
    fn what_another_version_wrote_is_refused() {
        let ledger = Ledger::create("test").unwrap();
        ledger.file.write_all_at(&7_u64.to_le_bytes(), 8).unwrap();
        assert_eq!(reopened(&ledger).unwrap_err().to_string(), "is of version 7, this program reads 1");
        ledger.file.write_all_at(b"X", 0).unwrap();
        assert!(matches!(reopened(&ledger), Err(LedgerError::Foreign)));
        let short = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(Ledger::open(short), Err(LedgerError::Foreign)));
    }

    #[test]
    fn memory_of_what_was_replaced_is_given_back() {
        use std::os::unix::fs::MetadataExt as _;
        let mut ledger = Ledger::create("test").unwrap();
        for _ in 0..64 {
            ledger.replace(&[7; 1 << 20]).unwrap();
        }
        // In units of 512 bytes; the kernel's pages may be of 2 MB.
        assert!(ledger.file.metadata().unwrap().blocks() * 512 <= 6 << 20);
        assert_eq!(reopened(&ledger).unwrap(), [vec![7; 1 << 20]]);
    }

    proptest! {
        /// Whatever is written, another process reads it; and of what it finds half written it reads what was there before.
        #[test]
        fn entries_are_read_as_they_were_written(
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
        ) {
            let mut ledger = Ledger::create("test").unwrap();
            let mut expected: Vec<Vec<u8>> = Vec::new();
            for (replace, entry) in steps {
                if replace {
                    expected = vec![entry.clone()];
                    ledger.replace(&entry).unwrap();
                } else {
                    expected.push(entry.clone());
                    ledger.append(&entry).unwrap();
                }
                // A later writer was killed on its way.
                ledger.write(ledger.end, b"half").unwrap();
                prop_assert_eq!(reopened(&ledger).unwrap(), expected.clone());
            }
        }

        /// Whatever was damaged: it is refused or read, and never more is read than there is.
        #[test]
        fn damage_is_noticed(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 1..10),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut ledger = Ledger::create("test").unwrap();
            for entry in &entries {
                ledger.append(entry).unwrap();
            }
            let len = ledger.len() as usize;
            // The head's words, or the entries.
            let at = match at.index(32 + len) {
                head @ ..32 => head as u64,
                entry => HEAD + entry as u64 - 32,
            };
            let mut byte = [0];
            ledger.file.read_exact_at(&mut byte, at).unwrap();
            ledger.file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            match reopened(&ledger) {
                Err(_) => {}
                // An end or start that happens to fall between two entries.
                Ok(read) => prop_assert!((16..32).contains(&at) && read.iter().all(|e| entries.contains(e))),
            }
        }
    }
}
