//! Namespaces, processes and traffic: what every topology is made of.

mod flood;
pub mod http;
mod load;
mod netns;
mod pattern;
mod ping;
mod process;
pub mod serve;
pub mod udp;

pub use flood::Flood;
pub use load::{Load, Tally};
pub use netns::{Netns, clean_testbed};
pub use pattern::pattern;
pub use ping::{Ping, Pong};
pub use process::{Process, Run, program, run};
