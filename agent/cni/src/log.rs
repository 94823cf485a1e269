//! Keys `logFile` and `logLevel` of the configuration, which users of sriov-cni know.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::call::env;
use crate::conf::Conf;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Info,
    Debug,
}

/// The log file, if the configuration names one.
pub(crate) struct Log {
    file: Option<File>,
    level: Level,
}

impl Log {
    /// A file that cannot be written is told on standard error, and harms nothing else.
    pub(crate) fn open(conf: &Conf) -> Self {
        let level = match conf.log_level.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" | "warning" | "warn" => Level::Error,
            "debug" | "trace" => Level::Debug,
            _ => Level::Info,
        };
        let file = conf.log_file.as_deref().and_then(|path| {
            let opened = open(path);
            opened.map_err(|e| eprintln!("culvert-cni: logFile {}: {e}", path.display())).ok()
        });
        let mut log = Self { file, level };
        if !matches!(
            conf.log_level.to_ascii_lowercase().as_str(),
            "" | "panic" | "fatal" | "error" | "warning" | "warn" | "info" | "debug" | "trace"
        ) {
            log.write(Level::Error, "", &format!("logLevel {:?}: is none; info it is", conf.log_level));
        }
        log
    }

    /// One line, if somebody wants it.
    pub(crate) fn write(&mut self, level: Level, command: &str, message: &str) {
        let Some(file) = self.file.as_mut().filter(|_| level <= self.level) else { return };
        let word = match level {
            Level::Error => "error",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        let mut line = format!("time=\"{}\" level={word} msg={message:?}", now());
        for (key, value) in [
            ("command", command.to_owned()),
            ("container", env("CNI_CONTAINERID")),
            ("netns", env("CNI_NETNS")),
            ("ifname", env("CNI_IFNAME")),
        ] {
            let _ = write!(line, " {key}={value:?}");
        }
        line.push('\n');
        // The file system is full, most likely: the pod counts more.
        let _ = file.write_all(line.as_bytes());
    }
}

/// Opens a regular file for appending; a link or a device under that name is refused.
fn open(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(io::Error::other("is no regular file")),
        _ => {}
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The time, by RFC 3339.
fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// `seconds` since 1970 as RFC 3339 has them, in UTC.
fn rfc3339(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86400, seconds % 86400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
