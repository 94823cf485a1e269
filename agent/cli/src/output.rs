//! Printing a view as a table or as JSON.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::args::Format;
use crate::client::ClientError;

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
}

/// Where and how to print.
pub(crate) struct Output {
    format: Format,
    bold: Style,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let bold =
            if colour { Style::new().bold().fg_color(Some(AnsiColor::Cyan.into())) } else { Style::new() };
        Self { format, bold }
    }

    /// Prints `view`. A reader that closed the pipe early (`| head`) is no failure.
    pub(crate) fn print<V: View>(&self, view: &V) -> Result<(), ClientError> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(view).expect("views have text keys only") + "\n",
            Format::Table => self.blocks(&view.blocks()),
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Print(error)),
            _ => Ok(()),
        }
    }

    fn blocks(&self, blocks: &[Block]) -> String {
        let parts: Vec<String> =
            blocks.iter().map(|block| self.block(block)).filter(|t| !t.is_empty()).collect();
        parts.join("\n")
    }

    fn block(&self, block: &Block) -> String {
        match block {
            Block::Lines(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
            Block::Table(headings, rows) => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING).set_header(headings).add_rows(rows);
                for column in table.column_iter_mut() {
                    column.set_padding((0, 2));
                }
                let text = table.to_string();
                let mut lines = text.lines().map(str::trim_end);
                let head = lines.next().unwrap_or_default();
                let (on, off) = (self.bold.render(), self.bold.render_reset());
                let rest: String = lines.map(|line| format!("{line}\n")).collect();
                format!("{on}{head}{off}\n{rest}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let output = Output { format: Format::Table, bold: Style::new() };
        let rows = vec![vec!["0".into(), "02:00:00:00:00:01".into()], vec!["10".into(), String::new()]];
        let text = output.blocks(&[Block::Table(vec!["VF", "MAC"], rows)]);
        assert_eq!(text, "VF  MAC\n0   02:00:00:00:00:01\n10\n");
    }
}
