//! Serial numbers: the Device Serial Number capability, PCI Express Base Specification 7.9.3.

use std::io;
use std::os::unix::fs::FileExt as _;

use super::PciDevice;
use crate::root::{FileError, Folder};

/// Where extended capabilities begin.
const EXTENDED: u64 = 0x100;
/// End of the configuration space.
const END: u64 = 0x1000;
const DEVICE_SERIAL_NUMBER: u32 = 0x0003;
/// A capability takes 8 bytes or more, so that there cannot be more of them.
const CAPABILITIES_MAX: usize = ((END - EXTENDED) / 8) as usize;

impl PciDevice {
    /// The card's serial number as `lspci` shows it, `b4-96-91-ff-ff-a1-b2-c0`; `None` for cards without, and for
    /// programs without the right to read all of the configuration space (CAP_SYS_ADMIN).
    pub(crate) fn serial(folder: &Folder) -> Result<Option<String>, FileError> {
        match folder
            .file("config")
            .and_then(|config| find(|offset, bytes| config.read_exact_at(bytes, offset)))
        {
            Ok(serial) => Ok(serial),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => Ok(None),
            Err(e) => Err(FileError::new("read", folder.path().join("config"), e)),
        }
    }
}

/// Follows the chain of capabilities: 16 bits of id, 4 of version, 12 of the next one's offset; little endian.
fn find(read: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Option<String>> {
    let word = |offset| {
        let mut bytes = [0; 4];
        read(offset, &mut bytes).map(|()| u32::from_le_bytes(bytes))
    };
    let mut offset = EXTENDED;
    for _ in 0..CAPABILITIES_MAX {
        let header = word(offset)?;
        // All ones: the device is gone. Zero: it has no capabilities.
        if header == u32::MAX || header == 0 {
            return Ok(None);
        }
        if header & 0xffff == DEVICE_SERIAL_NUMBER {
            let number = u64::from(word(offset + 8)?) << 32 | u64::from(word(offset + 4)?);
            let octets = number.to_be_bytes().map(|octet| format!("{octet:02x}"));
            return Ok((number != 0 && number != u64::MAX).then(|| octets.join("-")));
        }
        offset = u64::from(header >> 20) & !3;
        if !(EXTENDED..END - 12).contains(&offset) {
            return Ok(None);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serial(config: &[u8]) -> Option<String> {
        let read = |offset: u64, bytes: &mut [u8]| {
            let at = offset as usize;
            let from = config.get(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(from);
            Ok(())
        };
        find(read).unwrap_or_default()
    }

    #[test]
    fn the_serial_number_is_found_behind_another_capability_and_written_like_lspci_does() {
        let mut config = vec![0; 4096];
        config[0x100..0x104].copy_from_slice(&0x1402_0001_u32.to_le_bytes());
        config[0x140..0x144].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
        config[0x144..0x14c].copy_from_slice(&[0xc0, 0xb2, 0xa1, 0xff, 0xff, 0x91, 0x96, 0xb4]);
        assert_eq!(serial(&config).as_deref(), Some("b4-96-91-ff-ff-a1-b2-c0"));
        assert_eq!(serial(&config[..256]), None, "no right to read further");
        config[0x100] = 2;
        config[0x102..0x104].copy_from_slice(&[2, 0x10]);
        assert_eq!(serial(&config), None, "a chain that leads back to itself ends");
        assert_eq!(serial(&[0xff; 4096]), None, "a device that is gone");
    }

    proptest! {
        #[test]
        fn any_configuration_space_is_read_to_an_end(words in proptest::collection::vec(any::<u32>(), 1024)) {
            serial(&words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>());
        }
    }
}
