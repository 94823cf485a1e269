//! How a service spreads new flows over its endpoints.

use culvert_api::fastpath as proto;

use super::error::Problem;

/// Who gets a new flow, of the endpoints that take new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balancing {
    /// Whom the flow's hash chooses, by consistent hashing.
    #[default]
    Maglev,
    /// Each in turn, on each worker by itself.
    RoundRobin,
    /// Who has the fewest open flows for its weight.
    LeastFlow,
}

impl TryFrom<i32> for Balancing {
    type Error = Problem;

    fn try_from(value: i32) -> Result<Self, Problem> {
        match proto::Balancing::try_from(value) {
            Ok(proto::Balancing::Unspecified | proto::Balancing::Maglev) => Ok(Self::Maglev),
            Ok(proto::Balancing::RoundRobin) => Ok(Self::RoundRobin),
            Ok(proto::Balancing::LeastFlow) => Ok(Self::LeastFlow),
            Err(_) => Err(Problem::Balancing(value)),
        }
    }
}

impl From<Balancing> for proto::Balancing {
    fn from(balancing: Balancing) -> Self {
        match balancing {
            Balancing::Maglev => Self::Maglev,
            Balancing::RoundRobin => Self::RoundRobin,
            Balancing::LeastFlow => Self::LeastFlow,
        }
    }
}
