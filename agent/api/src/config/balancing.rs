//! How Services spread new flows.

use std::str::FromStr;

use serde::Deserialize;

/// Who gets a new flow, of a Service's endpoints that take new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// Whom the flow's hash chooses, by consistent hashing.
    #[default]
    Maglev,
    /// Each in turn.
    RoundRobin,
    /// Who has the fewest open flows for its weight.
    LeastFlow,
}

/// The text is no balancing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: must be maglev, round-robin or least-flow")]
pub struct UnknownBalancing(String);

impl FromStr for Balancing {
    type Err = UnknownBalancing;

    fn from_str(text: &str) -> Result<Self, UnknownBalancing> {
        match text {
            "maglev" => Ok(Self::Maglev),
            "round-robin" => Ok(Self::RoundRobin),
            "least-flow" => Ok(Self::LeastFlow),
            _ => Err(UnknownBalancing(text.to_owned())),
        }
    }
}
