//! A DPDK call that failed.

use std::ffi::CStr;
use std::fmt;

/// An errno value of DPDK or the kernel, shown as text; 0 where DPDK gave none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("failed");
        }
        // SAFETY: rte_strerror returns a terminated text in a buffer of this thread, read before the next call.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

/// A DPDK function refused: what was tried, on what, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{object}: {operation}: {errno}{}", because(.log))]
pub struct DpdkError {
    /// What was tried, as "start" or "set MTU 9000".
    pub operation: String,
    /// On what, as "port net_tapcvp0".
    pub object: String,
    /// Why.
    pub errno: Errno,
    /// What DPDK logged as an error meanwhile; often the real reason.
    pub log: Vec<String>,
}

/// DPDK's own reason, for the end of a message.
pub(crate) fn because(log: &[String]) -> String {
    if log.is_empty() { String::new() } else { format!("; DPDK says: {}", log.join("; ")) }
}

impl DpdkError {
    pub(crate) fn new(object: &str, operation: impl Into<String>, errno: i32) -> Self {
        Self { operation: operation.into(), object: object.to_owned(), errno: Errno(errno), log: Vec::new() }
    }
}

/// Runs a DPDK function that returns 0 or a negative errno (some drivers: -1), and keeps what it logged if it fails.
pub(crate) fn call(
    object: &str,
    operation: impl Into<String>,
    function: impl FnOnce() -> i32,
) -> Result<(), DpdkError> {
    let (result, log) = crate::log::capture(function);
    if result >= 0 {
        return Ok(());
    }
    Err(DpdkError { log, ..DpdkError::new(object, operation, -result) })
}
