//! `culvert top`.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Shorter ones measure little but themselves.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

/// What to measure, and what to show of it.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How long is measured at a time: 100ms to 1h.
    #[arg(short = 'n', long, default_value = "1s", value_parser = interval, value_name = "TIME")]
    pub(crate) interval: Duration,
    /// Ends after so many intervals; otherwise it goes on until it is interrupted.
    #[arg(short, long, value_name = "N")]
    count: Option<NonZeroU32>,
    /// Ends after one interval.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// What the ports are sorted by, most first.
    #[arg(short, long, value_enum, default_value_t = Sort::Packets, value_name = "WHAT")]
    pub(crate) sort: Sort,
    /// Most ports to show. At a terminal no more are shown than there is room for.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

impl TopArgs {
    /// Intervals to measure; without end if there is no number.
    pub(crate) fn count(&self) -> Option<u32> {
        if self.once { Some(1) } else { self.count.map(NonZeroU32::get) }
    }
}

/// An order of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Packets in both directions.
    Packets,
    /// Bits in both directions.
    Bits,
    /// Packets dropped, of both directions.
    Drops,
    /// Turns that ended before all was received.
    Deferred,
    /// The owner, then the port's name, in alphabetical order.
    Name,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval: Duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if (SHORTEST..=LONGEST).contains(&interval) { Ok(interval) } else { Err("must be 100ms-1h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_time_with_a_unit_and_within_bounds() {
        assert_eq!(interval("100ms"), Ok(SHORTEST));
        assert_eq!(interval("1h"), Ok(LONGEST));
        for wrong in ["99ms", "61min", "0s"] {
            assert_eq!(interval(wrong), Err("must be 100ms-1h".to_owned()), "{wrong}");
        }
        for wrong in ["", "1", "-1s", "soon", "1e9s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
