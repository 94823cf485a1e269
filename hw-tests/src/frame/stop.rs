//! Why a case ends early.

use std::error::Error;
use std::fmt::Write as _;

/// What a case, or a step of it, returns.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a case ends early. Every error turns into [`Stop::Fail`] by `?`, with its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The machine lacks what the case needs.
    Skip(String),
    /// It does not hold.
    Fail(String),
}

impl Stop {
    /// A failure.
    pub fn fail(text: impl Into<String>) -> Self {
        Self::Fail(text.into())
    }

    /// The same, with what was being done in front.
    #[must_use]
    pub fn while_doing(self, what: &str) -> Self {
        match self {
            Self::Skip(text) => Self::Skip(format!("{what}: {text}")),
            Self::Fail(text) => Self::Fail(format!("{what}: {text}")),
        }
    }

    /// The reason.
    pub fn text(&self) -> &str {
        match self {
            Self::Skip(text) | Self::Fail(text) => text,
        }
    }
}

impl<E: Error> From<E> for Stop {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        Self::Fail(text)
    }
}

/// Ends the case as failed unless the condition holds; the text says what was seen instead.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::frame::Stop::fail(format!($($text)+)));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the port list")]
        struct Outer(#[source] std::io::Error);
        let stop = Stop::from(Outer(std::io::Error::other("socket closed")));
        assert_eq!(stop, Stop::fail("cannot read the port list: socket closed"));
    }

    #[test]
    fn what_was_being_done_comes_first() {
        assert_eq!(Stop::fail("no reply").while_doing("ping 10.0.0.1").text(), "ping 10.0.0.1: no reply");
    }
}
