//! Versions of the CNI specification.

use std::fmt;

/// A version of the CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: with lists of interfaces and addresses.
    V031,
    /// 0.4.0: the first with CHECK.
    V040,
    /// 1.0.0: addresses without a family.
    V100,
    /// 1.1.0: the first with STATUS and GC.
    V110,
}

impl Version {
    /// All that are spoken here, oldest first.
    pub const ALL: [Self; 4] = [Self::V031, Self::V040, Self::V100, Self::V110];
    /// The newest.
    pub const LATEST: Self = Self::V110;

    /// The version as the specification writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version that `text` names, if it is spoken here.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
