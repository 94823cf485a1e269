//! The kinds of work that the engine is measured on, and what is demanded of it.

use serde::{Deserialize, Serialize};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Work {
    /// Receive and transmit, nothing else: the machine's limit
    W0,
    /// Pod to remote pod: route and VXLAN encap
    W1,
    /// VXLAN decap and deliver to a pod
    W2,
    /// Pod to Service, established flow: translate and VXLAN encap
    W3,
    /// Every packet opens a flow to a Service
    W4,
    /// The reply to W3: VXLAN decap, translate back, deliver to the pod
    W5,
}

/// What a measurement is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// At least this share of what the machine does with no work at all.
    Share { must: f64, aim: f64 },
    /// At most so many TSC cycles.
    Cycles { must: f64, aim: f64 },
}

impl Work {
    /// All but W0, which is measured with each of them.
    pub(crate) const ALL: [Self; 5] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W5];

    /// What it is called on the command line and in names of files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::W0 => "w0",
            Self::W1 => "w1",
            Self::W2 => "w2",
            Self::W3 => "w3",
            Self::W4 => "w4",
            Self::W5 => "w5",
        }
    }

    /// What it is, in a few words.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::W0 => "io",
            Self::W1 => "encap",
            Self::W2 => "decap + deliver",
            Self::W3 => "VIP + encap",
            Self::W4 => "new flows",
            Self::W5 => "reply: decap + VIP back + deliver",
        }
    }

    /// Whether the packets come from pods, not from the underlay.
    pub(crate) const fn is_from_pod(self) -> bool {
        matches!(self, Self::W0 | Self::W1 | Self::W3 | Self::W4)
    }

    /// Numbers of flows that are measured unless others are asked for: those with a goal.
    pub(crate) const fn flows(self) -> &'static [u32] {
        match self {
            Self::W0 | Self::W3 => &[1_000, 100_000, 1_000_000],
            Self::W1 => &[1_000, 1_000_000],
            Self::W2 | Self::W5 => &[1_000, 100_000],
            Self::W4 => &[1_000_000],
        }
    }

    /// What is demanded for so many flows.
    pub(crate) const fn goal(self, flows: usize) -> Option<Goal> {
        let (must, aim) = match (self, flows) {
            (Self::W1, 1_000) => (0.42, 0.57),
            (Self::W1, 1_000_000) => (0.48, 0.65),
            (Self::W2, 1_000) => (0.42, 0.60),
            (Self::W2, 100_000) => (0.60, 0.80),
            (Self::W3, 1_000) => (0.38, 0.53),
            (Self::W3, 100_000) => (0.47, 0.64),
            (Self::W3, 1_000_000) => (0.45, 0.62),
            (Self::W5, 1_000) => (0.35, 0.55),
            (Self::W5, 100_000) => (0.50, 0.75),
            (Self::W4, _) => return Some(Goal::Cycles { must: 650.0, aim: 330.0 }),
            _ => return None,
        };
        Some(Goal::Share { must, aim })
    }
}

impl Goal {
    /// Whether the least that is demanded was reached.
    pub(crate) fn is_met(self, share: f64, cycles: f64) -> bool {
        match self {
            Self::Share { must, .. } => share >= must,
            Self::Cycles { must, .. } => cycles <= must,
        }
    }
}
