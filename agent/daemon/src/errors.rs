//! Printing errors.

pub use culvert_api::errors::chain;
