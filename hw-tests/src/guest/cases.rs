//! Runs cases in the guest, in as few boots as it takes.

use std::time::Duration;

use super::Guest;
use crate::frame::{Case, NOTE, Outcome, Report, Stop, Verdict, note};

/// Longest time without a line from the guest: the boot and the longest case take a tenth of it on a machine at rest.
const SILENCE: Duration = Duration::from_secs(240);
/// Guests that may be lost before what still waits has failed.
const LOSSES: usize = 3;

/// Runs all cases in one boot of the guest, if it lives.
///
/// A guest is lost when it goes down or falls silent, which says little of the case that it was at: emulation starves
/// on a busy machine. So another guest tries that case again, and all that come after it; a case in which two guests
/// are lost has failed. Each loss is told when it happens and once more at the end.
///
/// # Errors
/// When this program has no path.
pub fn run_in_guest(cases: &[Case], report: &mut Report) -> Outcome {
    let program = std::env::current_exe()?.display().to_string();
    let waiting = cases.iter().map(Case::full_name).collect();
    for loss in in_boots(waiting, report, |waiting, report| one_boot(&program, waiting, report)) {
        note(&loss);
    }
    Ok(())
}

/// Runs what waits in one guest, and takes from `waiting` what has a result; why cases are left, if any are.
fn one_boot(program: &str, waiting: &mut Vec<String>, report: &mut Report) -> Verdict {
    println!("booting the guest for {} cases", waiting.len());
    let mut command = vec![program.to_owned(), "run".into(), "--inside".into()];
    command.extend(waiting.iter().cloned());
    let mut other = String::new();
    let ended = Guest::prepare().and_then(|guest| {
        guest.run(&command, SILENCE, |line| match report.relay(line) {
            Some(case) => waiting.retain(|name| *name != case),
            None if line.starts_with(NOTE) => println!("{line}"),
            None => other += &format!("{line}\n"),
        })
    });
    match ended {
        Err(Stop::Skip(why)) => Verdict::Skipped(why),
        Err(Stop::Fail(why)) => Verdict::Failed(format!("{why}\n{other}")),
        Ok(status) => Verdict::Failed(format!("no result; the guest's command ended with {status}\n{other}")),
    }
}

/// Boots until nothing waits, and returns a line for each guest that was lost.
fn in_boots(
    mut waiting: Vec<String>,
    report: &mut Report,
    mut boot: impl FnMut(&mut Vec<String>, &mut Report) -> Verdict,
) -> Vec<String> {
    let mut losses = Vec::new();
    let mut lost_in = None;
    while !waiting.is_empty() {
        let verdict = boot(&mut waiting, report);
        let Some(case) = waiting.first().cloned() else { break };
        let over = if let Verdict::Failed(why) = &verdict {
            losses.push(format!("the guest was lost in {case}: {}", why.lines().next().unwrap_or_default()));
            losses.len() == LOSSES
        } else {
            true
        };
        let ended = if over { waiting.len() } else { usize::from(lost_in.as_ref() == Some(&case)) };
        if let (0, Verdict::Failed(why)) = (ended, &verdict) {
            note(&format!("the guest was lost in {case}, which is tried again: {}", why.trim_end()));
        }
        for case in waiting.drain(..ended) {
            report.begin(&case);
            report.end(&case, Duration::ZERO, &verdict);
        }
        lost_in = Some(case);
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a, b and c with guests that are lost in the named cases, one after the other, and then with one that lives.
    fn run(lost_in: &[&str]) -> (String, Vec<String>, Vec<String>) {
        let mut report = Report::new(true);
        let mut lost_in = lost_in.iter();
        let losses = in_boots(["a", "b", "c"].map(str::to_owned).into(), &mut report, |waiting, report| {
            let last = lost_in.next().and_then(|lost| waiting.iter().position(|case| case == lost));
            for case in waiting.drain(..last.unwrap_or(waiting.len())) {
                report.end(&case, Duration::ZERO, &Verdict::Passed);
            }
            Verdict::Failed("down\nand its console".to_owned())
        });
        (report.summary(), report.failed(), losses)
    }

    #[test]
    fn a_guest_that_is_lost_once_costs_no_case_and_is_told() {
        let (summary, _, losses) = run(&["b"]);
        assert_eq!(summary, "hw-tests: 3 passed, 0 failed, 0 skipped");
        assert_eq!(losses, ["the guest was lost in b: down"]);
        assert_eq!(run(&[]).2, [""; 0]);
    }

    #[test]
    fn a_case_in_which_two_guests_are_lost_has_failed_and_the_next_one_runs() {
        let (summary, failed, losses) = run(&["b", "b"]);
        assert_eq!(summary, "hw-tests: 2 passed, 1 failed, 0 skipped");
        assert_eq!((failed, losses.len()), (vec!["b".to_owned()], 2));
    }

    #[test]
    fn after_the_third_loss_what_waits_has_failed() {
        let (summary, failed, losses) = run(&["a", "b", "b", "c"]);
        assert_eq!(summary, "hw-tests: 1 passed, 2 failed, 0 skipped");
        assert_eq!((failed, losses.len()), (vec!["b".to_owned(), "c".to_owned()], 3));
    }

    #[test]
    fn without_a_guest_every_case_is_skipped_at_once() {
        let mut report = Report::new(true);
        let losses =
            in_boots(vec!["a".into(), "b".into()], &mut report, |_, _| Verdict::Skipped("no QEMU".into()));
        assert_eq!(report.summary(), "hw-tests: 0 passed, 0 failed, 2 skipped");
        assert_eq!(losses, [""; 0]);
    }
}
