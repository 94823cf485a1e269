//! Runs cases one after the other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Case, Context, Outcome, Report, Stop, Verdict};

/// The cases whose full name contains one of `filters`; all of them when there are none.
pub fn select(cases: &[Case], filters: &[String]) -> Vec<Case> {
    let wanted = |case: &&Case| {
        let name = case.full_name();
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
    };
    cases.iter().filter(wanted).copied().collect()
}

/// Runs cases on this machine, whatever their place: inside the guest, this machine is the guest.
pub fn run_here(cases: &[Case], report: &mut Report) {
    for case in cases {
        let name = case.full_name();
        report.begin(&name);
        let start = Instant::now();
        let verdict = run_one(case);
        report.end(&name, start.elapsed(), &verdict);
    }
}

fn run_one(case: &Case) -> Verdict {
    let context = match Context::new() {
        Ok(context) => context,
        Err(stop) => return Verdict::Failed(stop.text().to_owned()),
    };
    let outcome: Outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(&context)))
        .unwrap_or_else(|panic| Err(Stop::fail(format!("panicked: {}", panic_text(panic.as_ref())))));
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(Stop::Skip(why)) => Verdict::Skipped(why),
        Err(Stop::Fail(why)) => Verdict::Failed(format!("{why}\n{}", context.logs())),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Place;

    const CASES: [Case; 3] = [
        Case { name: "holds", place: Place::Netns, run: |_| Ok(()) },
        Case { name: "panics", place: Place::Netns, run: |_| panic!("out of {}", "luck") },
        Case { name: "lacks", place: Place::Guest, run: |_| Err(Stop::Skip("no igb".into())) },
    ];

    #[test]
    fn filters_match_any_part_of_the_full_name() {
        let names = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            select(&CASES, &filters).iter().map(|c| c.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), 3);
        assert_eq!(names(&["guest::"]), ["lacks"]);
        assert_eq!(names(&["hold", "pan"]), ["holds", "panics"]);
        assert!(names(&["nothing"]).is_empty());
    }

    #[test]
    fn a_case_that_panics_fails_and_the_next_one_runs() {
        let mut report = Report::new(true);
        run_here(&CASES, &mut report);
        assert_eq!(report.summary(), "hw-tests: 1 passed, 1 failed, 1 skipped");
        assert_eq!(report.failed(), ["netns::panics"]);
    }
}
