//! Reads a file that is being written, line by line.

use std::io::{self, Read};

/// A growing file.
#[derive(Debug)]
pub(super) struct Follow<R> {
    source: R,
    pending: Vec<u8>,
}

impl<R: Read> Follow<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, pending: Vec::new() }
    }

    /// Gives every line that has become complete.
    pub(super) fn lines(&mut self, line: &mut impl FnMut(&str)) -> io::Result<()> {
        self.source.read_to_end(&mut self.pending)?;
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let whole = std::mem::replace(&mut self.pending, rest);
            line(String::from_utf8_lossy(&whole).trim_end());
        }
        Ok(())
    }

    /// Gives what is left, with or without a line's end.
    pub(super) fn finish(&mut self, line: &mut impl FnMut(&str)) -> io::Result<()> {
        self.lines(line)?;
        if !self.pending.is_empty() {
            line(&String::from_utf8_lossy(&std::mem::take(&mut self.pending)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Follow;
    use std::collections::VecDeque;

    #[test]
    fn a_line_written_in_two_pieces_is_given_once_and_whole() {
        let mut seen = Vec::new();
        let mut follow = Follow::new(VecDeque::from(b"one\ntw".to_vec()));
        follow.lines(&mut |line| seen.push(line.to_owned())).unwrap();
        follow.source.extend(b"o\nthree");
        follow.lines(&mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one", "two"]);
        follow.finish(&mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
    }
}
