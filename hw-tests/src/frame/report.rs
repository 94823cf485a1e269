//! How results are counted, shown, and sent out of the guest.

use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict", content = "text")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// It could not be tried, and why.
    Skipped(String),
}

/// What the guest prints for each case, as one line of JSON: [`Report::LINE`] and this.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    case: String,
    seconds: f32,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Counts results and shows each as it comes.
#[derive(Debug, Default)]
pub struct Report {
    json: bool,
    passed: usize,
    skipped: usize,
    /// Each with the reason.
    failed: Vec<(String, String)>,
}

impl Report {
    /// What starts a line of JSON among other output.
    const LINE: &'static str = "culvert-case ";

    /// A report for people, or one that another [`Report`] reads.
    pub fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    /// Says that a case begins.
    pub fn begin(&self, case: &str) {
        if !self.json {
            print!("{case:.<76} ");
            // A closed terminal is no reason to stop testing.
            let _ = std::io::stdout().flush();
        }
    }

    /// Counts and shows the result of the case that [`Report::begin`] announced.
    pub fn end(&mut self, case: &str, took: Duration, verdict: &Verdict) {
        let seconds = took.as_secs_f32();
        if self.json {
            let line = Line { case: case.to_owned(), seconds, verdict: verdict.clone() };
            let line = serde_json::to_string(&line).expect("strings and numbers are JSON");
            println!("{}{line}", Self::LINE);
        } else {
            match verdict {
                Verdict::Passed => println!("ok ({seconds:.1} s)"),
                Verdict::Skipped(why) => println!("skipped: {why}"),
                Verdict::Failed(why) => println!("FAILED ({seconds:.1} s)\n{}", indent(why)),
            }
        }
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
            Verdict::Failed(why) => self.failed.push((case.to_owned(), why.clone())),
        }
    }

    /// Takes over a result from a line that a JSON report printed; `None` when it is another kind of line.
    pub fn relay(&mut self, line: &str) -> Option<String> {
        let line: Line = serde_json::from_str(line.trim_end().strip_prefix(Self::LINE)?).ok()?;
        self.begin(&line.case);
        self.end(&line.case, Duration::from_secs_f32(line.seconds.max(0.0)), &line.verdict);
        Some(line.case)
    }

    /// Names of the cases that failed.
    pub fn failed(&self) -> Vec<String> {
        self.failed.iter().map(|(case, _)| case.clone()).collect()
    }

    /// A line for each case that failed: who sees no more than the end of a long output knows why.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let first = |why: &str| why.lines().next().unwrap_or_default().to_owned();
        self.failed.iter().map(move |(case, why)| format!("failed: {case}: {}", first(why)))
    }

    /// The line that ends a run.
    pub fn summary(&self) -> String {
        format!("hw-tests: {} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped)
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_the_way_out_of_the_guest() {
        let line =
            Line { case: "guest::x".into(), seconds: 1.5, verdict: Verdict::Failed("a\n\"b\"".into()) };
        let printed = format!("{}{}\r\n", Report::LINE, serde_json::to_string(&line).unwrap());
        let mut report = Report::new(true);
        assert_eq!(report.relay(&printed).as_deref(), Some("guest::x"));
        assert_eq!(report.failures().collect::<Vec<_>>(), ["failed: guest::x: a"]);
        assert_eq!(report.relay("[ 1.2] igb 0000:41:00.0: added PHC"), None);
    }

    #[test]
    fn every_verdict_is_counted_once() {
        let mut report = Report::new(true);
        for verdict in [Verdict::Passed, Verdict::Skipped("no root".into()), Verdict::Failed("x".into())] {
            report.end("c", Duration::ZERO, &verdict);
        }
        assert_eq!(report.summary(), "hw-tests: 1 passed, 1 failed, 1 skipped");
    }
}
