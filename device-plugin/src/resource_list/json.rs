//! JSON (RFC 8259) that remembers where things stand, so that a finding about a value can name its line.

use std::fmt;

#[cfg(test)]
mod tests;

/// Deepest nesting that is read.
const DEPTH: usize = 64;

/// A place in a text; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// Why a file cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct SyntaxError {
    /// Where it was noticed.
    pub at: Spot,
    /// What is wrong there.
    pub what: String,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Spot,
    pub(super) value: Json,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Array(Vec<Node>),
    /// In the order of the text, a key as often as it stands there.
    Object(Vec<(Spot, String, Node)>),
}

impl Json {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads exactly one value.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader { rest: text, at: Spot { line: 1, column: 1 } };
    reader.blank();
    let node = reader.value(0)?;
    reader.blank();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("more text after the end of the value")),
    }
}

struct Reader<'t> {
    rest: &'t str,
    at: Spot,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at = Spot { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn blank(&mut self) {
        while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    fn error(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.at, what: what.into() }
    }

    /// The error for whatever comes next instead of what was expected.
    fn unexpected(&self, expected: &str) -> SyntaxError {
        match self.peek() {
            Some(c) => self.error(format!("{c:?} where {expected} is expected")),
            None => self.error(format!("the text ends where {expected} is expected")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.at;
        if depth > DEPTH {
            return Err(self.error(format!("nested more than {DEPTH} deep")));
        }
        let value = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => Json::String(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn object(&mut self, depth: usize) -> Result<Json, SyntaxError> {
        self.next();
        let mut members = Vec::new();
        loop {
            self.blank();
            match self.peek() {
                Some('}') if members.is_empty() => break,
                Some('}') => return Err(self.error("'}' after a comma: remove the comma")),
                Some('"') => {}
                _ => return Err(self.unexpected("a key in double quotes")),
            }
            let at = self.at;
            let key = self.string()?;
            self.blank();
            if self.peek() != Some(':') {
                return Err(self.unexpected("':' after a key"));
            }
            self.next();
            self.blank();
            members.push((at, key, self.value(depth + 1)?));
            self.blank();
            match self.peek() {
                Some(',') => drop(self.next()),
                Some('}') => break,
                _ => return Err(self.unexpected("',' or '}'")),
            }
        }
        self.next();
        Ok(Json::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Json, SyntaxError> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.blank();
            match self.peek() {
                Some(']') if items.is_empty() => break,
                Some(']') => return Err(self.error("']' after a comma: remove the comma")),
                _ => items.push(self.value(depth + 1)?),
            }
            self.blank();
            match self.peek() {
                Some(',') => drop(self.next()),
                Some(']') => break,
                _ => return Err(self.unexpected("',' or ']'")),
            }
        }
        self.next();
        Ok(Json::Array(items))
    }

    fn word(&mut self) -> Result<Json, SyntaxError> {
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.rest = rest;
                self.at.column += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("a value"))
    }

    fn number(&mut self) -> Result<Json, SyntaxError> {
        let mut text = String::new();
        if self.peek() == Some('-') {
            text.extend(self.next());
        }
        match self.peek() {
            Some('0') => text.extend(self.next()),
            _ => self.digits(&mut text)?,
        }
        if self.peek() == Some('.') {
            text.extend(self.next());
            self.digits(&mut text)?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            text.extend(self.next());
            if matches!(self.peek(), Some('+' | '-')) {
                text.extend(self.next());
            }
            self.digits(&mut text)?;
        }
        Ok(Json::Number(text))
    }

    fn digits(&mut self, text: &mut String) -> Result<(), SyntaxError> {
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.unexpected("a digit"));
        }
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            text.extend(self.next());
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                Some('\\') => text.push(self.escape()?),
                Some(c) if c >= ' ' => text.extend(self.next()),
                Some(_) => return Err(self.error("a string that goes on past the end of its line")),
                None => return Err(self.unexpected("the '\"' that ends a string")),
            }
        }
        self.next();
        Ok(text)
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        self.next();
        let simple = match self.peek() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(),
            _ => return Err(self.unexpected("the rest of an escape")),
        };
        self.next();
        Ok(simple)
    }

    /// `uXXXX`, and a second one for characters beyond 16 bits (RFC 8259, section 7).
    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) || !self.rest.starts_with("\\u") {
            // A lone half stands for no character.
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.next();
        let low = self.hex4()?;
        let whole = 0x1_0000 + ((high - 0xd800) << 10) + low.wrapping_sub(0xdc00);
        let pair = (0xdc00..0xe000).contains(&low);
        Ok(if pair { char::from_u32(whole) } else { None }.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        self.next();
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return Err(self.unexpected("four hexadecimal digits"));
            };
            code = code << 4 | digit;
            self.next();
        }
        Ok(code)
    }
}
