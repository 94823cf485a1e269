//! `culvert top`: measures until it is told to stop.

mod screen;

use std::thread;
use std::time::{Instant, SystemTime};

use culvert_api::fastpath::Counters;

use self::screen::Screen;
use crate::args::TopArgs;
use crate::client::{Client, ClientError};
use crate::output::Output;
use crate::view::top::Interval;

/// Measures and shows, interval by interval.
pub(crate) fn run(client: &Client, output: &Output, args: &TopArgs) -> Result<(), ClientError> {
    let mut screen = Screen::new(output);
    let mut before = sample(client)?;
    let (mut left, mut next) = (args.count(), Instant::now());
    // Somebody who watches wants to see how the agent comes back; a program wants to know at once.
    let patient = screen.is_refreshed() && left.is_none();
    while left != Some(0) {
        next = (next + args.interval).max(Instant::now());
        thread::sleep(next - Instant::now());
        let after = match sample(client) {
            Ok(after) => after,
            Err(error) if patient && error.may_pass() => {
                screen.say(&error.to_string())?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        match Interval::between(&before, &after, at) {
            Some(interval) => {
                if !screen.show(&interval.arranged(args.sort, args.limit))? {
                    return Ok(());
                }
                left = left.map(|left| left - 1);
            }
            None => screen.say("the fast path was started anew: its counters begin at zero")?,
        }
        before = after;
    }
    Ok(())
}

/// The counters of this moment.
fn sample(client: &Client) -> Result<Counters, ClientError> {
    let counters = client.counters()?;
    // Without time there are no rates.
    if counters.cycles_per_second == 0 { Err(client.mismatch()) } else { Ok(counters) }
}
