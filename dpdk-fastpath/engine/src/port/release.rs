//! What another process has had until now.

use std::thread;
use std::time::{Duration, Instant};

use culvert_dpdk::PortError;

/// How long the kernel may take to let go of the NIC that a process had: one that hands over ends only now.
const RELEASE: Duration = Duration::from_secs(2);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// What `open` returns once it finds the NIC free that another process has just had.
pub(super) fn once_released<T>(mut open: impl FnMut() -> Result<T, PortError>) -> Result<T, PortError> {
    let end = Instant::now() + RELEASE;
    loop {
        match open() {
            Err(error) if Instant::now() < end => {
                tracing::debug!(%error, "the process before may still have the NIC");
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}
