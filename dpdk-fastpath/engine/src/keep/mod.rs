//! What outlives the process that forwards.
//!
//! culvert-fastpath is two processes. The *keeper* is what one starts: it holds descriptors and nothing else, and starts
//! the *forwarder*, which does all the rest. When the forwarder ends, however that happens, the keeper starts the next with
//! all descriptors: those of taps, so that their kernel ends stay in the pods as they are; of the memory of flows; and
//! of the [ledgers](Ledger) in which the last tables and ports are written down. So the next one forwards before anybody
//! else has noticed, the agent included.
//!
//! A forwarder that is there but stands still is as bad as one that has ended. So its threads count their rounds where the
//! keeper sees it ([`Pulse`]); if one does not come round for a while, the keeper ends the forwarder itself.
//!
//! The keeper is small so that it need not be restarted: no DPDK, no tables, no packets. Should it be, under systemd: it
//! passes everything on to systemd's own store of descriptors (`FDSTORE=1`, sd_notify(3)), and is given it back.

mod backoff;
mod child;
mod keeper;
mod kept;
mod ledger;
mod message;
mod pulse;
mod service_manager;
mod watch;

use rustix::time::{ClockId, clock_gettime};

pub use keeper::{Keeper, KeeperError};
pub use kept::{Inheritance, Keep, KeepError, Wish};
pub use ledger::{Ledger, LedgerError};
pub use message::Occasion;
pub use pulse::{Beat, Pulse};

/// `CLOCK_MONOTONIC` in nanoseconds: the same for all processes.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
