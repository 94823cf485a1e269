//! The lines of the file.

use culvert_api::hash::fnv1a;
use culvert_api::value::{Mac, PciAddress, VfIndex};
use serde::{Deserialize, Serialize};

use crate::nic::attachment::Attachment;
use crate::nic::step::Object;
use crate::pods::Key;

/// What a line says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Entry {
    /// The machine was booted; of what was before only MACs count.
    Boot { id: String },
    /// A step is about to be done.
    Begin {
        object: String,
        action: String,
        write: String,
        /// The VF whose driver it changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        binds: Option<Object>,
    },
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
    /// A VF's driver was being changed when the agent ended.
    Unsettled { vf: Object },
    /// That VF is gone.
    Settled { vf: Object },
    /// A VF has this MAC out of a pool from now on.
    Mac { pf: String, vf: VfIndex, mac: Mac },
}

/// `CHECKSUM JSON\n`: sixteen hexadecimal digits of FNV-1a over the JSON.
pub(super) fn line(entry: &Entry) -> String {
    let json = serde_json::to_string(entry).expect("has only texts and numbers");
    line_of(&json) + "\n"
}

pub(super) fn line_of(json: &str) -> String {
    format!("{:016x} {json}", fnv1a(&[json.as_bytes()]))
}

/// The entries of a journal's bytes, without one at the very end that was not written to its end.
pub(super) fn parse(bytes: &[u8]) -> Vec<Result<Entry, String>> {
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
