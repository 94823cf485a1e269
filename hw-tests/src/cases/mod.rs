//! The tests themselves, about ten lines each.

mod connectivity;
mod guest;
mod yardstick;

use crate::frame::Case;

/// All cases there are, in the order in which they run.
pub fn all() -> Vec<Case> {
    [yardstick::CASES, connectivity::CASES, guest::CASES].concat()
}
