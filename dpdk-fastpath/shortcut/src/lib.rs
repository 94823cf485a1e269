//! The short cut: connections of ordinary pods, by TCP and UDP, that the fast path has decided are forwarded by programs in the
//! kernel.
//!
//! An ordinary pod's interface is a tap, whose other end the fast path reads. Its packets go through two more processes
//! and as many changes of CPU than those of a kernel's own interface. So the fast path writes what it has decided about a
//! connection, a slot for each direction, into memory that four eBPF programs read (`bpf/shortcut.c`):
//!
//! ```text
//! pod    tap, egress: pod_egress - - - - - - - - - - - - - - -> culvert0    culvert0, ingress: into_pod -> tap
//!                                                                  |           ^
//! node                                           culvert-p7, ingress: from_pod |
//!                                                                  |           |
//!                                        uplink, or culvert-p8, ...         uplink, ingress: from_uplink
//! ```
//!
//! What matches no slot goes on as if there were none of this, through the tap or a packet socket, to the fast path; so
//! do whatever is unusual and a connection's first packet, unless another node opens it to a pod's own address: then the programs
//! enter it by themselves. Nothing is pinned: programs are there as long as some process has their descriptors, and go on with what
//! was decided while there is no fast path, until the next one takes their places.
//!
//! [`Kernel`] loads the programs, and puts them where packets are; [`Memory`] is what is shared with them, and [`Slots`] is
//! that part of it which the fast path's workers write.

mod drops;
mod error;
mod kernel;
pub mod layout;
mod listener;
mod memory;
mod openings;
mod slots;
mod ways;

pub use drops::{Drops, Reason};
pub use error::{PodError, Refusal, ShortcutError, UplinkError};
pub use kernel::{Joined, Kernel, remove_left};
pub use listener::Unheard;
pub use memory::{Memory, end_epoch_of};
pub use openings::{Choice, Served};
pub use slots::{Direction, End, Passed, Slots};
pub use ways::{Pod, Remote, Surroundings, Tunnelled};
