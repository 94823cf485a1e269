//! Words for what a PF does with the frames of a VF.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Protocol of a VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum VlanProtocol {
    /// Customer tag, EtherType 0x8100.
    #[default]
    #[serde(rename = "802.1q", alias = "802.1Q")]
    Dot1q,
    /// Service tag, EtherType 0x88a8.
    #[serde(rename = "802.1ad", alias = "802.1AD")]
    Dot1ad,
}

/// Link state that a VF sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// That of the PF.
    #[default]
    Auto,
    /// Always up: VFs of the NIC reach each other without a cable.
    Enable,
    /// Always down.
    Disable,
}

impl fmt::Display for VlanProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dot1q => "802.1q",
            Self::Dot1ad => "802.1ad",
        })
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
            Self::Disable => "disable",
        })
    }
}
