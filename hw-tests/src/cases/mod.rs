//! The tests themselves, about ten lines each.

mod connectivity;
mod guest;

use crate::frame::Case;

/// All cases there are, in the order in which they run.
pub fn all() -> Vec<Case> {
    [connectivity::CASES, guest::CASES].concat()
}
