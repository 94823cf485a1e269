//! Instructions per packet, which neither the machine nor its load changes: the guard of `make test`.
//!
//! Each work's packets go through `Pipeline::process` in plain memory, with 1,000 flows, under callgrind. What is counted
//! is held against a file in the tree: more than 3 % above it is a failure.

mod baseline;
mod buffer;
mod callgrind;
mod count;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use self::baseline::{Baseline, BaselineError, Judgement, TOLERANCE};
use self::callgrind::CallgrindError;
use crate::cli::Instructions;
use crate::scene::SceneError;
use crate::work::Work;

/// Why there are no counts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstructionsError {
    #[error("{:?}", .work)]
    Count { work: Work, source: CallgrindError },
    #[error("baseline")]
    Baseline(#[from] BaselineError),
    #[error("{:?}: tables and flows", .work)]
    Scene { work: Work, source: SceneError },
    #[error("this program was built without optimisation: build it with --release")]
    Unoptimised,
    #[error("temporary folder")]
    Folder(#[from] io::Error),
}

/// Counts all works; whether none got worse.
pub(crate) fn run(options: &Instructions) -> Result<bool, InstructionsError> {
    let works = if options.work.is_empty() { &Work::ALL[..] } else { &options.work };
    if options.count {
        for &work in works {
            println!("{}", count::run(work).map_err(|source| InstructionsError::Scene { work, source })?);
        }
        return Ok(true);
    }
    if cfg!(debug_assertions) {
        return Err(InstructionsError::Unoptimised);
    }
    let temporary = TempDir::with_prefix("culvert-bench-")?;
    let folder = options.keep.as_deref().unwrap_or(temporary.path());
    let mut counts = BTreeMap::new();
    for &work in works {
        let count =
            callgrind::count(work, folder).map_err(|source| InstructionsError::Count { work, source })?;
        counts.insert(work, (count * 10.0).round() / 10.0);
    }
    let now = Baseline {
        rustc: env!("CULVERT_RUSTC").to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        per_packet: counts,
    };
    match &options.baseline {
        None => {
            for (work, count) in &now.per_packet {
                println!("{work:?} {:<32} {count:>7.1} instructions per packet", work.title());
            }
            Ok(true)
        }
        Some(path) if options.renew => {
            now.write(path)?;
            Ok(true)
        }
        Some(path) => Ok(compare(&now, path)?),
    }
}

/// Holds counts against those in a file, and says so; whether none got worse.
fn compare(now: &Baseline, path: &Path) -> Result<bool, BaselineError> {
    let before = Baseline::read(path)?;
    let comparable = (&before.rustc, &before.arch) == (&now.rustc, &now.arch);
    let (mut failed, mut text) = (0, String::new());
    for (&work, &count) in &now.per_packet {
        let judgement = if comparable { before.judge(work, count) } else { Judgement::Same };
        failed += usize::from(judgement.is_failure());
        text += &line(work, count, before.per_packet.get(&work).copied(), judgement);
    }
    print!("{text}");
    let renew = "renew the baseline with `ci/instructions --renew`";
    let all = now.per_packet.len();
    if !comparable {
        println!(
            "the baseline is of rustc {} for {}, this is {} for {}: {renew}",
            before.rustc, before.arch, now.rustc, now.arch
        );
        println!("instructions: 0 passed, 0 failed, {all} skipped");
        return Ok(true);
    }
    if failed > 0 {
        println!(
            "more than {:.0} % above the baseline: make it faster, or, if that is what it costs, {renew}",
            TOLERANCE * 100.0
        );
    }
    println!("instructions: {} passed, {failed} failed, 0 skipped", all - failed);
    Ok(failed == 0)
}

fn line(work: Work, count: f64, before: Option<f64>, judgement: Judgement) -> String {
    let change = before.map_or_else(
        || "not in the baseline".to_owned(),
        |before| format!("{:+.1} % from {before:.1}", (count / before - 1.0) * 100.0),
    );
    let note = match judgement {
        Judgement::Same => "",
        Judgement::Worse => "  FAILED",
        Judgement::Unknown => "  FAILED",
        Judgement::Better => "  better: renew the baseline",
    };
    format!("{work:?} {:<32} {count:>7.1} instructions per packet, {change}{note}\n", work.title())
}
