//! What people see: headings, commands with what they print, and a table at the end.

use serde::{Deserialize, Serialize};

use crate::frame::Outcome;

/// One line of the table at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    what: String,
    held: bool,
    detail: String,
}

/// A demonstration in progress.
#[derive(Debug)]
pub struct Show {
    inside: bool,
    lines: Vec<Line>,
}

impl Show {
    /// What starts a line of JSON among what people read.
    const LINE: &'static str = "culvert-shown ";

    /// `inside` the guest, lines of the table are printed as JSON for the machine that booted it.
    pub fn new(inside: bool) -> Self {
        Self { inside, lines: Vec::new() }
    }

    /// A part of the demonstration.
    pub fn heading(&self, text: &str) {
        println!("\n== {text}");
    }

    /// Says something.
    pub fn say(&self, text: &str) {
        println!("   {text}");
    }

    /// Tries something that must hold and keeps it for the table; what it returns stands there as a detail.
    pub fn check(&mut self, what: &str, holds: impl FnOnce(&Self) -> Outcome<String>) {
        match holds(self) {
            Ok(detail) => self.add(Line { what: what.to_owned(), held: true, detail }),
            Err(stop) => self.fail(what, stop.text()),
        }
    }

    /// Keeps for the table that something did not hold.
    pub fn fail(&mut self, what: &str, why: &str) {
        self.add(Line { what: what.to_owned(), held: false, detail: why.to_owned() });
    }

    fn add(&mut self, line: Line) {
        if self.inside {
            let json = serde_json::to_string(&line).expect("strings and booleans are JSON");
            println!("{}{json}", Self::LINE);
        } else {
            println!("   {}: {}", if line.held { "ok" } else { "FAILED" }, line.what);
            if !line.held {
                line.detail.lines().for_each(|text| println!("      {text}"));
            }
        }
        self.lines.push(line);
    }

    /// Shows a line that the guest printed, or takes it over for the table.
    pub fn relay(&mut self, text: &str) {
        match text.strip_prefix(Self::LINE).and_then(|json| serde_json::from_str(json).ok()) {
            Some(line) => self.add(line),
            None => println!("{text}"),
        }
    }

    /// Shows the table; says whether all of it held, and there was anything.
    pub fn end(&self) -> bool {
        if !self.inside {
            println!("\n{}", self.table());
        }
        !self.lines.is_empty() && self.lines.iter().all(|line| line.held)
    }

    fn table(&self) -> String {
        let heading = "WHAT WAS SHOWN";
        let width =
            self.lines.iter().map(|line| line.what.chars().count()).max().unwrap_or(0).max(heading.len());
        let mut text = format!("{heading:<width$}  RESULT  DETAIL\n");
        for Line { what, held, detail } in &self.lines {
            let result = if *held { "ok" } else { "FAILED" };
            let detail = if *held { detail } else { "see above" };
            text += format!("{what:<width$}  {result:<6}  {detail}").trim_end();
            text += "\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Stop;

    #[test]
    fn one_line_that_failed_fails_the_whole() {
        let mut show = Show::new(false);
        assert!(!show.end(), "nothing was shown");
        show.check("ping", |_| Ok("3 of 3".into()));
        assert!(show.end());
        show.check("a longer line", |_| Err(Stop::fail("no reply\nat all")));
        assert!(!show.end());
        let want = "WHAT WAS SHOWN  RESULT  DETAIL\n\
                    ping            ok      3 of 3\n\
                    a longer line   FAILED  see above\n";
        assert_eq!(show.table(), want);
    }

    #[test]
    fn a_line_from_the_guest_counts_as_one_of_ours() {
        let line = Line { what: "plan".into(), held: false, detail: "empty".into() };
        let mut show = Show::new(false);
        show.relay(&format!("{}{}", Show::LINE, serde_json::to_string(&line).unwrap()));
        show.relay("$ culvert nic plan");
        assert_eq!(show.lines, [line]);
    }
}
