//! Printing errors.

use std::error::Error;

/// An error and all its causes on one line: `cannot read a.yaml: No such file or directory (os error 2)`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
