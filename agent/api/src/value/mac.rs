//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A unicast Ethernet (MAC) address other than all zeros: one that an interface can bear.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text or six bytes are no [`Mac`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal pairs.
    #[error("mac {0:?}: must be six hexadecimal pairs, such as 02:00:00:00:00:01")]
    Syntax(String),
    /// The group bit is set.
    #[error("mac {0}: is a multicast address; the first octet must be even")]
    Multicast(String),
    /// All octets are zero.
    #[error("mac 00:00:00:00:00:00: is no address")]
    Zero,
    /// Not six bytes.
    #[error("mac of {0} bytes: must be 6")]
    Length(usize),
}

impl Mac {
    /// The six octets, first on the wire first.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the address was given by software (bit 1 of the first octet), not by the maker of the NIC.
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// The locally administered unicast address that `seed` stands for: `seed`'s low 46 bits, with the two flag
    /// bits of the first octet set as such an address needs.
    pub const fn local_from(seed: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = seed.to_be_bytes();
        Self([a & !1 | 2, b, c, d, e, f])
    }
}

impl TryFrom<[u8; 6]> for Mac {
    type Error = MacError;

    fn try_from(octets: [u8; 6]) -> Result<Self, MacError> {
        if octets == [0; 6] {
            return Err(MacError::Zero);
        }
        if octets[0] & 1 != 0 {
            return Err(MacError::Multicast(Self(octets).to_string()));
        }
        Ok(Self(octets))
    }
}

impl TryFrom<&[u8]> for Mac {
    type Error = MacError;

    fn try_from(bytes: &[u8]) -> Result<Self, MacError> {
        <[u8; 6]>::try_from(bytes).map_err(|_| MacError::Length(bytes.len()))?.try_into()
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let syntax = || MacError::Syntax(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or_else(syntax)?, 16).map_err(|_| syntax())?;
        }
        if parts.next().is_some() {
            return Err(syntax());
        }
        octets.try_into()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn multicast_zero_and_malformed_texts_are_refused_with_a_reason() {
        for (text, reason) in [
            ("01:00:5e:00:00:01", "multicast"),
            ("ff:ff:ff:ff:ff:ff", "multicast"),
            ("00:00:00:00:00:00", "is no address"),
            ("02:00:00:00:00", "six hexadecimal pairs"),
            ("02:00:00:00:00:01:02", "six hexadecimal pairs"),
            ("2:0:0:0:0:1", "six hexadecimal pairs"),
            ("02:00:00:00:00:0g", "six hexadecimal pairs"),
            ("+2:00:00:00:00:01", "six hexadecimal pairs"),
        ] {
            let error = text.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(seed: u64) {
            let mac = Mac::local_from(seed);
            prop_assert!(mac.is_local());
            prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
            prop_assert_eq!(Mac::try_from(mac.octets()), Ok(mac));
        }
    }
}
