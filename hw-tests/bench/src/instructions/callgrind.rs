//! Runs this program under callgrind and reads what that has counted.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::work::Work;

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallgrindError {
    #[error("valgrind is not installed: `apt-get install valgrind`, or run ci/setup")]
    NotInstalled,
    #[error("valgrind cannot be started")]
    Start(#[source] io::Error),
    #[error("valgrind failed: {0}")]
    Failed(String),
    #[error("{path}: no number of instructions in it")]
    Format { path: String },
    #[error("{path}")]
    File { path: String, source: io::Error },
}

/// The function that is counted, as a pattern.
const COUNTED: &str = "*instructions::count::counted*";

/// The C library chooses among its functions by what the CPU can do; let it choose the same ones on all CPUs.
const PLAIN_CPU: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// Instructions per packet of a work. What callgrind has seen is kept in `folder`, as `callgrind.out.w1`.
pub(super) fn count(work: Work, folder: &Path) -> Result<f64, CallgrindError> {
    let file = |path: &Path| {
        let path = path.display().to_string();
        |source| CallgrindError::File { path, source }
    };
    let own = Path::new("/proc/self/exe");
    let own = fs::read_link(own).map_err(file(own))?;
    let out = folder.join(format!("callgrind.out.{}", work.name()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(own)
        .args(["instructions", "--count", "--work", work.name()])
        .env("GLIBC_TUNABLES", PLAIN_CPU)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CallgrindError::NotInstalled,
            _ => CallgrindError::Start(error),
        })?;
    let packets = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>();
    let (true, Ok(packets)) = (output.status.success(), packets) else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(CallgrindError::Failed(format!("{}: {}", output.status, said.trim())));
    };
    let text = fs::read_to_string(&out).map_err(file(&out))?;
    let total = total(&text).ok_or_else(|| CallgrindError::Format { path: out.display().to_string() })?;
    Ok(total as f64 / packets as f64)
}

/// The sum that a profile ends with; `None` for one that counted nothing.
fn total(profile: &str) -> Option<u64> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_read_and_a_profile_of_nothing_is_refused() {
        let profile =
            "# callgrind format\nversion: 1\nevents: Ir\nsummary: 5\n\nfn=x\n1 812000\n\ntotals: 812000\n";
        assert_eq!(total(profile), Some(812_000));
        assert_eq!(total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
