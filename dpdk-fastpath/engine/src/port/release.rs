//! What another process has had until now.

use std::thread;
use std::time::{Duration, Instant};

use culvert_dpdk::PortError;

/// How long the kernel may take to let go of what a process had. One that hands over ends only now, net_af_xdp closes its
/// sockets no earlier, nor is a NIC let go; and the kernel frees what they held some time later.
const RELEASE: Duration = Duration::from_secs(2);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// What `open` returns once it finds the queues free that another process has just had.
pub(super) fn once_released<T>(mut open: impl FnMut() -> Result<T, PortError>) -> Result<T, PortError> {
    let end = Instant::now() + RELEASE;
    loop {
        match open() {
            Err(error) if Instant::now() < end => {
                tracing::debug!(%error, "the process before may still have the queues");
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}
