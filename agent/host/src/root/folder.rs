//! A folder of sysfs, held open: a file below it is found in one step, while the whole path leads through ten folders
//! and a link. With hundreds of VFs that is most of a scan.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::{FileError, names, optional};

/// No attribute of sysfs is longer (PAGE_SIZE), and each is read in one call.
const ATTRIBUTE_MAX: usize = 4096;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`; `None` if there is none.
    pub(crate) fn open(path: PathBuf) -> Result<Option<Self>, FileError> {
        count::one();
        let fd =
            nix::fcntl::open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        Ok(optional(fd.map_err(io::Error::from), &path)?.map(|fd| Self { fd, path }))
    }

    /// The folder `name` in this one; `None` if there is none.
    pub(crate) fn at(&self, name: &str) -> Result<Option<Self>, FileError> {
        count::one();
        let path = self.path.join(name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty());
        Ok(optional(fd.map_err(io::Error::from), &path)?.map(|fd| Self { fd, path }))
    }

    /// A file's trimmed text; `None` if there is no such file, or the driver behind it has nothing to say.
    pub(crate) fn text(&self, file: &str) -> Result<Option<String>, FileError> {
        let mut buffer = [0; ATTRIBUTE_MAX];
        let read = self.file(file).and_then(|mut f| f.read(&mut buffer));
        let length = optional(read, &self.path.join(file))?;
        Ok(length.map(|length| String::from_utf8_lossy(&buffer[..length]).trim().to_owned()))
    }

    /// Like [`Self::text`], as a value; a text that does not parse counts as absent.
    pub(crate) fn value<T: FromStr>(&self, file: &str) -> Result<Option<T>, FileError> {
        Ok(self.text(file)?.and_then(|text| text.parse().ok()))
    }

    /// A number as sysfs writes ids and flags: `0x8086`.
    pub(crate) fn hex(&self, file: &str) -> Result<Option<u32>, FileError> {
        let parse = |text: String| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        Ok(self.text(file)?.and_then(parse))
    }

    /// Opens a file to read it.
    pub(crate) fn file(&self, file: &str) -> io::Result<File> {
        count::one();
        let fd = openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Where a link leads; `None` if there is no such link.
    pub(crate) fn target(&self, link: &str) -> Result<Option<PathBuf>, FileError> {
        count::one();
        let target = readlinkat(&self.fd, link).map(PathBuf::from).map_err(io::Error::from);
        optional(target, &self.path.join(link))
    }

    /// Last part of where a link leads; `None` if there is no such link.
    pub(crate) fn link(&self, link: &str) -> Result<Option<String>, FileError> {
        let name = |target: PathBuf| target.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(self.target(link)?.and_then(name))
    }

    /// Names in the folder, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, FileError> {
        count::one();
        names(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// How many files and folders this thread has opened or looked into.
pub(crate) mod count {
    #[cfg(test)]
    thread_local! {
        static OPENED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    pub(super) fn one() {
        #[cfg(test)]
        OPENED.set(OPENED.get() + 1);
    }

    /// How many `work` opened.
    #[cfg(test)]
    pub(crate) fn during(work: impl FnOnce()) -> u64 {
        let before = OPENED.get();
        work();
        OPENED.get() - before
    }
}
