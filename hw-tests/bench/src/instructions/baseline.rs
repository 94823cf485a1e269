//! The counts that others are held against, kept in the tree.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::work::Work;

/// By how much a count may grow, as a share of the old one.
pub(super) const TOLERANCE: f64 = 0.03;

/// Counts of one compiler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baseline {
    /// The compiler; another makes other instructions of the same program.
    pub(super) rustc: String,
    /// What it compiled for.
    pub(super) arch: String,
    /// Instructions per packet, by work.
    pub(super) per_packet: BTreeMap<Work, f64>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaselineError {
    #[error("{path}")]
    File { path: String, source: io::Error },
    #[error("{path}: not a baseline: renew it with --renew")]
    Format { path: String, source: serde_json::Error },
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self, BaselineError> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| BaselineError::File { path: name(), source })?;
        serde_json::from_str(&text).map_err(|source| BaselineError::Format { path: name(), source })
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let name = || path.display().to_string();
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| BaselineError::Format { path: name(), source })?;
        fs::write(path, text + "\n").map_err(|source| BaselineError::File { path: name(), source })
    }

    /// What a new count of a work is beside the old one.
    pub(super) fn judge(&self, work: Work, count: f64) -> Judgement {
        match self.per_packet.get(&work) {
            None => Judgement::Unknown,
            Some(before) if count > before * (1.0 + TOLERANCE) => Judgement::Worse,
            Some(before) if count < before * (1.0 - TOLERANCE) => Judgement::Better,
            Some(_) => Judgement::Same,
        }
    }
}

/// A count beside the one that it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Within the tolerance.
    Same,
    /// Above it: a failure.
    Worse,
    /// Below it: the baseline ought to be renewed.
    Better,
    /// The baseline has no such work: a failure, as nothing was held against anything.
    Unknown,
}

impl Judgement {
    pub(super) const fn is_failure(self) -> bool {
        matches!(self, Self::Worse | Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        Baseline {
            rustc: "1.95.0".to_owned(),
            arch: "x86_64".to_owned(),
            per_packet: BTreeMap::from([(Work::W1, 200.0)]),
        }
    }

    #[test]
    fn three_percent_more_instructions_pass_and_any_more_fail() {
        let judge = |count| baseline().judge(Work::W1, count);
        assert_eq!([judge(194.0), judge(200.0), judge(206.0)], [Judgement::Same; 3]);
        assert_eq!(judge(206.1), Judgement::Worse);
        assert_eq!(judge(193.9), Judgement::Better);
        assert!(judge(206.1).is_failure() && !judge(193.9).is_failure());
    }

    #[test]
    fn a_work_that_the_baseline_does_not_have_fails() {
        assert!(baseline().judge(Work::W2, 1.0).is_failure());
    }

    #[test]
    fn what_is_written_is_read_back_and_anything_else_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        baseline().write(file.path()).unwrap();
        assert_eq!(Baseline::read(file.path()).unwrap(), baseline());
        fs::write(file.path(), r#"{"rustc": "1.95.0", "arch": "x86_64"}"#).unwrap();
        assert!(matches!(Baseline::read(file.path()), Err(BaselineError::Format { .. })));
    }

    #[test]
    fn the_one_in_the_tree_has_every_work() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
        let kept = Baseline::read(&kept).unwrap();
        assert!(Work::ALL.iter().all(|work| kept.per_packet.contains_key(work)), "{kept:?}");
    }
}
