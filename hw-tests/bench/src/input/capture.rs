//! Capture files in the classic pcap format, which DPDK's net_pcap reads.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const MAGIC: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

/// Why a file is not a capture that can be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a pcap file (convert pcapng with `editcap -F pcap`)")]
    Format,
    /// Its packets are not Ethernet frames.
    #[error("link type {0}: must be 1, Ethernet")]
    LinkType(u32),
    /// A packet ends beyond the file, or was not captured whole.
    #[error("packet {0} is not whole")]
    Cut(usize),
}

/// Writes frames into a file, a microsecond apart.
pub(crate) fn write<'a>(path: &Path, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let header = [MAGIC, 4 << 16 | 2, 0, 0, 65_535, ETHERNET];
    file.write_all(&header.map(u32::to_le_bytes).concat())?;
    for (n, frame) in (0_u32..).zip(frames) {
        let len = frame.len() as u32;
        file.write_all(&[n / 1_000_000, n % 1_000_000, len, len].map(u32::to_le_bytes).concat())?;
        file.write_all(frame)?;
    }
    file.into_inner()?.sync_data()
}

/// All frames of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Vec<u8>>, CaptureError> {
    parse(&std::fs::read(path)?)
}

fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CaptureError> {
    let magic = bytes.first_chunk().ok_or(CaptureError::Format)?;
    let number: fn([u8; 4]) -> u32 = match (u32::from_le_bytes(*magic), u32::from_be_bytes(*magic)) {
        (MAGIC | MAGIC_NANOSECONDS, _) => u32::from_le_bytes,
        (_, MAGIC | MAGIC_NANOSECONDS) => u32::from_be_bytes,
        _ => return Err(CaptureError::Format),
    };
    let at = |offset: usize| bytes.get(offset..)?.first_chunk().copied().map(number);
    match at(20).ok_or(CaptureError::Format)? {
        ETHERNET => {}
        other => return Err(CaptureError::LinkType(other)),
    }
    let (mut frames, mut offset) = (Vec::new(), FILE_HEADER);
    while offset < bytes.len() {
        let cut = || CaptureError::Cut(frames.len() + 1);
        let (captured, len) = at(offset + 8).zip(at(offset + 12)).ok_or_else(cut)?;
        let begin = offset + PACKET_HEADER;
        let end = begin + captured as usize;
        let frame = bytes.get(begin..end).filter(|_| captured == len).ok_or_else(cut)?;
        frames.push(frame.to_vec());
        offset = end;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frames: &[&[u8]]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), frames.iter().copied()).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let frames: [&[u8]; 3] = [b"one", b"", b"three"];
        assert_eq!(parse(&written(&frames)).unwrap(), frames);
    }

    #[test]
    fn a_file_that_is_cut_or_of_another_kind_is_refused() {
        let whole = written(&[b"one", b"three"]);
        for len in FILE_HEADER + 1..whole.len() {
            let packet_ends = len == FILE_HEADER + PACKET_HEADER + 3;
            assert_eq!(parse(&whole[..len]).is_ok(), packet_ends, "{len} bytes");
        }
        assert!(matches!(parse(b"\x0a\x0d\x0d\x0a0000"), Err(CaptureError::Format)));
        let mut wifi = whole;
        wifi[20] = 105;
        assert!(matches!(parse(&wifi), Err(CaptureError::LinkType(105))));
    }
}
