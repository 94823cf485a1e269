//! What workers remember from flow to flow to spread new ones: whose turn it is, and how many flows each endpoint has.
//!
//! All of it is touched when a flow is opened or ends, never by the packets in between.

mod least;
mod loads;
mod turns;

pub use self::least::least_loaded;
pub use self::loads::{LoadWriter, Loads};
pub use self::turns::Turns;
