//! DPDK's own log, handed to the program.
//!
//! Lines go to standard error until [`send_to`] names another place. While a call runs that may fail, error lines are
//! also kept, since DPDK's return codes alone rarely tell the reason.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock};

/// How grave a line is; numbers as in `rte_log.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum LogLevel {
    /// The system is unusable.
    Emergency = 1,
    /// Action must be taken at once.
    Alert = 2,
    /// Critical.
    Critical = 3,
    /// Something failed.
    Error = 4,
    /// Something looks wrong.
    Warning = 5,
    /// Normal, and worth to know.
    Notice = 6,
    /// Progress.
    Info = 7,
    /// Everything.
    Debug = 8,
}

impl LogLevel {
    /// As `--log-level` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 | 1 => Self::Emergency,
            2 => Self::Alert,
            3 => Self::Critical,
            4 => Self::Error,
            5 => Self::Warning,
            6 => Self::Notice,
            7 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Takes one line of the log, without a line end. Called from any thread; must not call DPDK.
pub type LogSink = fn(LogLevel, &str);

/// The least grave level that is passed on.
static LEAST: AtomicU32 = AtomicU32::new(LogLevel::Warning as u32);

static SINK: RwLock<LogSink> = RwLock::new(to_standard_error);

thread_local! {
    /// Error lines of the call that this thread is in.
    static CAPTURED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Parts of lines that DPDK logs as errors or warnings where nothing is wrong; passed on as debug lines.
const EXPECTED: &[&str] = &[
    // EAL, of each size of hugepages that the kernel knows and nobody reserved; the preflight has counted them all.
    "hugepages reported on node",
    // net_tap tells its secondary processes of every start; the errno is ENOTSUP: there are none.
    "Failed to send start req to secondary 95",
    // net_tap without signals, as it should be: see port::tap::NoSignals.
    "All rt-signals are in use",
    "No Rx trigger signal available",
    // net_tap prepares rte_flow rules, which need a kernel with sch_multiq; nothing here makes any.
    "multiq qdisc",
    "Specified qdisc kind is unknown",
    "Disabling rte flow support",
    // ethdev, of a receive queue's descriptor where the driver has none: asking is the only way to know.
    "Rx Intr handle unset",
    "Rx Intr vector unset",
];

/// Lines a failing call may bring into its error.
const MOST_CAPTURED: usize = 6;

/// From now on DPDK's log goes to `sink`.
pub fn send_to(sink: LogSink) {
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = sink;
}

/// A line of our own.
pub(crate) fn write(level: LogLevel, line: &str) {
    if level as u32 > LEAST.load(Ordering::Relaxed) {
        return;
    }
    let sink = *SINK.read().unwrap_or_else(PoisonError::into_inner);
    sink(level, line);
}

/// Runs `function` and returns the error lines it logged on this thread as well.
pub(crate) fn capture<T>(function: impl FnOnce() -> T) -> (T, Vec<String>) {
    let outer = CAPTURED.replace(Some(Vec::new()));
    let result = function();
    (result, CAPTURED.replace(outer).unwrap_or_default())
}

/// Makes DPDK log through us, lines down to `least`.
pub(crate) fn install(least: LogLevel) {
    LEAST.store(least as u32, Ordering::Relaxed);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `receive` has the signature of shim_log_sink and lives as long as the program.
        let result = unsafe { dpdk_sys::shim_log_to(Some(receive)) };
        if result != 0 {
            write(LogLevel::Warning, "DPDK's log could not be redirected; it goes to standard error");
        }
    });
}

fn to_standard_error(level: LogLevel, line: &str) {
    eprintln!("dpdk {}: {line}", level.name());
}

extern "C" fn receive(level: u32, text: *const std::ffi::c_char, length: usize) {
    // SAFETY: shim.c passes a readable text of this length, which outlives the call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let level = LogLevel::from_number(level);
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|line| !line.is_empty()) {
        let level = if EXPECTED.iter().any(|part| line.contains(part)) { LogLevel::Debug } else { level };
        if level <= LogLevel::Error {
            CAPTURED.with_borrow_mut(|captured| {
                if let Some(lines) = captured.as_mut().filter(|lines| lines.len() < MOST_CAPTURED) {
                    lines.push(line.to_owned());
                }
            });
        }
        write(level, line);
    }
}
