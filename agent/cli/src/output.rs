//! Printing a view as a table or as JSON.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::Format;
use crate::client::ClientError;
use crate::view::nic::{self, EventView};

/// Something that prints both ways.
pub(crate) trait View: Serialize {
    /// Blocks of text for people, top to bottom.
    fn blocks(&self) -> Vec<Block>;
}

/// A part of what people see.
pub(crate) enum Block {
    /// Headings and rows; columns are aligned.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// Lines as they are.
    Lines(Vec<String>),
    /// What something is, and its properties; those without a value are left out.
    Fields(String, Vec<(&'static str, String)>),
    /// A line, and lines below it whose columns are aligned.
    Tree(String, Vec<Vec<String>>),
}

/// Whether news is good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Neither.
    Plain,
    /// Good.
    Good,
    /// Bad.
    Bad,
}

/// Where and how to print.
pub(crate) struct Output {
    format: Format,
    colours: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        // An empty value counts as none (no-color.org).
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, colours: io::stdout().is_terminal() && !unwanted }
    }

    /// How to print.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// A view for people.
    pub(crate) fn text<V: View>(&self, view: &V) -> String {
        self.blocks(&view.blocks())
    }

    /// Prints `view`. A reader that closed the pipe early (`| head`) is no failure.
    pub(crate) fn print<V: View>(&self, view: &V) -> Result<(), ClientError> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(view).expect("views have text keys only") + "\n",
            Format::Table => self.text(view),
        };
        write(&text).map(drop)
    }

    /// Prints one event, at once; false if nobody reads any more.
    pub(crate) fn event(&self, event: &EventView) -> Result<bool, ClientError> {
        let text = match self.format {
            Format::Json => serde_json::to_string(event).expect("has text keys only"),
            Format::Table => {
                let (time, mood, what, rest) = nic::line(event);
                let style = self.style(match mood {
                    Mood::Plain => Style::new(),
                    Mood::Good => AnsiColor::Green.on_default(),
                    Mood::Bad => AnsiColor::Red.on_default(),
                });
                format!("{time}  {}{what}{}  {rest}", style.render(), style.render_reset())
            }
        };
        write(&(text + "\n"))
    }

    fn style(&self, style: Style) -> Style {
        if self.colours { style } else { Style::new() }
    }

    fn blocks(&self, blocks: &[Block]) -> String {
        let parts: Vec<String> =
            blocks.iter().map(|block| self.block(block)).filter(|t| !t.is_empty()).collect();
        parts.join("\n")
    }

    fn block(&self, block: &Block) -> String {
        match block {
            Block::Lines(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Block::Fields(title, fields) => {
                let bold = self.style(AnsiColor::Cyan.on_default().bold());
                let known = fields.iter().filter(|(_, value)| !value.is_empty());
                let width = known.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
                let lines: String =
                    known.map(|(name, value)| format!("  {name:width$}  {value}\n")).collect();
                format!("{}{title}{}\n{lines}", bold.render(), bold.render_reset())
            }
            Block::Tree(trunk, branches) => {
                let bold = self.style(Style::new().bold());
                let mut text = format!("{}{trunk}{}\n", bold.render(), bold.render_reset());
                let mut table = aligned();
                table.add_rows(branches);
                pad(&mut table);
                let lines = if branches.is_empty() { String::new() } else { table.to_string() };
                let mut lines = lines.lines().peekable();
                while let Some(line) = lines.next() {
                    let corner = if lines.peek().is_some() { "├─" } else { "└─" };
                    text += &format!("{corner} {}\n", line.trim_end());
                }
                text
            }
            Block::Table(headings, rows) => {
                let mut table = aligned();
                table.set_header(headings).add_rows(rows);
                pad(&mut table);
                let text = table.to_string();
                let mut lines = text.lines().map(str::trim_end);
                let head = lines.next().unwrap_or_default();
                let bold = self.style(AnsiColor::Cyan.on_default().bold());
                let (on, off) = (bold.render(), bold.render_reset());
                let rest: String = lines.map(|line| format!("{line}\n")).collect();
                format!("{on}{head}{off}\n{rest}")
            }
        }
    }
}

/// A table without lines.
fn aligned() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Two blanks between columns; the columns have to be there already.
fn pad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

/// Writes to standard output; false if nobody reads any more.
pub(crate) fn write(text: &str) -> Result<bool, ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(ClientError::Print(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let output = Output { format: Format::Table, colours: false };
        let rows = vec![vec!["0".into(), "02:00:00:00:00:01".into()], vec!["10".into(), String::new()]];
        let text = output.blocks(&[Block::Table(vec!["VF", "MAC"], rows)]);
        assert_eq!(text, "VF  MAC\n0   02:00:00:00:00:01\n10\n");
    }

    #[test]
    fn a_tree_ends_with_a_corner_and_fields_without_a_value_are_left_out() {
        let output = Output { format: Format::Table, colours: false };
        let rows = ["vf 0", "vf 10"].map(|vf| vec![vf.to_owned(), "free".to_owned()]).to_vec();
        let bare = Block::Tree("0000:04:00.0".to_owned(), Vec::new());
        let text = output.blocks(&[Block::Tree("0000:03:00.0".to_owned(), rows), bare]);
        assert_eq!(text, "0000:03:00.0\n├─ vf 0   free\n└─ vf 10  free\n\n0000:04:00.0\n");
        let fields = vec![
            ("MAC", "02:00:00:00:00:01".to_owned()),
            ("RDMA", String::new()),
            ("MTU", "1500".to_owned()),
        ];
        let text = output.blocks(&[Block::Fields("VF 3".to_owned(), fields)]);
        assert_eq!(text, "VF 3\n  MAC  02:00:00:00:00:01\n  MTU  1500\n");
    }
}
