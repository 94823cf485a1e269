//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of a kernel network interface: 1-15 letters, digits, `.`, `_` or `-`, other than `.` and `..`.
///
/// The kernel itself (`dev_valid_name` in net/core/dev.c) lets more characters pass. Those are left out that mean
/// something else where the name ends up: in DPDK's device arguments, in sysctl paths and on command lines.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

/// A text that is no [`IfName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("interface name {0:?}: must be 1-15 letters, digits, '.', '_' or '-', the first of them no '-'")]
pub struct IfNameError(String);

impl IfName {
    /// Most characters of a name: the kernel's `IFNAMSIZ` without the final zero.
    pub const MAX_LEN: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, IfNameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = (1..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(legal)
            && !text.starts_with('-')
            && !matches!(text, "." | "..");
        if valid { Ok(Self(text.to_owned())) } else { Err(IfNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for IfName {
    type Error = IfNameError;

    fn try_from(text: String) -> Result<Self, IfNameError> {
        text.parse()
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> String {
        name.0
    }
}

impl std::borrow::Borrow<str> for IfName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_interfaces_bear_are_taken() {
        for text in ["e", "eth0", "enp3s0f0np0", "cv1a2b3c4d5e6f7", "br-ex.100", "veth_1", "abcdefghijklmno"]
        {
            assert_eq!(text.parse::<IfName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_that_the_kernel_or_a_device_argument_would_misread_are_refused() {
        for text in
            ["", ".", "..", "a/b", "a:b", "a b", "a,mac=x", "tap%d", "-x", "abcdefghijklmnop", "é", "a\0"]
        {
            assert!(text.parse::<IfName>().is_err(), "{text:?}");
        }
    }
}
