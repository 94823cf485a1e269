//! What may happen to a journal in tests: disks that are full, processes that are killed.

use std::fs::File;
use std::io::{self, Write as _};

use super::super::model::Deaths;

/// What is to go wrong.
#[derive(Debug, Default)]
pub(in super::super) struct Faults {
    /// Bytes that fit onto the disk.
    pub room: Option<usize>,
    /// The process dies when the disk is full: it tidies nothing up.
    pub dead: bool,
    /// When the process is killed for real.
    pub deaths: Deaths,
}

impl Faults {
    /// Before `line` is written: what fits is written, if not all of it does.
    pub(super) fn before(&mut self, file: &mut File, line: &[u8]) -> io::Result<()> {
        self.deaths.point();
        if self.deaths.is_next() {
            file.write_all(&line[..line.len() / 2])?;
        }
        self.deaths.point();
        if let Some(room) = &mut self.room {
            if *room < line.len() {
                file.write_all(&line[..std::mem::take(room)])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= line.len();
        }
        Ok(())
    }

    /// After it is on the disk.
    pub(super) fn after(&self) {
        self.deaths.point();
    }
}
