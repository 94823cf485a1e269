//! What there is to say about a file.

use std::fmt;

use super::Spot;

/// A remark about a place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The place.
    pub at: Spot,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, what is wrong and what follows from it.
    pub text: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Perhaps not what was meant.
    Warning,
    /// Something was left out.
    Error,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}: {severity}: {}", self.at, self.text)
    }
}
