//! Where intervals are shown: in place at a terminal, else one after the other.

use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;

use crate::args::Format;
use crate::client::ClientError;
use crate::output::{Output, View, write};

/// Control sequences (ECMA-48, and DECAWM for the ends of long lines): to the upper left corner; the same with all gone;
/// what is behind the cursor gone, of the line and of the screen; long lines are cut, or go on in the next.
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Standard output.
pub(super) struct Screen<'a> {
    output: &'a Output,
    refreshed: bool,
    shown: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let refreshed = output.format() == Format::Table && io::stdout().is_terminal() && !dumb;
        Self { output, refreshed, shown: false }
    }

    /// Whether what is shown replaces what was there.
    pub(super) const fn is_refreshed(&self) -> bool {
        self.refreshed
    }

    /// Shows a view; false if nobody reads any more.
    pub(super) fn show<V: View>(&mut self, view: &V) -> Result<bool, ClientError> {
        let text = match self.output.format() {
            Format::Json => serde_json::to_string(view).expect("views have text keys only") + "\n",
            Format::Table => self.output.text(view),
        };
        let text = if self.refreshed { self.frame(&text, rows()) } else { self.separated(text) };
        self.shown = true;
        write(&text)
    }

    /// Says something that is no view: in place of one, or on standard error.
    pub(super) fn say(&mut self, what: &str) -> Result<(), ClientError> {
        if self.refreshed {
            let frame = self.frame(&format!("culvert: {what}\n"), rows());
            self.shown = true;
            write(&frame)?;
        } else {
            eprintln!("culvert: {what}");
        }
        Ok(())
    }

    /// A blank line between two tables; objects of JSON are a line each.
    fn separated(&self, text: String) -> String {
        if self.shown && self.output.format() == Format::Table { format!("\n{text}") } else { text }
    }

    /// What turns the screen that there is into one with this text, as far as there are rows; the last stays free for the
    /// cursor.
    fn frame(&self, text: &str, rows: usize) -> String {
        let room = rows.saturating_sub(1).max(1);
        let mut frame = if self.shown { HOME.to_owned() } else { format!("{CLEAR}{HOME}") };
        frame += CUT;
        for line in text.lines().take(room) {
            frame += line;
            frame += CLEAR_LINE;
            frame += "\n";
        }
        frame + CLEAR_BELOW + WRAP
    }
}

/// Of the terminal; as many as anybody has, if it does not say.
fn rows() -> usize {
    let size = tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row);
    if size == 0 { usize::MAX } else { size.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_the_place_of_the_one_before_and_leaves_the_last_row() {
        let output = Output::new(Format::Table);
        let mut screen = Screen { output: &output, refreshed: true, shown: false };
        let rest = "a\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h";
        assert_eq!(screen.frame("a\nb\nc\nd\n", 3), format!("\x1b[2J\x1b[H\x1b[?7l{rest}"));
        screen.shown = true;
        assert_eq!(screen.frame("a\nb\n", 24), format!("\x1b[H\x1b[?7l{rest}"));
        assert_eq!(screen.frame("a\nb\n", 0), "\x1b[H\x1b[?7la\x1b[K\n\x1b[J\x1b[?7h");
    }
}
