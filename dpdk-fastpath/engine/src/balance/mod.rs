//! What workers remember from flow to flow to spread new ones: whose turn it is, how many flows each endpoint has, and
//! which endpoint each client used last.
//!
//! All of it is touched when a flow is opened or ends, never by the packets in between.

mod affinity;
mod least;
mod loads;
mod turns;
mod visit;

pub use self::affinity::{Affinity, Calendar, Client, Endpoint, Kept, Moment};
pub(crate) use self::affinity::{Bucket as ClientBucket, CLIENTS_BUCKET};
pub use self::least::least_loaded;
pub use self::loads::{LoadWriter, Loads};
pub use self::turns::Turns;
pub use self::visit::Visit;
